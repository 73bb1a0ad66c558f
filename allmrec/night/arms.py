"""The arms of `publish.arms`: who is in which, and the order of a list in it."""

from __future__ import annotations

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.config import PublishConfig
from allmrec.errors import InputError
from allmrec.ranking.arms import arms_of
from allmrec.runtime.night import Finished

_SCORES = {"without_llm": "score_without_llm", "cf": "cf_score"}
"""Arm → the column of `recommendations` by which it orders lists. The other arms keep the served order."""


def scored_for_arms(score: Finished) -> DataFrame:
    """Return `recommendations` of the date with `arm_scores`: the scores of `_SCORES`, null without arms.

    Raises InputError where the arm `without_llm` has a share and rows lack its score.
    """
    rows = score.read("recommendations")
    arms = score.night.context.config.publish.arms
    if not arms:
        return rows.withColumn("arm_scores", F.lit(None).cast("array<double>"))
    if arms.get("without_llm") and not rows.where("score_without_llm IS NULL").isEmpty():
        day = score.night.run_date
        raise InputError(
            f"recommendations of {day}: rows without score_without_llm, expected it for the arm without_llm "
            f"of publish.arms; run `allmrec score --run-date {day}`"
        )
    return rows.withColumn("arm_scores", F.array(*_SCORES.values()))


def with_arms(lists: DataFrame, settings: PublishConfig) -> DataFrame:
    """Return the lists with `arm`, null without arms, each in the order of its arm."""
    if not settings.arms:
        return lists.withColumn("arm", F.lit(None).cast("string"))

    shares = settings.arms
    seed = settings.arms_seed

    @F.pandas_udf(T.StringType())  # type: ignore[call-overload]
    def arm_of(users: pd.Series) -> pd.Series:
        return pd.Series(arms_of(list(users), shares, seed), dtype=object)

    lists = lists.withColumn("arm", arm_of("user_id"))
    by_place = F.transform("items", lambda item: F.struct(_place(item), item.alias("item")))
    return lists.withColumn("items", F.transform(F.sort_array(by_place), lambda one: one["item"]))


def relevance(item: Column) -> Column:
    """Return the score by which the user's arm orders an item; that of the served order without an arm."""
    return F.when(_is_reordered(item), _arm_score(item)).otherwise(item["score"])


def is_control() -> Column:
    """Return whether the user is in the arm that gets nothing."""
    return F.coalesce(F.col("arm") == "control", F.lit(False))


def count_arms(lists: DataFrame) -> dict[str, int]:
    """Return the number of users of each arm, as `arm_<name>`; nothing without arms."""
    rows = lists.where("arm IS NOT NULL").groupBy("arm").count().collect()
    return {f"arm_{row['arm']}": row["count"] for row in rows}


def _place(item: Column) -> Column:
    """Return the sort key of an item: the rank, or the negative score of the arm; a missing one is last."""
    by_score = F.coalesce(-_arm_score(item), F.lit(float("inf")))
    return F.when(_is_reordered(item), by_score).otherwise(item["rank"].cast("double"))


def _is_reordered(item: Column) -> Column:
    """Return whether the arm has an order of its own. Popular lists have the same one in all arms."""
    is_own = F.coalesce(F.col("arm").isin(list(_SCORES)), F.lit(False))
    return is_own & F.coalesce(item["source"] != "popular", F.lit(True))


def _arm_score(item: Column) -> Column:
    """Return the score of the user's arm, null where there is none."""
    found = F.lit(None).cast("double")
    for number, arm in enumerate(_SCORES):
        found = F.when(F.col("arm") == arm, F.get(item["arm_scores"], F.lit(number))).otherwise(found)
    return found
