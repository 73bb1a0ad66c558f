"""The blend follows what validation users say, hardly moves without them, and keeps misleading parts out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allmrec import parts as parts_of_score
from allmrec.ranking.blend import BlendWeights, zscores
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.training.order.fit_blend import fit_blend
from allmrec.training.order.fit_decision import compared_crosswise

NUM_CANDIDATES = 10
PARTS = ("cf", "text", "alignment", "llm")
WITHOUT_LLM = ("cf", "text", "alignment")


def scored(num_users: int, strength: dict[str, float], seed: int = 0) -> tuple[CandidateLists, list[str]]:
    """Users whose true item is drawn from softmax(Σ strength · part) over their candidates."""
    random = np.random.default_rng(seed)
    values = {part: random.normal(size=(num_users, NUM_CANDIDATES)) for part in PARTS}
    logits = sum(strength.get(part, 0.0) * matrix for part, matrix in values.items()) + random.gumbel(
        size=(num_users, NUM_CANDIDATES)
    )
    ids = [f"i{number}" for number in range(NUM_CANDIDATES)]
    users = [f"u{user}" for user in range(num_users)]
    lists = CandidateLists.of(users, [[]] * num_users, [ids] * num_users)
    lists = lists.with_parts(values) if num_users else lists
    return lists, [ids[column] for column in logits.argmax(axis=1)]


def test_z_scores_ignore_missing_values_and_a_row_without_spread_is_zero() -> None:
    values = np.array([[1.0, 3.0, np.nan], [2.0, 2.0, 2.0], [0.1 + 0.2, 0.3, 0.3], [np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(zscores(values), [[-1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_without_users_the_weights_are_the_prior() -> None:
    lists, _ = scored(0, {})
    for parts in (WITHOUT_LLM, PARTS):
        weights, figures = fit_blend(lists, [], parts)
        assert figures == {"num_users": 0.0}
        for part in weights.weights:
            assert weights.weights[part] / weights.temperature == pytest.approx(
                parts_of_score.PARTS[part].prior
            )
        assert tuple(weights.weights) == parts


@pytest.mark.parametrize("num_users", [1, 2, 20])
def test_few_users_hardly_move_the_weights(num_users: int) -> None:
    lists, targets = scored(num_users, {"llm": 5.0})
    weights, figures = fit_blend(lists, targets, PARTS)
    assert all(np.isfinite(value) for value in figures.values())
    assert weights.weights["cf"] == max(weights.weights.values())
    assert 0.2 < weights.temperature < 2


def test_many_users_give_the_parts_their_true_weights_and_calibrated_probabilities() -> None:
    lists, targets = scored(4000, {"cf": 1.2, "text": 0.4, "llm": 0.8})
    weights, figures = fit_blend(lists, targets, PARTS)
    scaled = {part: weight / weights.temperature for part, weight in weights.weights.items()}
    assert scaled["cf"] == pytest.approx(1.2, abs=0.12)
    assert scaled["text"] == pytest.approx(0.4, abs=0.12)
    assert scaled["llm"] == pytest.approx(0.8, abs=0.12)
    assert scaled["alignment"] < 0.1
    assert figures["blend_NDCG@10"] > max(figures[f"{part}_NDCG@10"] for part in weights.weights)
    fresh, fresh_targets = scored(4000, {"cf": 1.2, "text": 0.4, "llm": 0.8}, seed=1)
    scores = weights.scores(fresh) / weights.temperature
    probability = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    hits = scores.argmax(axis=1) == [int(target[1:]) for target in fresh_targets]
    assert probability.max(axis=1).mean() == pytest.approx(hits.mean(), abs=0.03)


def test_a_part_that_misleads_gets_no_weight() -> None:
    lists, targets = scored(2000, {"cf": 1.0, "llm": -1.0})
    assert fit_blend(lists, targets, PARTS)[0].weights["llm"] == 0.0


def test_items_unknown_to_the_cf_model_get_an_offset_that_follows_the_users() -> None:
    lists, _ = scored(1000, {})
    cf = lists.part("cf").copy()
    cf[:, -2:] = np.nan
    lists = lists.with_parts({"cf": cf})
    often, _ = fit_blend(lists, ["i9"] * 1000, WITHOUT_LLM)
    never, _ = fit_blend(lists, ["i0"] * 1000, WITHOUT_LLM)
    assert often.unknown_offset > 1 > -1 > never.unknown_offset


def test_the_fit_depends_neither_on_the_order_of_the_users_nor_on_chance() -> None:
    lists, targets = scored(300, {"cf": 1.0})
    weights, _ = fit_blend(lists, targets, PARTS)
    again, _ = fit_blend(lists.take(np.arange(300)[::-1]), targets[::-1], PARTS)
    assert weights.weights == pytest.approx(again.weights, abs=1e-6)
    assert weights == fit_blend(lists, targets, PARTS)[0]


def test_users_without_an_llm_score_or_without_the_target_are_left_out_of_the_fit() -> None:
    lists, targets = scored(6, {})
    llm = lists.part("llm").copy()
    llm[:2] = np.nan
    lists = lists.with_parts({"llm": llm})
    targets[2] = "not a candidate"
    assert fit_blend(lists, targets, PARTS)[1]["num_users"] == 3
    assert fit_blend(lists, targets, WITHOUT_LLM)[1]["num_users"] == 5


def test_a_given_prior_is_what_few_users_stay_with() -> None:
    lists, targets = scored(1, {})
    prior = BlendWeights({"cf": 0.1, "text": 0.8, "alignment": 0.1}, 0.0, 0.5, 2000)
    weights, _ = fit_blend(lists, targets, PARTS, prior=prior)
    assert weights.weights["text"] > 0.6


def test_weights_survive_json() -> None:
    lists, targets = scored(30, {"cf": 1.0})
    weights, _ = fit_blend(lists, targets, PARTS)
    assert BlendWeights.from_json(json.loads(json.dumps(weights.to_json()))) == weights


@settings(max_examples=25, deadline=None)
@given(
    num_users=st.integers(1, 12),
    seed=st.integers(0, 1000),
    missing=st.floats(0.0, 0.9),
    scale=st.floats(1e-3, 1e3),
)
def test_any_lists_give_finite_weights_that_sum_to_one_and_do_not_change_with_a_parts_unit(
    num_users: int, seed: int, missing: float, scale: float
) -> None:
    lists, targets = scored(num_users, {"cf": 1.0}, seed)
    holes = np.random.default_rng(seed).random(lists.ids.shape) < missing
    lists = lists.with_parts({"cf": np.where(holes, np.nan, lists.part("cf"))})
    blend, figures = fit_blend(lists, targets, PARTS)
    assert all(weight >= 0 for weight in blend.weights.values())
    assert sum(blend.weights.values()) == pytest.approx(1.0)
    assert blend.temperature > 0
    assert np.isfinite(list(figures.values())).all()
    assert np.isfinite(blend.scores(lists)).all()
    scaled, _ = fit_blend(lists.with_parts({"text": lists.part("text") * scale}), targets, PARTS)
    assert scaled.weights == pytest.approx(blend.weights, abs=1e-5)


def read_lists(num_users: int, strength: dict[str, float]) -> tuple[CandidateLists, list[str]]:
    """Users as `scored` makes them, of whose candidates the LLM read the first eight."""
    lists, targets = scored(num_users, strength)
    llm = lists.part("llm").copy()
    llm[:, 8:] = np.nan
    return lists.with_parts({"llm": llm}), targets


@pytest.mark.parametrize(("strength", "served"), [(1.0, "blend_with_llm"), (0.0, "blend_without_llm")])
def test_the_llm_is_served_where_lists_are_better_with_it_for_certain(strength: float, served: str) -> None:
    lists, targets = read_lists(600, {"cf": 1.0, "llm": strength})
    decision = compared_crosswise(lists, targets, PARTS, tokens_per_user=200.0, seed=0)
    assert (decision.served, decision.num_users) == (served, 600)
    without, with_llm = decision.compared
    assert (without.tokens_per_user, with_llm.tokens_per_user) == (0.0, 200.0)
    assert (with_llm.low > 0) == (served == "blend_with_llm")
    assert with_llm.low < with_llm.ndcg - without.ndcg < with_llm.high


@pytest.mark.parametrize("parts", [("popularity", "llm"), ("llm",)])
def test_noise_is_not_served_where_the_order_without_it_has_ties(parts: tuple[str, ...]) -> None:
    """A part of few values, or none at all, leaves ties: they have the figures of chance, as noise has."""
    num_chosen = 0
    for seed in range(40):
        lists, targets = scored(200, {}, seed)
        popularity = np.round(np.random.default_rng(seed).random(lists.ids.shape))
        lists = lists.with_parts({"popularity": popularity})
        num_chosen += compared_crosswise(lists, targets, parts, 200.0, seed).served == "blend_with_llm"
    assert num_chosen <= 4


def test_without_validation_users_the_llm_is_left_out() -> None:
    lists, targets = read_lists(0, {})
    assert compared_crosswise(lists, targets, PARTS, 0.0, 0).served == "blend_without_llm"


def test_the_fit_with_the_llm_tells_apart_what_the_llm_read() -> None:
    lists, targets = read_lists(400, {"llm": 1.0})
    is_read = np.array([int(target[1:]) < 8 for target in targets])
    _, figures = fit_blend(lists, targets, PARTS)
    assert figures["num_users"] == is_read.sum() < 400
