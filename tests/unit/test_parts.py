"""The table of parts: whoever adds a row has its filler, its ranker, its weight and its reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from allmrec.config import ScoringConfig
from allmrec.parts import PARTS, Part, served_parts
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rankers import entries, label_of, rankers, served_order
from allmrec.ranking.served import ranked_rows
from allmrec.scoring.fillers import FILLERS, Filler, Users
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.training.order.fit_blend import fit_blend
from tests.unit.tiny_bundle import tiny_bundle


def length_of_id(users: Users, rows_N: np.ndarray, items_N: np.ndarray) -> np.ndarray:
    """A part of no use: how late an item's id comes in the catalogue."""
    return items_N.astype(np.float64)


def no_vectors(lists: CandidateLists) -> np.ndarray:
    raise AssertionError("nobody needs the vectors")


@pytest.fixture
def a_new_part(monkeypatch: pytest.MonkeyPatch) -> str:
    """A part that is added by one line in each of two tables."""
    monkeypatch.setitem(PARTS, "late", Part("late in the catalogue", prior=0.2, is_calibrated=True))
    monkeypatch.setitem(FILLERS, "late", Filler(length_of_id))
    return "late"


def test_every_part_is_computed_by_retrieval_a_filler_or_the_llm_and_by_one_of_them() -> None:
    for name, part in PARTS.items():
        computed_by = [part.candidate_column is not None, name in FILLERS, part.reads_llm]
        assert sum(computed_by) == 1, name
    assert set(FILLERS) <= set(PARTS)
    columns = [part.column for part in PARTS.values() if part.column is not None]
    assert len(set(columns)) == len(columns)


def test_every_part_is_a_ranker_by_its_label() -> None:
    for name, part in PARTS.items():
        assert label_of(name) == part.label
        assert entries()[name].is_calibrated == (name in served_parts())


def test_a_new_part_is_filled_for_lists_and_for_the_catalogue(tmp_path: Path, a_new_part: str) -> None:
    bundle = tiny_bundle(tmp_path)
    scorer = Scorer(bundle, None, bundle.config)
    retriever = Retriever(bundle, None, bundle.config.candidates)
    lists = scorer.score(retriever.retrieve(["u1", "u2"], [["i001"], []], [[], []]))
    expected = [[bundle.index[item] for item in ids] for ids in lists.listed(lists.ids)]
    assert lists.listed(lists.part(a_new_part)) == expected
    catalogue = scorer.fill_catalogue(retriever.score_all(["u1"], [["i001"]]))
    np.testing.assert_array_equal(catalogue.part(a_new_part)[0], np.arange(1.0, catalogue.ids.shape[1] + 1))


def test_a_new_part_is_weighed_and_can_be_served_alone(tmp_path: Path, a_new_part: str) -> None:
    bundle = tiny_bundle(tmp_path)
    scorer = Scorer(bundle, None, bundle.config)
    users = [f"u{number}" for number in range(40)]
    lists = Retriever(bundle, None, bundle.config.candidates).retrieve(users, [["i001"]] * 40, [[]] * 40)
    lists = scorer.score(lists)
    latest = [ids[int(np.argmax(late))] for ids, late in zip(lists.ids, lists.part(a_new_part), strict=True)]
    fitted, figures = fit_blend(lists, latest, ("cf", "text", a_new_part))
    assert fitted.weights[a_new_part] == max(fitted.weights.values())
    assert figures[f"{a_new_part}_Hit@1"] == 1.0
    assert fitted.part_temperatures[a_new_part] > 0
    blends = {"without_llm": fitted, "with_llm": fitted}
    settings = ScoringConfig().model_copy(update={"order": a_new_part})
    rows = ranked_rows(lists, served_order(blends, settings), 1, 0, no_vectors)
    assert rows["item_id"].tolist() == latest
    np.testing.assert_array_equal(rankers(blends, settings)[a_new_part].scores(lists), lists.part(a_new_part))


def test_a_user_without_the_served_part_has_the_order_of_the_blend(tmp_path: Path, a_new_part: str) -> None:
    bundle = tiny_bundle(tmp_path)
    lists = Retriever(bundle, None, bundle.config.candidates).retrieve(
        ["u1", "u2"], [["i001"], ["i002"]], [[], []]
    )
    lists = Scorer(bundle, None, bundle.config).score(lists)
    unknown = lists.part(a_new_part).copy()
    unknown[0] = np.nan
    lists = lists.with_parts({a_new_part: unknown})
    settings = ScoringConfig().model_copy(update={"order": a_new_part})
    orders = {
        name: ranked_rows(lists, served_order(bundle.blends, replace_order(settings, name)), 5, 0, no_vectors)
        for name in (a_new_part, "blend_without_llm")
    }
    of_new, of_blend = (rows[rows["user_id"] == "u1"].reset_index() for rows in orders.values())
    pd.testing.assert_frame_equal(of_new, of_blend)


def replace_order(settings: ScoringConfig, order: str) -> ScoringConfig:
    return settings.model_copy(update={"order": order})
