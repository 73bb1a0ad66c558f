"""What a user is served, by which parts, and what the row says about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from allmrec.config import ScoringConfig, load
from allmrec.evaluation.ranks import ranks_of_candidates
from allmrec.parts import LINKS
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.decision import ComparedOrder, Decision, cheapest_unbeaten, resolved
from allmrec.ranking.rankers import entries, rankers, served_order
from allmrec.ranking.served import COLUMNS, ranked_rows

BLENDS = {
    "without_llm": BlendWeights({"cf": 0.6, "text": 0.2, "alignment": 0.2}, -0.5, 0.5, 100, {"cf": 2.0}),
    "with_llm": BlendWeights(
        {"cf": 0.1, "text": 0.1, "alignment": 0.1, "llm": 0.7}, -0.5, 0.5, 100, {"cf": 2.0, "llm": 4.0}
    ),
}


PARTS = {
    "cf": [3.0, 2.0, 1.0],
    "text": [0.1, 0.9, 0.2],
    "alignment": [0.0, 0.0, 0.0],
    "llm_logprob": [-9.0, -8.0, -20.0],
}
PARTS |= {"llm": [1.0, 2.0, 9.0], "popularity": [7.0, 0.0, 2.0], "read": [1.0, 1.0, 0.0]}
PARTS |= {"words": [1.0, 0.0, 0.0], "brand": [0.0, 0.0, 1.0], "together": [0.0, 1.0, 1.0]}
MISSING = [None, None, None]


def user(user_id: str = "u", **changes: Any) -> dict[str, Any]:
    """One user; `a` is best by CF, `b` by text, `c` by the LLM."""
    row = {
        "user_id": user_id,
        "ids": ["a", "b", "c"],
        "sources": ["cf"] * 3,
        "use_llm": True,
        "llm_failure": None,
        **PARTS,
    }
    return row | changes


def lists_of(*rows: dict[str, Any]) -> CandidateLists:
    """Candidate lists of some users."""
    lists = CandidateLists.of(
        [row["user_id"] for row in rows],
        [["h"]] * len(rows),
        [row["ids"] for row in rows],
        [row["sources"] for row in rows],
    )
    values = {
        part: np.array([value for row in rows for value in row[part]], dtype=np.float64) for part in PARTS
    }
    lists = lists.with_parts({part: lists.spread(flat) for part, flat in values.items()})
    lists.use_llm[:] = [row["use_llm"] for row in rows]
    lists.llm_failures[:] = [row["llm_failure"] for row in rows]
    return lists


def no_vectors(lists: CandidateLists) -> np.ndarray:
    """The texts' vectors where no re-ranker reads them."""
    raise AssertionError("asked without a re-ranker")


def rank(
    *rows: dict[str, Any], blends: dict[str, BlendWeights] = BLENDS, top_k: int = 10, **scoring: Any
) -> pd.DataFrame:
    """Return what these users are served under these settings."""
    order = served_order(blends, ScoringConfig(**{"order": "blend_with_llm", **scoring}))
    return ranked_rows(lists_of(*rows), order, top_k, 0, no_vectors)


def test_the_blend_with_the_llm_orders_users_who_have_it_and_the_one_without_the_others() -> None:
    ranked = rank(user("u1"), user("u2", use_llm=False, llm=MISSING, llm_logprob=MISSING))
    assert tuple(ranked.columns) == COLUMNS
    assert ranked["user_id"].tolist() == ["u1"] * 3 + ["u2"] * 3
    assert ranked["rank"].tolist() == [1, 2, 3] * 2
    assert ranked["item_id"].tolist()[0] == "c"
    assert ranked["item_id"].tolist()[3] == "a"
    assert ranked["source"].tolist() == ["llm"] * 3 + ["cf"] * 3
    assert ranked["fallback_reason"].isna().all()
    assert ranked["llm_logprob"].tolist()[0] == -20
    assert ranked["llm_logprob"][3:].isna().all()
    assert ranked.groupby("user_id")["probability"].sum().tolist() == pytest.approx([1, 1])


