"""Kept lists: users with unchanged inputs need no LLM tonight."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.errors import InputError
from allmrec.runtime.night import Night


class LastNight(NamedTuple):
    """The night whose lists can be kept."""

    run_date: date
    digest: str
    """Digest of its rows."""
    rows: DataFrame
    """Its rows of `recommendations`."""


def last_night(night: Night) -> LastNight | None:
    """Return the newest scored night before this one; None with `--full`.

    Returns None if there is none, or the table no longer holds the rows that the night's record describes.
    """
    before = None if night.context.options.full else night.before("score")
    if before is None:
        return None
    try:
        score = before.done("score")
    except InputError as error:
        night.context.warn_once(f"no list of the night before is kept: {error}")
        return None
    digest = score.row.outputs["recommendations"].digest
    return LastNight(before.run_date, digest, score.read("recommendations"))


def with_carried(users: DataFrame, last: LastNight | None) -> DataFrame:
    """Return `users` (user_id, inputs_hash, use_llm, …) with the column `is_carried`.

    A list is kept if tonight would make the same one: its inputs_hash is the same, the LLM is asked tonight
    if and only if it ordered the list, and the list has neither failure nor deadline.
    """
    if last is None:
        return users.withColumn("is_carried", F.lit(False))
    first = last.rows.where("rank = 1").select(
        "user_id", F.col("inputs_hash").alias("_hash"), F.col("source").alias("_source"), "fallback_reason"
    )
    whole = F.col("fallback_reason").isNull() | (F.col("fallback_reason") == "no_history")
    same_order = (F.col("_source") == "popular") | ((F.col("_source") == "llm") == F.col("use_llm"))
    same = F.col("_hash") == F.col("inputs_hash")
    rows = users.join(first, "user_id", "left")
    is_carried = F.coalesce(same & same_order & whole, F.lit(False))
    return rows.withColumn("is_carried", is_carried).drop("_hash", "_source", "fallback_reason")


def carried_rows(last: LastNight, users: DataFrame) -> DataFrame:
    """Return last night's rows of `users` (user_id), with their scoring date."""
    kept = last.rows.join(users.select("user_id"), "user_id", "left_semi")
    return kept.withColumn("carried_from", F.coalesce("carried_from", "run_date")).drop("run_date")
