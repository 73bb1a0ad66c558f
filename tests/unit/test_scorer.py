"""The scorer: a frame of users in, the same frame with alignment and LLM scores out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from allmrec.bundle import Bundle
from allmrec.config import Config
from allmrec.errors import BundleError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.requests import RequestBuilder
from allmrec.scoring.scorer import Scorer
from tests.unit.tiny_bundle import tiny_bundle, tiny_config, tiny_llm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scorer")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return tiny_bundle(folder)


@pytest.fixture(scope="module")
def llm(folder: Path) -> FrozenLLM:
    return tiny_llm(folder)


def users(num_users: int = 6) -> pd.DataFrame:
    """Users with and without the LLM, one with unknown history, one without any."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(num_users):
        items = [f"i{idx + 1:03d}" for idx in random.permutation(30)]
        history = [] if number == 3 else ["gone"] if number == 4 else [*items[: number + 1], "gone"]
        rows.append((f"u{number}", history, items[10 : 10 + number + 1], number % 2 == 0 or number == 3))
    return pd.DataFrame(rows, columns=["user_id", "history", "candidates", "use_llm"])


def with_scoring(**changes: object) -> Config:
    config = tiny_config()
    return config.model_copy(update={"scoring": config.scoring.model_copy(update=changes)})


def close(one: list, other: list) -> bool:
    return all(
        (a is None) == (b is None) and (a is None or abs(a - b) < 1e-4)
        for a, b in zip(one, other, strict=True)
    )


def test_every_user_keeps_its_row_and_only_those_asked_for_get_the_llm(
    bundle: Bundle, llm: FrozenLLM
) -> None:
    frame = users()
    scored = Scorer(bundle, llm, tiny_config()).score(frame)
    assert scored[list(frame.columns)].equals(frame)
    for row in scored.itertuples():
        size = len(row.candidates)
        assert (
            len(row.alignment_scores) == len(row.llm_logprobs) == len(row.llm_choice_scores) == size
            and row.llm_failure is None
        )
        assert all(
            (score is not None) == row.use_llm for score in [*row.llm_logprobs, *row.llm_choice_scores]
        )
        assert any(row.alignment_scores) == any(item in bundle.index for item in row.history)
        if row.use_llm:
            priors = bundle.priors[[bundle.index[item] for item in row.candidates]]
            np.testing.assert_allclose(np.array(row.llm_logprobs) - priors, row.llm_choice_scores, atol=1e-4)
            assert max(row.llm_logprobs) < 0


def test_the_alignment_score_is_the_cosine_of_user_and_item_token_with_or_without_the_llm(
    bundle: Bundle, llm: FrozenLLM
) -> None:
    frame = users()
    with_llm, without = (
        Scorer(bundle, llm, tiny_config()).score(frame),
        Scorer(bundle, None, tiny_config()).score(frame),
    )
    assert without["alignment_scores"].tolist() == with_llm["alignment_scores"].tolist()
    assert all(score is None for scores in without["llm_logprobs"] for score in scores)
    history = torch.tensor([[0] * 5 + [bundle.index[item] for item in frame["history"][2][:3]]])
    user = bundle.rec.soft_users(history, bundle.soft_items)
    items = bundle.soft_items[[bundle.index[item] for item in frame["candidates"][2]]]
    expected = torch.nn.functional.cosine_similarity(user, items).tolist()
    np.testing.assert_allclose(without["alignment_scores"][2], expected, atol=1e-5)


def test_scores_do_not_depend_on_other_users_or_on_the_order_of_candidates(
    bundle: Bundle, llm: FrozenLLM
) -> None:
    scorer, frame = Scorer(bundle, llm, tiny_config()), users()
    together = scorer.score(frame)
    turned = scorer.score(
        frame.iloc[::-1].assign(candidates=[items[::-1] for items in frame["candidates"][::-1]])
    )
    for user in frame.index:
        alone = scorer.score(frame.loc[[user]])
        for column in ("llm_logprobs", "alignment_scores"):
            assert close(alone[column].iat[0], together[column][user]) and close(
                turned[column][user][::-1], together[column][user]
            )


def test_generate_mode_gives_the_top_of_rank_and_nothing_else(bundle: Bundle, llm: FrozenLLM) -> None:
    ranked, generated = (
        Scorer(bundle, llm, with_scoring(mode=mode)).score(users()) for mode in ("rank", "generate")
    )
    for by_rank, by_search, asked in zip(
        ranked["llm_choice_scores"], generated["llm_choice_scores"], ranked["use_llm"], strict=True
    ):
        found = [place for place, score in enumerate(by_search) if score is not None]
        assert found == ([int(np.argmax(by_rank))] if asked else [])
        assert not found or by_search[found[0]] == pytest.approx(max(by_rank), abs=1e-4)


def test_an_unknown_candidate_and_an_empty_frame(bundle: Bundle, llm: FrozenLLM) -> None:
    frame = users().head(1)
    with pytest.raises(BundleError, match="no item 'gone'"):
        Scorer(bundle, llm, tiny_config()).score(frame.assign(candidates=[["i001", "gone"]]))
    nothing = Scorer(bundle, llm, tiny_config()).score(frame.head(0))
    assert len(nothing) == 0 and "llm_failure" in nothing
    empty = Scorer(bundle, llm, tiny_config()).score(frame.assign(candidates=[[]]))
    assert empty["llm_logprobs"].tolist() == [[]] and empty["alignment_scores"].tolist() == [[]]


@pytest.mark.parametrize("layout", ["no_list", "paper"])
def test_a_prompt_that_is_too_long_caps_titles_then_drops_the_oldest_history(
    bundle: Bundle, llm: FrozenLLM, layout: str
) -> None:
    built = PromptLayout(layout, "item", llm.tokenise, llm.bos_ids, llm.eos_id, 10, True)
    titles = built.tokenise_titles(bundle.items["title"].tolist(), None)
    history, candidates = list(range(1, 9)), list(range(20, 24))
    whole = RequestBuilder(built, titles, 10_000).build(history, candidates, candidates)
    assert whole.prompt == built.prompt(history, candidates, titles)
    lengths, histories = [whole.num_positions], [8]
    for limit in range(whole.num_positions - 1, 40, -1):
        request = RequestBuilder(built, titles, limit).build(history, candidates, candidates)
        if (
            request.num_positions > limit
        ):  # even one item of history is too long: the scorer says prompt_too_long
            break
        lengths.append(request.num_positions)
        listed = [item for item in request.prompt.soft_items if item in history]
        histories.append(len(listed))
        assert listed == history[-len(listed) :]  # the oldest go first
        if layout == "no_list":
            assert request.answers == whole.answers  # their priors are of whole titles
    assert (
        lengths == sorted(lengths, reverse=True)
        and histories == sorted(histories, reverse=True)
        and min(histories) < 8
    )


def test_users_too_long_for_the_llm_fall_back_by_name(bundle: Bundle, llm: FrozenLLM) -> None:
    short = FrozenLLM(llm.model, llm.tokenizer, llm.name, llm.weight_hash)
    short.max_positions = 12
    scored = Scorer(bundle, short, tiny_config()).score(users())
    failures = dict(zip(scored["user_id"], scored["llm_failure"], strict=True))
    assert failures["u2"] == "prompt_too_long" and failures["u1"] is None
    assert scored["llm_logprobs"][2] == [None] * 3 and all(
        score != 0 for score in scored["alignment_scores"][2]
    )
