"""What a user is served, by which parts, and what the row says about it."""

import time

import numpy as np
import pandas as pd
import pytest

from allmrec.config import Config
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.served import COLUMNS, order_scores, rank

BLENDS = {
    "without_llm": BlendWeights({"cf": 0.6, "text": 0.2, "alignment": 0.2}, -0.5, 0.5, 100, {"cf": 2.0}),
    "with_llm": BlendWeights(
        {"cf": 0.1, "text": 0.1, "alignment": 0.1, "llm": 0.7}, -0.5, 0.5, 100, {"cf": 2.0, "llm": 4.0}
    ),
}


def config(**settings: object) -> Config:
    base = Config()
    return base.model_copy(update={"scoring": base.scoring.model_copy(update=settings)})


def users(**columns: list) -> pd.DataFrame:
    """One user a row; `a` is best by CF, `b` by text, `c` by the LLM."""
    row = {
        "user_id": "u", "history": ["h"], "candidates": ["a", "b", "c"], "cf_scores": [3.0, 2.0, 1.0], "text_scores": [0.1, 0.9, 0.2],
        "sources": ["cf", "cf", "cf"], "use_llm": True, "alignment_scores": [0.0, 0.0, 0.0], "llm_logprobs": [-9.0, -8.0, -20.0],
        "llm_choice_scores": [1.0, 2.0, 9.0], "llm_failure": None,
    }  # fmt: skip
    number = len(next(iter(columns.values()))) if columns else 1
    return pd.DataFrame(
        [row | {name: values[place] for name, values in columns.items()} for place in range(number)]
    )


def test_the_blend_with_the_llm_orders_users_who_have_it_and_the_one_without_the_others():
    two = users(
        user_id=["u1", "u2"],
        use_llm=[True, False],
        llm_choice_scores=[[1.0, 2.0, 9.0], None],
        llm_logprobs=[[-9, -8, -20], None],
    )
    ranked = rank(two, BLENDS, config())
    assert list(ranked.columns) == COLUMNS
    assert ranked["user_id"].tolist() == ["u1"] * 3 + ["u2"] * 3 and ranked["rank"].tolist() == [1, 2, 3] * 2
    assert ranked["item_id"].tolist()[0] == "c" and ranked["item_id"].tolist()[3] == "a"
    assert ranked["source"].tolist() == ["llm"] * 3 + ["cf"] * 3
    assert ranked["fallback_reason"].isna().all()
    assert ranked["llm_logprob"].tolist()[0] == -20 and ranked["llm_logprob"][3:].isna().all()
    assert ranked.groupby("user_id")["probability"].sum().tolist() == pytest.approx([1, 1])


def test_probabilities_are_over_all_candidates_though_only_the_best_are_served():
    ranked = rank(users(), BLENDS, config(top_k=1))
    assert len(ranked) == 1 and 0 < ranked["probability"][0] < 1
    everyone = rank(users(), BLENDS, config())
    assert ranked["probability"][0] == everyone["probability"][0]


@pytest.mark.parametrize("order", ["blend", "llm"])
def test_a_user_whom_the_llm_failed_gets_the_blend_without_it_and_the_reason(order: str):
    failed = users(llm_failure=["out_of_memory"], llm_choice_scores=[None], llm_logprobs=[None])
    ranked = rank(failed, BLENDS, config(order=order))
    assert (
        ranked["item_id"][0] == "a"
        and set(ranked["source"]) == {"cf"}
        and set(ranked["fallback_reason"]) == {"out_of_memory"}
    )


def test_the_order_is_a_setting():
    assert rank(users(), BLENDS, config(order="llm"))["item_id"].tolist() == ["c", "b", "a"]
    by_cf = rank(users(cf_scores=[[1.0, None, 5.0]]), BLENDS, config(order="cf"))
    assert (
        by_cf["item_id"].tolist() == ["c", "a", "b"]
        and set(by_cf["source"]) == {"cf"}
        and by_cf["fallback_reason"].isna().all()
    )
    assert np.isfinite(by_cf["score"]).all()


def test_generate_puts_the_llms_choice_first_and_the_blend_orders_the_rest():
    chosen = users(llm_choice_scores=[[None, None, -3.0]], llm_logprobs=[[None, None, -3.0]])
    ranked = rank(chosen, BLENDS, config(mode="generate"))
    assert ranked["item_id"].tolist() == ["c", "a", "b"] and ranked["score"].is_monotonic_decreasing
    assert ranked["llm_logprob"].isna().tolist() == [False, True, True]


