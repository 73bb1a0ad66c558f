"""The scorer: a frame of users in, the same frame with alignment and LLM scores out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

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
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rankers import served_order
from allmrec.ranking.served import ranked_rows
from allmrec.scoring import fillers
from allmrec.scoring.scorer import Scorer
from allmrec.scoring.text_vectors import text_vectors
from tests.unit.tiny_bundle import blend, tiny_bundle, tiny_config, tiny_llm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scorer")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return tiny_bundle(folder)


@pytest.fixture(scope="module")
def llm(folder: Path) -> FrozenLLM:
    return tiny_llm(folder)


def users(num_users: int = 6) -> CandidateLists:
    """Users with and without the LLM, one with unknown history, one without any."""
    random = np.random.default_rng(0)
    histories, candidates = [], []
    for number in range(num_users):
        items = [f"i{idx + 1:03d}" for idx in random.permutation(30)]
        history = [] if number == 3 else ["gone"] if number == 4 else [*items[: number + 1], "gone"]
        histories.append(history)
        candidates.append(items[10 : 10 + number + 1])
    lists = with_retrieval(
        CandidateLists.of([f"u{number}" for number in range(num_users)], histories, candidates)
    )
    return replace(
        lists, use_llm=np.array([number % 2 == 0 or number == 3 for number in range(num_users)], dtype=bool)
    )


def with_retrieval(lists: CandidateLists) -> CandidateLists:
    """The lists with the parts that retrieval fills: some number of every item."""
    by_item = [[float(hash_of(item)) for item in ids] for ids in lists.listed(lists.ids)]
    values = lists.spread(np.array([value for row in by_item for value in row]))
    return lists.with_parts({"cf": values, "text": -values})


def hash_of(item: str) -> int:
    """A number that the item's id gives."""
    return int(item[1:]) * 7 % 31


def turned(lists: CandidateLists) -> CandidateLists:
    """The same users in the opposite order, each with its candidates in the opposite order."""
    candidates = [ids[::-1] for ids in lists.listed(lists.ids)][::-1]
    backwards = CandidateLists.of(lists.users[::-1].tolist(), lists.histories[::-1], candidates)
    return replace(with_retrieval(backwards), use_llm=lists.use_llm[::-1].copy())


def with_scoring(**changes: object) -> Config:
    config = tiny_config()
    return config.model_copy(update={"scoring": config.scoring.model_copy(update=changes)})


def test_every_user_keeps_its_row_and_only_those_asked_for_get_the_llm(
    bundle: Bundle, llm: FrozenLLM
) -> None:
    lists = users()
    scored = Scorer(bundle, llm, tiny_config()).score(lists)
    assert scored.users.tolist() == lists.users.tolist()
    assert (scored.ids == lists.ids).all()
    assert pd.isna(scored.llm_failures).all()
    assert bundle.priors is not None
    for row, ids in enumerate(scored.listed(scored.ids)):
        logprobs, choices = scored.part("llm_logprob")[row, : len(ids)], scored.part("llm")[row, : len(ids)]
        assert (np.isfinite(logprobs) == scored.use_llm[row]).all()
        assert (np.isfinite(choices) == scored.use_llm[row]).all()
        known = any(item in bundle.index for item in scored.histories[row])
        assert np.nan_to_num(scored.part("alignment")[row]).any() == known
        if scored.use_llm[row]:
            priors = bundle.priors[[bundle.index[item] for item in ids]]
            np.testing.assert_allclose(logprobs - priors, choices, atol=1e-4)
            assert logprobs.max() < 0


def test_the_alignment_score_is_the_cosine_of_user_and_item_token_with_or_without_the_llm(
    bundle: Bundle, llm: FrozenLLM
) -> None:
    lists = users()
    with_llm, without = (Scorer(bundle, one, tiny_config()).score(lists) for one in (llm, None))
    np.testing.assert_array_equal(without.part("alignment"), with_llm.part("alignment"))
    assert np.isnan(without.part("llm_logprob")).all()
    history = torch.tensor([[0] * 5 + [bundle.index[item] for item in lists.histories[2][:3]]])
    user = bundle.rec.soft_users(history, bundle.soft_items)
    items = bundle.soft_items[[bundle.index[item] for item in lists.listed(lists.ids)[2]]]
    expected = torch.nn.functional.cosine_similarity(user, items).tolist()
    np.testing.assert_allclose(without.part("alignment")[2, : len(expected)], expected, atol=1e-5)


