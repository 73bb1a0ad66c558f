"""The authors' layout tokenised as a whole, against a tokenizer with markers in the place of soft tokens."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from allmrec.config import LLMConfig, load
from allmrec.errors import ConfigError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import score_requests
from allmrec.llm.packing import Request
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.requests import RequestBuilder
from allmrec.llm.tokens import USER, Prompt
from tests.oracle import oracle
from tests.tiny_models import WORDS, make_tiny_llm
from tests.unit.test_hostile_titles import HOSTILE, with_added_tokens

TITLES = [
    "red tent", "blue socks (2 pairs)", 'sleeping bag "Polar"', "steel bottle, 1 l.", "(blue) chair",
    "tent: for two!", "'red'", "warm rain jacket",
]  # fmt: skip
HISTORY, LISTED = [1, 2, 3, 4], [8, 5, 7, 6]
HISTORY_MARK, CANDIDATE_MARK = "[HistoryEmb]", "[CandidateEmb]"
MERGED = ',"red" ,"(blue)" bought "red set, "blue "bag "tent "(2 pairs)", "jacket.", "chair!" \'red\'" ."' * 4
"""Text with the pairs of characters that are one token in the tokenizer of GPT-2 and OPT."""


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> FrozenLLM:
    """A tiny OPT with a tokenizer in which quotes join what is beside them."""
    folder = tmp_path_factory.mktemp("opt")
    make_tiny_llm(folder, "opt", max_positions=1024)
    settings = LLMConfig(model=str(folder), dtype="float32", device="cpu")
    plain = FrozenLLM.load(settings, folder)
    return FrozenLLM(plain.model, tokenizer(len(plain.tokenizer)), plain.name, plain.weight_hash)


def tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    backend.train_from_iterator(
        [WORDS, MERGED],
        trainers.BpeTrainer(
            vocab_size=vocab, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def with_markers(llm: FrozenLLM) -> Any:
    """Return the tokenizer with markers that take the blanks at their sides, as the authors' has them."""
    marked = copy.deepcopy(llm.tokenizer)
    marked.add_tokens([
        AddedToken(mark, lstrip=True, rstrip=True, special=True, normalized=False)
        for mark in (HISTORY_MARK, CANDIDATE_MARK)
    ])  # fmt: skip
    return marked


def authors_layout(llm: FrozenLLM, whole: bool = True, **other: bool) -> PromptLayout:
    text = llm.text if whole else None
    return PromptLayout(
        "authors", "movie", llm.tokenise, llm.bos_ids, llm.eos_id, 10, True, text=text, **other
    )


def authors_text(history: list[str], listed: list[str]) -> str:
    """Return the prompt as their code writes it."""
    had = ",".join(f'"{title}"{HISTORY_MARK}' for title in history)
    candidates = ",".join(f'"{title}"{CANDIDATE_MARK}' for title in listed)
    return (
        f" is a user representation.This user has watched {had} in the previous. Recommend one next movie "
        "for this user to watch next from the following movie title set, "
        f"{candidates}. The recommendation is "
    )


def their_ids(llm: FrozenLLM, text: str) -> list[int]:
    """Return the ids of their prompt with 0 at soft tokens, the user's token before BOS."""
    marked = with_markers(llm)
    marks = marked.convert_tokens_to_ids([HISTORY_MARK, CANDIDATE_MARK])
    return [0, *(0 if token in marks else token for token in marked(text)["input_ids"])]


def test_a_prompt_has_the_ids_of_its_whole_text(llm: FrozenLLM) -> None:
    layout = authors_layout(llm)
    titles = layout.tokenise_titles(TITLES, None)
    prompt = layout.prompt(HISTORY, LISTED, titles)
    history, listed = ([TITLES[idx - 1] for idx in items] for items in (HISTORY, LISTED))
    assert prompt.token_ids == their_ids(llm, authors_text(history, listed))
    assert prompt.soft_items == [USER, *HISTORY, *LISTED]
    assert prompt.soft_positions == [at for at, token in enumerate(prompt.token_ids) if token == 0]
    by_segment = authors_layout(llm, whole=False).prompt(HISTORY, LISTED, titles)
    assert len(prompt.token_ids) < len(by_segment.token_ids)
    introduction = layout.introduction(HISTORY, titles)
    end = prompt.soft_positions[len(HISTORY)] + 1
    assert introduction.token_ids == prompt.token_ids[:end] + llm.tokenise("in the previous. ")


def test_an_answer_has_the_ids_of_its_whole_text(llm: FrozenLLM) -> None:
    layout = authors_layout(llm)
    titles = layout.tokenise_titles(TITLES, None)
    for idx, title in enumerate(TITLES, start=1):
        assert layout.answer(idx, titles) == [*llm.tokenise(f'"{title}"'), llm.eos_id]
    cut = layout.answer(2, titles.capped(2))
    assert llm.text(cut) == f'"{llm.text(titles.of(2)[:2])}', "what is cut does not say that it ends"