def test_without_history_the_list_stays_as_retrieved_and_has_no_probability():
    nobody = users(history=[[]], candidates=[["z", "y"]], cf_scores=[[None, None]], text_scores=[[0.0, 0.0]], sources=[["popular"] * 2],
                   alignment_scores=[[0.3, 0.9]], llm_choice_scores=[None], llm_logprobs=[None], use_llm=[False])  # fmt: skip
    ranked = rank(nobody, BLENDS, config())
    assert ranked["item_id"].tolist() == ["z", "y"] and ranked["probability"].isna().all()
    assert set(ranked["source"]) == {"popular"} and set(ranked["fallback_reason"]) == {"no_history"}
    assert ranked["score"].is_monotonic_decreasing


def test_equal_scores_are_ordered_by_cf_score_and_then_by_item_id():
    flat = dict(text_scores=[[0.0] * 3], alignment_scores=[[0.0] * 3], use_llm=[False])
    blends = BLENDS | {"without_llm": BlendWeights({"cf": 0.0, "text": 1.0, "alignment": 0.0}, 0.0, 1.0, 0)}
    equal = users(candidates=[["c", "b", "a"]], cf_scores=[[1.0, 2.0, 2.0]], **flat)
    assert rank(equal, blends, config())["item_id"].tolist() == ["a", "b", "c"]


def test_an_item_the_cf_model_never_saw_is_neither_first_nor_last_by_cf_but_moved_by_the_offset():
    new = users(cf_scores=[[3.0, None, 1.0]], text_scores=[[0.0] * 3], use_llm=[False])
    ranked = rank(new, BLENDS, config())
    assert ranked["item_id"].tolist() == ["a", "b", "c"]
    assert ranked["score"][1] == pytest.approx(-0.5)
    assert np.isnan(ranked["cf_score"][1])


def test_users_with_different_numbers_of_candidates_and_none_are_ranked_alike():
    parts = ("cf_scores", "text_scores", "alignment_scores", "llm_logprobs", "llm_choice_scores")
    scores = {name: [[1.0, 2.0, 3.0], [], [1.0]] for name in parts}
    mixed = users(
        user_id=["u1", "u2", "u3"],
        candidates=[["a", "b", "c"], [], ["a"]],
        sources=[["cf"] * 3, [], ["cf"]],
        **scores,
    )
    ranked = rank(mixed, BLENDS, config())
    assert ranked["user_id"].tolist() == ["u1"] * 3 + ["u3"] and ranked["rank"].tolist() == [1, 2, 3, 1]
    assert ranked["probability"].tolist()[-1] == 1.0
    alone = rank(mixed[:1], BLENDS, config())
    pd.testing.assert_frame_equal(alone, ranked[:3])
    assert rank(mixed[1:2], BLENDS, config()).empty and rank(mixed[:0], BLENDS, config()).empty


def test_every_model_of_an_evaluation_scores_every_candidate():
    frame = users(cf_scores=[[3.0, None, 1.0]])
    for model in ("popularity", "text", "cf", "blend", "llm", "served"):
        (scores,) = order_scores(frame, model, BLENDS, {"a": 7, "c": 2}, config())
        assert np.isfinite(scores).all() and len(scores) == 3
    assert order_scores(frame, "cf", BLENDS, {}, config())[0].argmin() == 1
    assert order_scores(frame, "popularity", BLENDS, {"a": 7, "c": 2}, config())[0].tolist() == [7, 0, 2]


def test_22_000_users_are_ranked_in_seconds():
    random = np.random.default_rng(0)
    number, size = 22_000, 20
    frame = pd.DataFrame({"user_id": [f"u{user}" for user in range(number)], "history": [["h"]] * number})
    frame["candidates"] = [[f"i{item}" for item in row] for row in random.integers(0, 12_000, (number, size))]
    for column in ("cf_scores", "text_scores", "alignment_scores", "llm_logprobs", "llm_choice_scores"):
        frame[column] = random.normal(size=(number, size)).tolist()
    frame = frame.assign(
        sources=[["cf"] * size] * number, use_llm=random.random(number) < 0.5, llm_failure=None
    )
    started = time.perf_counter()
    ranked = rank(frame, BLENDS, config())
    assert len(ranked) == number * 10 and time.perf_counter() - started < 20