def test_popularity_is_the_number_of_interactions_in_training(bundle: Bundle) -> None:
    scored = Scorer(bundle, None, tiny_config()).score(users())
    counts = bundle.items.set_index("item_id")["num_interactions"]
    for ids, values in zip(scored.listed(scored.ids), scored.listed(scored.part("popularity")), strict=True):
        assert values == [counts[item] for item in ids]


def test_how_many_pairs_are_compared_at_a_time_changes_no_bit(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Scorer(bundle, None, tiny_config()).score(users()).part("alignment")
    monkeypatch.setattr(fillers, "PAIRS", 2)
    np.testing.assert_array_equal(
        Scorer(bundle, None, tiny_config()).score(users()).part("alignment"), together
    )


def test_scores_do_not_depend_on_other_users_or_on_the_order_of_candidates(
    bundle: Bundle, llm: FrozenLLM
) -> None:
    scorer, lists = Scorer(bundle, llm, tiny_config()), users()
    together, backwards = scorer.score(lists), scorer.score(turned(lists))
    for row in range(len(lists)):
        alone, count = scorer.score(lists.take(np.array([row]))), lists.counts[row]
        for part in ("llm_logprob", "alignment"):
            expected = together.part(part)[row, :count]
            np.testing.assert_allclose(alone.part(part)[0], expected, atol=1e-4, rtol=0)
            np.testing.assert_allclose(
                backwards.part(part)[-1 - row, :count][::-1], expected, atol=1e-4, rtol=0
            )


def test_in_16_bits_a_users_scores_depend_on_nobody_else(bundle: Bundle, folder: Path) -> None:
    """Of users who are scored together and each alone, in whatever company, every bit is the same."""
    settings = tiny_config().llm.model_copy(
        update={"model": str(folder / "llm0"), "dtype": "bfloat16", "device": "cpu"}
    )
    scorer, lists = (
        Scorer(bundle, FrozenLLM.load(settings, folder), tiny_config()),
        users(12).asking_llm(True),
    )
    together = scorer.score(lists).part("llm_logprob")
    for row, count in enumerate(lists.counts.tolist()):
        for company in ([row], sorted({0, row, 11})):
            some = scorer.score(lists.take(np.array(company))).part("llm_logprob")
            np.testing.assert_array_equal(some[company.index(row), :count], together[row, :count])


def test_generate_mode_gives_the_top_of_rank_and_nothing_else(bundle: Bundle, llm: FrozenLLM) -> None:
    ranked, generated = (
        Scorer(bundle, llm, with_scoring(mode=mode)).score(users()).part("llm")
        for mode in ("rank", "generate")
    )
    for by_rank, by_search, asked in zip(ranked, generated, users().use_llm, strict=True):
        decoded = np.flatnonzero(np.isfinite(by_search)).tolist()
        assert decoded == ([int(np.nanargmax(by_rank))] if asked else [])
        assert not decoded or by_search[decoded[0]] == pytest.approx(np.nanmax(by_rank), abs=1e-4)


def test_text_in_place_of_joint_embeddings_changes_what_the_llm_hears_of_known_items(
    bundle: Bundle, llm: FrozenLLM
) -> None:
    trained, text = (
        Scorer(bundle, llm, with_scoring(soft_items=name)).score(users()) for name in ("trained", "text")
    )
    asked = users().use_llm & (users().counts > 0)
    moved = np.abs(trained.part("llm") - text.part("llm"))[asked]
    assert np.nanmax(moved) > 1e-3
    assert not np.allclose(trained.part("alignment"), text.part("alignment"), equal_nan=True)


def test_free_text_is_matched_to_the_titles_of_the_users_own_candidates(folder: Path, llm: FrozenLLM) -> None:
    config, bundle = with_scoring(mode="free"), tiny_bundle(folder, layout="paper")
    scored = Scorer(bundle, llm, config).score(users())
    asked = users().use_llm & (users().counts > 0)
    assert set(scored.llm_failures[asked]) == {"no_candidate"}, "a random model writes nothing that is there"
    row = int(np.flatnonzero(asked)[-1])
    scorer = Scorer(bundle, llm, config)
    with patch.object(llm.tokenizer, "decode", return_value=f'{bundle.items["title"][14]}" and more'):
        candidates = [["i003", "i015", "i020"]]
        lists = with_retrieval(CandidateLists.of(["u"], [users().histories[row]], candidates))
        said = scorer.score(lists.asking_llm(True))
    assert np.isfinite(said.part("llm")).tolist() == [[False, True, False]]
    blends = {name: blend({"cf": 1.0, "text": 1.0}) for name in ("with_llm", "without_llm")}
    order = served_order(blends, config.scoring)
    vectors_of = partial(text_vectors, scorer.bundle)
    assert ranked_rows(said, order, 3, 0, vectors_of)["item_id"][0] == "i015"
    missed = ranked_rows(scored.take(np.array([row])), order, 3, 0, vectors_of)
    assert set(missed["fallback_reason"]) == {"no_candidate"}
    assert set(missed["source"]) == {"cf"}


def test_an_unknown_candidate_is_refused_and_empty_lists_are_no_error(bundle: Bundle, llm: FrozenLLM) -> None:
    scorer = Scorer(bundle, llm, tiny_config())
    with pytest.raises(BundleError, match="no item 'gone'"):
        scorer.score(CandidateLists.of(["u"], [["i001"]], [["i001", "gone"]]))
    assert len(scorer.score(CandidateLists.of([], [], []))) == 0
    empty = scorer.score(CandidateLists.of(["u"], [["i001"]], [[]]).asking_llm(True))
    assert empty.part("llm_logprob").shape == empty.part("alignment").shape == (1, 0)


@pytest.mark.parametrize("layout", ["no_list", "paper", "authors"])
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
    assert lengths == sorted(lengths, reverse=True)
    assert histories == sorted(histories, reverse=True)
    assert min(histories) < 8


def test_users_too_long_for_the_llm_fall_back_by_name(bundle: Bundle, llm: FrozenLLM) -> None:
    short = FrozenLLM(llm.model, llm.tokenizer, llm.name, llm.weight_hash)
    short.max_positions = 12
    scored = Scorer(bundle, short, tiny_config()).score(users())
    failures = dict(zip(scored.users, scored.llm_failures, strict=True))
    assert failures["u2"] == "prompt_too_long"
    assert failures["u1"] is None
    assert np.isnan(scored.part("llm_logprob")[2]).all()
    assert (scored.part("alignment")[2, :3] != 0).all()


def test_the_llm_reads_the_best_of_the_blend_and_scores_them_as_if_it_read_all(
    bundle: Bundle, llm: FrozenLLM
) -> None:
    lists = users(12).asking_llm(True)
    every = Scorer(bundle, llm, with_scoring(llm_candidates=None)).score(lists)
    scorer = Scorer(bundle, llm, with_scoring(llm_candidates=3))
    few = scorer.score(lists)
    best = np.argsort(-bundle.blends["without_llm"].scores(every), axis=1, kind="stable")
    for row, count in enumerate(lists.counts.tolist()):
        is_read = np.isfinite(few.part("llm")[row])
        assert set(np.flatnonzero(is_read)) == set(best[row, : min(3, count)].tolist())
        np.testing.assert_allclose(few.part("llm")[row, is_read], every.part("llm")[row, is_read], atol=1e-4)
    np.testing.assert_array_equal(
        np.isfinite(scorer.score(lists, read_all=True).part("llm")), np.isfinite(every.part("llm"))
    )