def test_probabilities_are_over_all_candidates_though_only_the_best_are_served() -> None:
    ranked = rank(user(), top_k=1)
    assert len(ranked) == 1
    assert 0 < ranked["probability"][0] < 1
    everyone = rank(user())
    assert ranked["probability"][0] == everyone["probability"][0]


def test_probabilities_leave_room_for_what_was_not_retrieved() -> None:
    blends = {name: replace(blend, recall=0.25) for name, blend in BLENDS.items()}
    among_candidates, ranked = rank(user()), rank(user(), blends=blends)
    assert ranked["probability"].tolist() == pytest.approx((0.25 * among_candidates["probability"]).tolist())
    assert ranked["score"].tolist() == among_candidates["score"].tolist()


def test_a_blend_of_version_0_1_0_has_no_recall_and_its_probabilities_stay_as_they_were() -> None:
    fields = BLENDS["without_llm"].to_json()
    assert BlendWeights.from_json(fields) == BLENDS["without_llm"]
    del fields["recall"]
    assert BlendWeights.from_json(fields).recall == 1.0


@pytest.mark.parametrize("order", ["blend_with_llm", "llm"])
def test_a_user_whom_the_llm_failed_gets_the_blend_without_it_and_the_reason(order: str) -> None:
    ranked = rank(user(llm_failure="out_of_memory", llm=MISSING, llm_logprob=MISSING), order=order)
    assert ranked["item_id"][0] == "a"
    assert set(ranked["source"]) == {"cf"}
    assert set(ranked["fallback_reason"]) == {"out_of_memory"}


def test_the_order_is_a_setting() -> None:
    assert rank(user(), order="llm")["item_id"].tolist() == ["c", "b", "a"]
    by_cf = rank(user(cf=[1.0, None, 5.0]), order="cf")
    assert by_cf["item_id"].tolist() == ["c", "a", "b"]
    assert set(by_cf["source"]) == {"cf"}
    assert by_cf["fallback_reason"].isna().all()
    assert np.isfinite(by_cf["score"]).all()


def test_generate_puts_the_llms_choice_first_and_the_blend_orders_the_rest() -> None:
    ranked = rank(user(llm=[None, None, -3.0], llm_logprob=[None, None, -3.0]), mode="generate")
    assert ranked["item_id"].tolist() == ["c", "a", "b"]
    assert ranked["score"].is_monotonic_decreasing
    assert ranked["llm_logprob"].isna().tolist() == [False, True, True]


def test_without_history_the_list_stays_as_retrieved_and_has_no_probability() -> None:
    unknown: dict[str, Any] = {
        "cf": [None, None],
        "llm": [None, None],
        "llm_logprob": [None, None],
        "popularity": [5.0, 4.0],
        "read": [0.0, 0.0],
        **{part: [0.0, 0.0] for part in LINKS},
    }
    nobody = user(
        ids=["z", "y"],
        sources=["popular"] * 2,
        text=[0.0, 0.0],
        alignment=[0.3, 0.9],
        use_llm=False,
        **unknown,
    )
    ranked = rank(nobody)
    assert ranked["item_id"].tolist() == ["z", "y"]
    assert ranked["probability"].isna().all()
    assert set(ranked["source"]) == {"popular"}
    assert set(ranked["fallback_reason"]) == {"no_history"}
    assert ranked["score"].is_monotonic_decreasing


def test_equal_scores_are_ordered_by_a_draw_of_user_and_item_alone() -> None:
    blends = BLENDS | {"without_llm": BlendWeights({"cf": 0.0, "text": 1.0, "alignment": 0.0}, 0.0, 1.0, 0)}

    def order_of(name: str, ids: str) -> list[str]:
        equal = user(name, ids=list(ids), cf=[1.0, 2.0, 2.0], text=[0.0] * 3, use_llm=False)
        return rank(equal, blends=blends)["item_id"].tolist()

    assert order_of("u1", "abc") == order_of("u1", "cab")
    # Other candidates come and go: who stays keeps its place.
    assert [item for item in order_of("u1", "abd") if item != "d"] == [
        item for item in order_of("u1", "abc") if item != "c"
    ]
    firsts = [order_of(f"u{number}", "abc")[0] for number in range(600)]
    assert all(170 < firsts.count(item) < 230 for item in "abc")


