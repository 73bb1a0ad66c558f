"""Generation: exact constrained decoding is the top of `rank`; free text is matched to the titles."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch

from allmrec.config import LLMConfig
from allmrec.errors import ConfigError
from allmrec.llm import generate
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.generate import (
    MORE_TOKENS,
    NO_CANDIDATE,
    Leaf,
    decode_constrained,
    decode_free,
    generate_greedy,
)
from allmrec.llm.matching import Rule
from allmrec.llm.multi_item import PROMPT_TOO_LONG, score_requests
from allmrec.llm.packing import Request
from allmrec.llm.prompt import PromptLayout
from tests.tiny_models import make_tiny_llm

WORDS = ("red", "blue", "steel", "wool", "tent", "socks", "bottle", "chair", "warm", "camping")


@pytest.fixture(scope="module", params=("llama", "opt"))
def llm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FrozenLLM:
    folder = tmp_path_factory.mktemp(request.param)
    return FrozenLLM.load(
        LLMConfig(model=str(make_tiny_llm(folder, request.param)), dtype="float32", device="cpu"), folder
    )


def make(
    llm: FrozenLLM, layout: str
) -> tuple[PromptLayout, list[str], list[Request], torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(0)
    titles = [" ".join(random.choice(WORDS, random.integers(1, 4))) for _ in range(60)]
    built = PromptLayout(layout, "item", llm.tokenise, llm.bos_ids, llm.eos_id, 5, True)
    tokens = built.tokenise_titles(titles, 12)
    requests = []
    for _ in range(6):
        items = (random.permutation(60)[:25] + 1).tolist()
        requests.append(
            Request(
                built.prompt(items[:5], items[5:], tokens), [built.answer(idx, tokens) for idx in items[5:]]
            )
        )
    generator = torch.Generator().manual_seed(0)
    return (
        built,
        titles,
        requests,
        torch.randn(61, llm.width, generator=generator),
        torch.randn(6, llm.width, generator=generator),
    )


@pytest.mark.parametrize("layout", ["no_list", "token_first", "paper", "authors"])
@pytest.mark.parametrize("spread", [0.0, 3.0, 30.0])
def test_constrained_decoding_finds_the_top_of_rank_with_priors(
    llm: FrozenLLM, layout: str, spread: float
) -> None:
    _, _, requests, items, users = make(llm, layout)
    offsets = [
        np.random.default_rng(index).normal(0, spread, len(request.answers)).astype(np.float32)
        for index, request in enumerate(requests)
    ]
    ranked = score_requests(llm, requests, items, users, 2048)
    leaves, failures = decode_constrained(llm, requests, offsets, items, users, 2048)
    assert failures == [None] * len(requests)
    for leaf, logprobs, offset in zip(leaves, ranked.logprobs, offsets, strict=True):
        assert leaf is not None
        assert logprobs is not None
        best = float((logprobs + offset).max())
        assert leaf.logprob + offset[leaf.candidate] == pytest.approx(best, abs=1e-4)
        assert leaf.logprob == pytest.approx(float(logprobs[leaf.candidate]), abs=1e-4)


@pytest.mark.parametrize("layout", ["no_list", "paper"])
def test_constrained_decoding_finds_the_top_of_rank_where_titles_are_cut_and_begin_others(
    llm: FrozenLLM, layout: str
) -> None:
    built = PromptLayout(layout, "item", llm.tokenise, llm.bos_ids, llm.eos_id, 5, True)
    long = ["red", "red wool", "red wool tent", "red wool tent for two", "red wool tent for three", "blue"]
    whole = built.tokenise_titles(long, None)
    tokens = whole.capped(len(whole.of(3)))
    answers = [built.answer(idx, tokens) for idx in range(1, 7)]
    assert answers[3] == answers[4] == answers[2][: len(answers[3])]
    requests = [Request(built.prompt([1], [2, 3], tokens), answers)]
    generator = torch.Generator().manual_seed(0)
    items, users = (torch.randn(rows, llm.width, generator=generator) for rows in (7, 1))
    [logprobs] = score_requests(llm, requests, items, users, 2048).logprobs
    assert logprobs is not None
    for wanted in range(6):
        offsets = np.zeros(6, dtype=np.float32)
        offsets[wanted] = 40.0
        [leaf], _ = decode_constrained(llm, requests, [offsets], items, users, 2048)
        assert leaf is not None
        assert leaf.candidate == int(np.argmax(logprobs + offsets)) == wanted
        assert leaf.logprob == pytest.approx(float(logprobs[wanted]), abs=1e-4)


def test_a_prompt_that_is_too_long_fails_by_name_in_decoding_too(llm: FrozenLLM) -> None:
    _, _, requests, items, users = make(llm, "no_list")
    requests[1].prompt.token_ids.extend([9] * llm.max_positions)
    leaves, failures = decode_constrained(
        llm, requests[:3], [np.zeros(20, dtype=np.float32)] * 3, items, users[:3], 2048
    )
    assert failures == [None, PROMPT_TOO_LONG, None]
    assert leaves[1] is None
    assert leaves[2] is not None


def test_free_generation_is_matched_to_the_titles_and_needs_a_list(llm: FrozenLLM) -> None:
    built, titles, requests, items, users = make(llm, "paper")
    generated = generate_greedy(llm, built, requests[0], titles[:20], items, users[:1], max_new_tokens=8)
    said = generated.text.split('"')[0].strip()
    assert generated.text
    if said:  # whatever a random model says: offered as a title, it is found
        offered = ["x y z", said.upper()]
        assert generate_greedy(llm, built, requests[0], offered, items, users[:1], 8).candidates == [1]
    bare, _, requests, items, users = make(llm, "no_list")
    with pytest.raises(ConfigError, match="expected token_first, paper or authors"):
        generate_greedy(llm, bare, requests[0], titles[:20], items, users[:1])


def test_free_text_chooses_the_candidate_whose_title_it_is_with_that_titles_log_probability(
    llm: FrozenLLM,
) -> None:
    built, titles, requests, items, users = make(llm, "paper")
    listed = [titles[:20] for _ in requests]
    lengths = [max(map(len, request.answers)) + MORE_TOKENS for request in requests]
    said = [
        generate_greedy(llm, built, request, ["x y z"], items, users[row : row + 1], lengths[row])
        for row, request in enumerate(requests)
    ]
    written = [one.text.strip().lstrip('"').split('"')[0].split("\n")[0].strip() for one in said]
    chosen = [row for row, text in enumerate(written) if text][:3]
    assert chosen, "the random model says nothing; take another seed"
    for row in chosen:
        listed[row] = [*titles[:7], written[row].upper(), *titles[8:20]]
    requests[5].prompt.token_ids.extend([9] * llm.max_positions)
    leaves, failures = decode_free(llm, built, requests, listed, items, users, 2048)
    ranked = score_requests(llm, requests, items, users, 2048)
    for row, (found, failure) in enumerate(zip(leaves, failures, strict=True)):
        if row in chosen and row != 5:
            logprobs = ranked.logprobs[row]
            assert logprobs is not None
            [leaf] = found
            assert (leaf.candidate, failure) == (7, None)
            assert leaf.logprob == pytest.approx(float(logprobs[7]), abs=1e-4)
        else:
            assert found == []
            assert failure == (PROMPT_TOO_LONG if row == 5 else NO_CANDIDATE)


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`")
def test_a_repetition_penalty_changes_what_is_written_again(llm: FrozenLLM) -> None:
    built, titles, requests, items, users = make(llm, "authors")
    plain, penalised = (
        generate_greedy(llm, built, requests[0], titles[:20], items, users[:1], 40, penalty).text
        for penalty in (1.0, 5.0)
    )
    varied, repeated = (len(set(text.split())) / len(text.split()) for text in (penalised, plain))
    assert varied >= repeated
    assert plain != penalised


def decoded(
    llm: FrozenLLM, text: str, shown: dict[str, int], rule: Rule = "begins", layout: str = "paper"
) -> tuple[list[Leaf], str | None]:
    """Let the LLM write `text` and return what is decoded; `shown` has the candidates' titles and caps."""
    built = PromptLayout(layout, "item", llm.tokenise, llm.bos_ids, llm.eos_id, 5, True)
    tokens = [built.tokenise_titles([title], cap) for title, cap in shown.items()]
    whole = built.tokenise_titles(list(shown), None)
    everything = list(range(1, len(shown) + 1))
    request = Request(built.prompt([1], everything, whole), [built.answer(1, own) for own in tokens])
    generator = torch.Generator().manual_seed(0)
    items, users = (torch.randn(rows, llm.width, generator=generator) for rows in (len(shown) + 1, 1))
    with patch.object(generate, "written", return_value=text):
        [found], [failure] = decode_free(llm, built, [request], [list(shown)], items, users, 2048, match=rule)
    ranked = score_requests(llm, [request], items, users, 2048).logprobs[0]
    assert ranked is not None
    for leaf in found:
        assert leaf.logprob == pytest.approx(float(ranked[leaf.candidate]), abs=1e-4)
    return found, failure


