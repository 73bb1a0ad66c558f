"""Evaluation on a small shop: only a bundle that has not seen the targets, the same candidates for every model."""

from __future__ import annotations

import pytest

from allmrec.errors import BundleError
from allmrec.evaluation.report import NAMES
from allmrec.steps.evaluate import run_evaluate
from allmrec.steps.train import run_train
from tests.steps.conftest import RUN_DATE
from tests.steps.reading import rows


@pytest.fixture(scope="module")
def evaluated(new_context, shop, tmp_path_factory):
    import shutil

    folder = tmp_path_factory.mktemp("evaluated")
    for name in ("tables", "cache", "tiny_llm"):
        shutil.copytree(shop.parent / name, folder / name)
    run_train(new_context(folder / "tables", "training.purpose=evaluation"), RUN_DATE)
    text = run_evaluate(new_context(folder / "tables"), None)
    return folder / "tables", text


def test_a_serving_bundle_is_refused_by_name(shop, new_context):
    with pytest.raises(BundleError, match="seen the targets"):
        run_evaluate(new_context(shop), None)


def test_every_model_ranks_the_same_candidates(evaluated):
    predictions = rows(evaluated[0], "evaluation_predictions")
    assert predictions["model"].nunique() >= 6
    for _, mine in predictions.groupby("user_id"):
        assert mine["candidates"].map(tuple).nunique() == 1
        assert mine["target"].nunique() == 1
        assert len(mine["candidates"].iloc[0]) == 20
        assert mine["candidates"].iloc[0][0] == mine["target"].iloc[0]


def test_targets_and_negatives_were_never_in_the_history_that_is_scored(evaluated):
    predictions = rows(evaluated[0], "evaluation_predictions").drop_duplicates("user_id")
    log = rows(evaluated[0], "interactions").groupby("user_id")["item_id"].agg(set).to_dict()
    for user, candidates in zip(predictions["user_id"], predictions["candidates"], strict=True):
        assert not set(candidates[1:]) & log[user]


def test_results_have_intervals_around_their_values_and_the_number_of_users(evaluated):
    results = rows(evaluated[0], "evaluation_results")
    overall = results[results["scenario"] == "all"]
    assert set(overall["metric"]) >= {"Hit@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10"}
    assert ((overall["low"] <= overall["value"]) & (overall["value"] <= overall["high"])).all()
    assert (overall["n"] == 30).all()
    assert {"warm", "cold"} <= set(results["scenario"])


def test_the_report_names_every_model(evaluated):
    for model in set(rows(evaluated[0], "evaluation_predictions")["model"]):
        assert NAMES[model] in evaluated[1]