def test_evaluation_and_nights_break_ties_alike() -> None:
    random = np.random.default_rng(0)
    names = [f"u{number}" for number in range(50)]
    ids = [[f"i{item}" for item in random.permutation(40)[:12]] for _ in names]
    lists = CandidateLists.of(names, [["h"]] * 50, ids, [["cf"] * 12] * 50)
    parts = ("cf", "text", "alignment", "llm", "llm_logprob")
    lists = lists.with_parts({part: random.integers(0, 2, (50, 12)).astype(float) for part in parts})
    order = served_order(BLENDS, ScoringConfig(order="blend_without_llm"))
    rows = ranked_rows(lists, order, 12, 3, no_vectors).groupby("user_id", sort=False)["item_id"].agg(list)
    ranks = ranks_of_candidates(order.scores(lists), lists, seed=3)
    assert rows.tolist() == [
        [item for _, item in sorted(zip(row, items, strict=True))]
        for row, items in zip(ranks, ids, strict=True)
    ]


def test_an_item_the_cf_model_never_saw_is_neither_first_nor_last_by_cf_but_moved_by_the_offset() -> None:
    ranked = rank(user(cf=[3.0, None, 1.0], text=[0.0] * 3, use_llm=False))
    assert ranked["item_id"].tolist() == ["a", "b", "c"]
    assert ranked["score"][1] == pytest.approx(-0.5)
    assert np.isnan(ranked["cf_score"][1])


def test_users_with_different_numbers_of_candidates_and_none_are_ranked_alike() -> None:
    whole = user("u1", **{part: [1.0, 2.0, 3.0] for part in PARTS})
    nothing = user("u2", ids=[], sources=[], **{part: [] for part in PARTS})
    single = user("u3", ids=["a"], sources=["cf"], **{part: [1.0] for part in PARTS})
    ranked = rank(whole, nothing, single)
    assert ranked["user_id"].tolist() == ["u1"] * 3 + ["u3"]
    assert ranked["rank"].tolist() == [1, 2, 3, 1]
    assert ranked["probability"].tolist()[-1] == 1.0
    pd.testing.assert_frame_equal(rank(whole), ranked[:3])
    assert rank(nothing).empty
    assert rank().empty


def test_every_ranker_scores_every_candidate() -> None:
    lists = lists_of(user(cf=[3.0, None, 1.0]))
    table = rankers(BLENDS, ScoringConfig(order="blend_with_llm"))
    assert tuple(table) == tuple(entries())
    for ranker in table.values():
        scores = ranker.scores(lists)
        assert scores.shape == (1, 3)
        assert np.isfinite(scores).all()
    assert table["cf"].scores(lists)[0].argmin() == 1
    assert table["popularity"].scores(lists)[0].tolist() == [7, 0, 2]
    assert table["alignment"].scores(lists)[0].tolist() == [0, 0, 0]


def test_the_served_ranker_is_the_order_of_the_rows_that_are_served() -> None:
    lists = lists_of(user("u1"), user("u2", use_llm=False))
    scores = rankers(BLENDS, ScoringConfig(order="blend_with_llm"))["served"].scores(lists)
    best_first = [[lists.ids[row, column] for column in np.argsort(-scores[row])] for row in range(2)]
    ranked = rank(user("u1"), user("u2", use_llm=False))
    assert best_first == ranked.groupby("user_id")["item_id"].agg(list).tolist()


