"""Evaluation on a small shop: a bundle that has not seen the targets, the same candidates for every model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from allmrec.errors import BundleError
from allmrec.evaluation.report import LABELS
from allmrec.ranking.rankers import RANKER_NAMES
from allmrec.runtime.context import Context
from allmrec.steps.evaluate import run_evaluate
from allmrec.steps.train import run_train
from tests.steps.conftest import RUN_DATE, NewContext, copied_shop
from tests.steps.reading import rows


class Evaluated(NamedTuple):
    context: Context
    tables: Path
    report: str


@pytest.fixture(scope="module")
def evaluated(new_context: NewContext, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    tables = copied_shop(shop, tmp_path_factory.mktemp("evaluated"))
    run_train(new_context(tables, "training.purpose=evaluation"), RUN_DATE)
    context = new_context(tables)
    return Evaluated(context, tables, run_evaluate(context, None))


@pytest.fixture(scope="module")
def predictions(evaluated: Evaluated) -> pd.DataFrame:
    return rows(evaluated.tables, "evaluation_predictions")


def test_a_serving_bundle_is_refused_by_name(shop: Path, new_context: NewContext) -> None:
    with pytest.raises(BundleError, match="seen the targets"):
        run_evaluate(new_context(shop), None)


def test_a_bundle_of_another_cut_off_is_refused_by_name(evaluated: Evaluated) -> None:
    with pytest.raises(BundleError, match=f"trained before {RUN_DATE}, expected 2026-05-30"):
        run_evaluate(evaluated.context, RUN_DATE.replace(month=5, day=30))


def test_every_model_ranks_the_same_candidates(predictions: pd.DataFrame) -> None:
    assert set(predictions["model"]) == set(RANKER_NAMES)
    assert set(predictions["scenario"]) == {"leave_one_out"}
    for _, of_user in predictions.groupby("user_id"):
        assert set(of_user["model"]) == set(RANKER_NAMES)
        assert of_user["candidates"].map(tuple).nunique() == 1
        assert of_user["target"].nunique() == 1
        assert len(of_user["candidates"].iloc[0]) == 20
        assert of_user["candidates"].iloc[0][0] == of_user["target"].iloc[0]
        assert all(sorted(ranks) == list(range(1, 21)) for ranks in of_user["ranks"])


def test_the_target_is_a_users_newest_item(predictions: pd.DataFrame, evaluated: Evaluated) -> None:
    log = rows(evaluated.tables, "interactions")
    past = log[pd.to_datetime(log["event_time"], utc=True) < pd.Timestamp(RUN_DATE, tz="UTC")]
    newest = past.sort_values(["event_time", "item_id"]).groupby("user_id")["item_id"].last()
    targets = predictions.drop_duplicates("user_id").set_index("user_id")["target"]
    assert targets.to_dict() == newest[targets.index].to_dict()


def test_targets_and_negatives_were_never_in_the_history_that_is_scored(
    predictions: pd.DataFrame, evaluated: Evaluated
) -> None:
    [targets] = (evaluated.tables / "_snapshots").glob("*/targets")
    histories = pd.read_parquet(targets).set_index("user_id")["history"].map(set)
    log = rows(evaluated.tables, "interactions").groupby("user_id")["item_id"].agg(set)
    by_user = predictions.drop_duplicates("user_id").set_index("user_id")
    assert set(by_user.index) <= set(histories.index)
    for user, (target, candidates) in by_user[["target", "candidates"]].iterrows():
        assert histories[user]
        assert target not in histories[user]
        assert not set(candidates[1:]) & histories[user]
        assert not set(candidates[1:]) & log[user], "a negative is an item that the user never had"


def test_results_have_intervals_around_their_values_and_the_number_of_users(evaluated: Evaluated) -> None:
    results = rows(evaluated.tables, "evaluation_results")
    overall = results[results["scenario"] == "all"]
    assert set(overall["metric"]) >= {"Hit@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10"}
    assert ((overall["low"] <= overall["value"]) & (overall["value"] <= overall["high"])).all()
    assert (overall["n"] == 30).all()
    assert {"warm", "cold"} <= set(results["scenario"])


def test_the_report_names_every_model(evaluated: Evaluated) -> None:
    for model in RANKER_NAMES:
        assert LABELS[model] in evaluated.report