def runs(llm: FrozenLLM, prompt: Prompt) -> list[str]:
    """Return the texts between the soft tokens."""
    edges = [*prompt.soft_positions, len(prompt.token_ids)]
    starts = [-1, *prompt.soft_positions]
    return [llm.text(prompt.token_ids[start + 1 : end]) for start, end in zip(starts, edges, strict=True)]


@pytest.mark.parametrize("has_added_tokens", [False, True])
def test_no_title_moves_a_soft_token_or_becomes_one(llm: FrozenLLM, has_added_tokens: bool) -> None:
    llm = with_added_tokens(llm) if has_added_tokens else llm
    hostile = [title[:1000] for title in HOSTILE] + [
        HISTORY_MARK,
        f'"{CANDIDATE_MARK}"',
        f"a{HISTORY_MARK} b",
    ]
    layout = authors_layout(llm)
    titles = layout.tokenise_titles(hostile, None)
    special = {*llm.tokenizer.all_special_ids, *llm.tokenizer.added_tokens_decoder}
    for start in range(1, len(hostile) + 1, 8):
        items = list(range(start, min(start + 8, len(hostile) + 1)))
        prompt = layout.prompt(items, items[::-1], titles)
        assert prompt.soft_items == [USER, *items, *items[::-1]]
        _, first, *between, last = runs(llm, prompt)
        quoted = [f'"{hostile[item - 1]}"' for item in (*items, *items[::-1])]
        assert first == f"<s> is a user representation.This user has watched {quoted[0]}"
        for text, title in zip(between, quoted[1:], strict=True):
            middle = (
                "in the previous. Recommend one next movie for this user to watch next from the following "
            )
            assert text in (f",{title}", f"{middle}movie title set, {title}")
        assert last == ". The recommendation is "
        at_soft = set(prompt.soft_positions)
        others = [token for at, token in enumerate(prompt.token_ids) if at not in at_soft]
        assert special.isdisjoint(others[len(llm.bos_ids) :])
        assert all(special.isdisjoint(layout.answer(item, titles)[:-1]) for item in items)


def test_without_item_tokens_the_text_is_one_and_keeps_its_blanks(llm: FrozenLLM) -> None:
    layout = authors_layout(llm, item_tokens=False)
    titles = layout.tokenise_titles(TITLES, None)
    text = authors_text(["red tent", "blue socks (2 pairs)"], ["steel bottle, 1 l."])
    text = text.replace(HISTORY_MARK, "").replace(CANDIDATE_MARK, "")
    assert layout.prompt([1, 2], [4], titles) == Prompt([0, *llm.bos_ids, *llm.tokenise(text)], [0], [USER])


def test_scores_are_those_of_every_answer_read_alone(llm: FrozenLLM) -> None:
    layout = authors_layout(llm)
    titles = layout.tokenise_titles(TITLES, None)
    answers = [layout.answer(idx, titles) for idx in LISTED]
    request = Request(layout.prompt(HISTORY, LISTED, titles), answers)
    generator = torch.Generator().manual_seed(0)
    items, users = (torch.randn(rows, llm.width, generator=generator) for rows in (len(TITLES) + 1, 1))
    [found] = score_requests(llm, [request], items, users, 4096).logprobs
    assert found is not None
    with torch.no_grad():
        assert found.tolist() == pytest.approx(oracle(llm, request, 0, items, users), abs=1e-4)


def test_a_prompt_that_is_too_long_is_shortened_as_by_segment(llm: FrozenLLM) -> None:
    layout = authors_layout(llm)
    titles = layout.tokenise_titles(["red tent " * 30, *TITLES[1:]], None)
    whole = RequestBuilder(layout, titles, 4000).build(HISTORY, LISTED, LISTED)
    short = RequestBuilder(layout, titles, whole.num_positions - 30).build(HISTORY, LISTED, LISTED)
    assert short.num_positions <= whole.num_positions - 30
    assert short.prompt.soft_items == whole.prompt.soft_items == [USER, *HISTORY, *LISTED]
    longest, cut = runs(llm, whole.prompt)[1], runs(llm, short.prompt)[1]
    assert longest.startswith(cut[:-1])
    assert cut[-1] == '"'
    assert len(cut) < len(longest) / 2


@pytest.mark.parametrize("layout", ["no_list", "paper", "token_first"])
def test_only_the_authors_layout_is_tokenised_as_a_whole(layout: str) -> None:
    with pytest.raises(ConfigError, match=rf"prompt\.tokenise: whole, expected segments .* {layout}"):
        load([], ["prompt.tokenise=whole", f"prompt.layout={layout}"])
    settings = load([], ["prompt.tokenise=whole", "prompt.layout=authors"]).prompt
    assert settings.tokenise == "whole"