def test_what_the_llm_did_not_read_keeps_the_probability_that_it_has_without_it() -> None:
    lists = lists_of(user(llm=[1.0, 2.0, None], llm_logprob=[-9.0, -8.0, None]))
    table = rankers(BLENDS, ScoringConfig(order="blend_with_llm"))
    probabilities = {}
    for name in ("blend_without_llm", "blend_with_llm"):
        scores = table[name].scores(lists)[0]
        temperature = BLENDS["without_llm"].temperature if name == "blend_without_llm" else 1.0
        weights = np.exp((scores - scores.max()) / temperature)
        probabilities[name] = weights / weights.sum()
    before, after = probabilities["blend_without_llm"], probabilities["blend_with_llm"]
    assert after[2] == pytest.approx(before[2])
    assert after[:2].sum() == pytest.approx(before[:2].sum())
    within = BLENDS["with_llm"].scores(lists)[0, :2] / BLENDS["with_llm"].temperature
    assert after[1] / after[0] == pytest.approx(np.exp(within[1] - within[0]))


def test_the_order_without_the_llm_is_the_blend_without_it_for_everybody() -> None:
    asked, others = rank(user(), order="blend_without_llm"), rank(user(use_llm=False), order="blend_with_llm")
    assert asked["item_id"].tolist() == others["item_id"].tolist()
    assert asked["score"].tolist() == others["score"].tolist()
    assert asked["source"].tolist() == ["cf"] * 3


def decision(served: str) -> Decision:
    compared = (
        ComparedOrder("blend_without_llm", 0.0, 0.45, 0.0, 0.0),
        ComparedOrder("blend_with_llm", 210.4, 0.47, 0.004, 0.036),
    )
    return Decision(served, compared, 350)


def test_auto_is_the_order_that_the_bundle_decided_for() -> None:
    auto = ScoringConfig()
    assert auto.order == "auto"
    assert resolved(auto, decision("blend_without_llm")).order == "blend_without_llm"
    assert resolved(auto, decision("blend_with_llm")).order == "blend_with_llm"
    assert resolved(auto, None).order == "blend_with_llm"  # a bundle from before there were decisions
    assert resolved(ScoringConfig(mode="generate"), decision("blend_without_llm")).order == "blend_with_llm"
    assert resolved(ScoringConfig(order="cf"), decision("blend_with_llm")).order == "cf"
    with pytest.raises(ValueError, match=r"scoring\.order: auto"):
        served_order(BLENDS, auto)


def test_a_decision_says_in_one_sentence_what_is_served_and_why() -> None:
    assert str(decision("blend_with_llm")) == (
        "the blend with the LLM is served: on the lists of 350 validation users "
        "the blend without the LLM has NDCG@10 0.450, the blend with the LLM 0.470 "
        "(+0.020 [+0.004, +0.036], 210 tokens a user)"
    )
    assert "no validation user" in str(Decision("blend_without_llm", (), 0))
    assert Decision.from_json(decision("blend_with_llm").to_json()) == decision("blend_with_llm")


def test_the_cheapest_order_that_none_beats_is_served() -> None:
    names = ["free", "cheap", "dear"]
    assert cheapest_unbeaten(names, set()) == "free"
    assert cheapest_unbeaten(names, {("dear", "free")}) == "cheap"
    assert cheapest_unbeaten(names, {("dear", "free"), ("dear", "cheap")}) == "dear"
    assert cheapest_unbeaten(names, {("cheap", "free")}) == "cheap"


def test_a_decision_of_version_0_1_0_is_read_by_its_old_names() -> None:
    now = decision("blend_with_llm")
    old = now.to_json() | {"served": "titles"}
    old["compared"] = [
        order | {"name": name} for order, name in zip(old["compared"], ("without_llm", "titles"), strict=True)
    ]
    assert Decision.from_json(old) == now


@pytest.mark.parametrize(("old", "now"), [("blend", "blend_with_llm"), ("without_llm", "blend_without_llm")])
def test_an_old_name_of_an_order_is_that_order(old: str, now: str) -> None:
    assert load([], [f"scoring.order={old}"]) == load([], [f"scoring.order={now}"])