@pytest.mark.parametrize("layout", ["paper", "authors", "token_first"])
def test_a_title_that_the_prompt_cuts_is_matched_as_it_is_shown(llm: FrozenLLM, layout: str) -> None:
    long = "steel bottle for camping in the wool socks"
    cap = len(llm.tokenise("steel bottle for"))

    def chosen(first: str, cap_of_long: int) -> list[int]:
        found, _ = decoded(llm, '"steel bottle for"', {first: 9, long: cap_of_long}, layout=layout)
        return [leaf.candidate for leaf in found]

    assert chosen("red", cap) == [1]
    assert chosen("red", 99) == [], "a whole title is more than its beginning"
    assert chosen("steel bottle", cap) == [0], "whole titles first"


def test_a_text_that_contains_several_titles_gives_all_of_them_by_the_authors_rule(llm: FrozenLLM) -> None:
    titles = {"red tent": 9, "blue stove": 9, "red tent for two": 9, "bag": 9}
    text = 'I recommend "blue stove", "red tent for two"'
    found, failure = decoded(llm, text, titles, "contains")
    assert failure is None
    assert [leaf.candidate for leaf in found] == [2, 1, 0]
    assert decoded(llm, text, titles) == ([], NO_CANDIDATE)


def test_the_authors_rule_reads_up_to_512_tokens_and_what_fits(llm: FrozenLLM) -> None:
    built, titles, requests, items, users = make(llm, "paper")
    lengths = []
    rules: tuple[Rule, ...] = ("begins", "contains")
    for rule in rules:
        with patch.object(generate, "written", return_value="") as write:
            decode_free(llm, built, requests[:1], [titles[:20]], items, users, 2048, match=rule)
        lengths.append(write.call_args.args[4])
    room = llm.max_positions - len(requests[0].prompt.token_ids)
    assert lengths == [max(map(len, requests[0].answers)) + MORE_TOKENS, min(512, room)]
