"""What a person wants to see of one user's night: history, recommendations with their parts, and the candidates that lost."""

from __future__ import annotations

from datetime import date
from typing import Any

from pyspark.sql import functions as F
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from allmrec.errors import InputError
from allmrec.runtime.context import Context


def latest_run_date(context: Context) -> date:
    """Return the newest run_date that has recommendations; raises InputError where there is none."""
    newest = context.tables.read("recommendations").agg(F.max("run_date")).first()
    if newest is None or newest[0] is None:
        raise InputError("recommendations: no row, expected a night; run one (allmrec nightly --run-date …)")
    return newest[0]


def user_night(context: Context, user_id: str, run_date: date) -> Group:
    """Return the user's night as tables for a terminal; raises InputError where that user or night is not there."""
    sequence, candidates = (
        _one(context, name, user_id, run_date) for name in ("user_sequences", "candidates")
    )
    if sequence is None:
        raise InputError(
            f"user {user_id!r}: not in user_sequences of {run_date}; expected a user of that night (check the id and --run-date)"
        )
    mine = (F.col("user_id") == user_id) & (F.col("run_date") == F.lit(run_date))
    ranked = [
        row.asDict() for row in context.tables.read("recommendations").where(mine).orderBy("rank").collect()
    ]
    wanted = {
        *sequence["item_ids"],
        *(candidates["item_ids"] if candidates else []),
        *(row["item_id"] for row in ranked),
    }
    items, _ = context.catalogue()
    titles = {
        row[0]: row[1]
        for row in items.where(F.col("item_id").isin(list(wanted))).select("item_id", "title").collect()
    }
    parts: list[Any] = [_history(sequence, titles, user_id, run_date), _ranked(ranked, titles)]
    if candidates:
        parts.append(_lost(candidates, {row["item_id"] for row in ranked}, titles))
    return Group(*parts)


def _one(context: Context, table: str, user_id: str, run_date: date) -> dict[str, Any] | None:
    row = context.tables.read_date(table, run_date).where(F.col("user_id") == user_id).first()
    return None if row is None else row.asDict()


def _history(sequence: dict[str, Any], titles: dict[str, str], user_id: str, run_date: date) -> Table:
    table = _table(
        f"User {user_id} on {run_date}: history ({sequence['num_interactions']} interactions)",
        "day",
        "item",
        "title",
    )
    for item, when in list(zip(sequence["item_ids"], sequence["event_times"], strict=True))[-10:]:
        table.add_row(f"{when:%Y-%m-%d}", Text(item), _title(titles, item))
    return table


def _ranked(rows: list[dict[str, Any]], titles: dict[str, str]) -> Table:
    table = _table(
        "Recommendations",
        "rank",
        "item",
        "title",
        "prob.",
        "score",
        "LLM nats",
        "CF",
        "text",
        "align.",
        "source",
    )
    for row in rows:
        source = row["source"] + (f" ({row['fallback_reason']})" if row["fallback_reason"] else "")
        numbers = [
            _number(row[name])
            for name in ("probability", "score", "llm_logprob", "cf_score", "text_score", "alignment_score")
        ]
        table.add_row(
            str(row["rank"]), Text(row["item_id"]), _title(titles, row["item_id"]), *numbers, source
        )
    return table


def _lost(candidates: dict[str, Any], won: set[str], titles: dict[str, str]) -> Table:
    table = _table("Candidates that lost", "item", "title", "CF", "text", "from")
    rows = zip(
        candidates["item_ids"],
        candidates["cf_scores"],
        candidates["text_scores"],
        candidates["sources"],
        strict=True,
    )
    for item, cf_score, text_score, source in rows:
        if item not in won:
            table.add_row(Text(item), _title(titles, item), _number(cf_score), _number(text_score), source)
    return table


def _table(title: str, *columns: str) -> Table:
    """Return an empty table whose titles alone give way where the terminal is narrow; numbers stand to the right."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        number = column in ("rank", "prob.", "score", "LLM nats", "CF", "text", "align.")
        table.add_column(column, no_wrap=column != "title", justify="right" if number else "left")
    return table


def _title(titles: dict[str, str], item: str) -> Text:
    """Return the title on one line, cut where the terminal ends: a shop's titles can be paragraphs."""
    return Text(titles.get(item, "?"), no_wrap=True, overflow="ellipsis")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
