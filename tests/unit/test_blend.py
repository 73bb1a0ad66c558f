"""The blend must follow what validation users say, hardly move without them, and keep a misleading part out."""

import json

import numpy as np
import pandas as pd
import pytest

from allmrec.ranking.blend import PRIOR, BlendWeights, fit_blend, zscores

NUM_CANDIDATES = 10


def scored(num_users: int, strength: dict[str, float], seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Users whose true item is drawn from softmax(Σ strength · part) over their candidates."""
    random = np.random.default_rng(seed)
    values = {
        part: random.normal(size=(num_users, NUM_CANDIDATES)) for part in ("cf", "text", "alignment", "llm")
    }
    logits = sum(strength.get(part, 0.0) * matrix for part, matrix in values.items()) + random.gumbel(
        size=(num_users, NUM_CANDIDATES)
    )
    true = logits.argmax(axis=1)
    ids = [f"i{number}" for number in range(NUM_CANDIDATES)]
    frame = pd.DataFrame(
        {"user_id": [f"u{user}" for user in range(num_users)], "candidates": [ids] * num_users}
    )
    for part, column in (
        ("cf", "cf_scores"),
        ("text", "text_scores"),
        ("alignment", "alignment_scores"),
        ("llm", "llm_choice_scores"),
    ):
        frame[column] = values[part].tolist()
    return frame, [ids[place] for place in true]


def test_z_scores_ignore_missing_values_and_a_row_without_spread_is_zero():
    values = np.array([[1.0, 3.0, np.nan], [2.0, 2.0, 2.0], [0.1 + 0.2, 0.3, 0.3], [np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(zscores(values), [[-1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_without_users_the_weights_are_the_prior():
    frame, _ = scored(0, {})
    for with_llm in (False, True):
        weights, figures = fit_blend(frame, [], with_llm)
        assert figures == {"num_users": 0.0}
        for part in weights.weights:
            assert weights.weights[part] / weights.temperature == pytest.approx(PRIOR[part])
        assert ("llm" in weights.weights) == with_llm


@pytest.mark.parametrize("num_users", [1, 2, 20])
def test_few_users_hardly_move_the_weights(num_users: int):
    frame, targets = scored(num_users, {"llm": 5.0})
    weights, figures = fit_blend(frame, targets, with_llm=True)
    assert all(np.isfinite(value) for value in figures.values())
    assert weights.weights["cf"] == max(weights.weights.values())
    assert 0.2 < weights.temperature < 2


def test_many_users_give_the_parts_their_true_weights_and_calibrated_probabilities():
    frame, targets = scored(4000, {"cf": 1.2, "text": 0.4, "llm": 0.8})
    weights, figures = fit_blend(frame, targets, with_llm=True)
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


def test_a_part_that_misleads_gets_no_weight():
    frame, targets = scored(2000, {"cf": 1.0, "llm": -1.0})
    assert fit_blend(frame, targets, with_llm=True)[0].weights["llm"] == 0.0


def test_items_unknown_to_the_cf_model_get_an_offset_that_follows_the_users():
    frame, _ = scored(1000, {})
    frame["cf_scores"] = [[*scores[:-2], None, None] for scores in frame["cf_scores"]]
    often, _ = fit_blend(frame, ["i9"] * 1000, with_llm=False)
    never, _ = fit_blend(frame, ["i0"] * 1000, with_llm=False)
    assert often.unknown_offset > 1 > -1 > never.unknown_offset


def test_the_fit_depends_neither_on_the_order_of_the_users_nor_on_chance():
    frame, targets = scored(300, {"cf": 1.0})
    weights, _ = fit_blend(frame, targets, with_llm=True)
    again, _ = fit_blend(frame[::-1].reset_index(drop=True), targets[::-1], with_llm=True)
    assert weights.weights == pytest.approx(again.weights, abs=1e-6)
    assert weights == fit_blend(frame, targets, with_llm=True)[0]


def test_users_without_an_llm_score_or_without_the_target_are_left_out_of_the_fit():
    frame, targets = scored(6, {})
    frame.at[0, "llm_choice_scores"] = None
    frame.at[1, "llm_choice_scores"] = [None] * NUM_CANDIDATES
    targets[2] = "not a candidate"
    assert fit_blend(frame, targets, with_llm=True)[1]["num_users"] == 3
    assert fit_blend(frame, targets, with_llm=False)[1]["num_users"] == 5


def test_a_given_prior_is_what_few_users_stay_with():
    frame, targets = scored(1, {})
    prior = BlendWeights({"cf": 0.1, "text": 0.8, "alignment": 0.1}, 0.0, 0.5, 2000)
    weights, _ = fit_blend(frame, targets, with_llm=True, prior=prior)
    assert weights.weights["text"] > 0.6


def test_weights_survive_json():
    frame, targets = scored(30, {"cf": 1.0})
    weights, _ = fit_blend(frame, targets, with_llm=True)
    assert BlendWeights.from_json(json.loads(json.dumps(weights.to_json()))) == weights
