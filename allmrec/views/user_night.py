"""One user's night: history, recommendations with their parts, lost candidates."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pyspark.sql import functions as F
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from allmrec.errors import InputError
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.night import Night

SHOWN_HISTORY = 10
"""Number of items of the history that are shown, the newest."""

NUMBERS = {
    "prob.": "probability",
    "score": "score",
    "LLM nats": "llm_logprob",
    "CF": "cf_score",
    "text": "text_score",
    "align.": "alignment_score",
}
"""Headings of numbers → columns of `recommendations`."""


def latest_run_date(context: Context) -> date:
    """Return the newest run_date with recommendations; raises InputError where there is none."""
    newest = context.tables.read("recommendations").agg(F.max("run_date")).first()
    if newest is None or newest[0] is None:
        raise InputError("recommendations: no row, expected a night; run one (allmrec nightly --run-date …)")
    return newest[0]


def user_night(night: Night, user_id: str) -> Group:
    """Return the user's night as tables for a terminal: history, the best candidates, the others.

    Of `recommendations` the rows of a feed are shown, and those that the e-mail has. Raises InputError where
    the night is missing.
    """
    context = night.context
    run_date = night.run_date
    sequence = _one(night, "user_sequences", user_id)
    candidates = _one(night, "candidates", user_id)
    if sequence is None:
        raise InputError(
            f"user {user_id!r}: not in user_sequences of {run_date}; "
            "expected a user of that night (check the id and --run-date)"
        )
    of_user = (F.col("user_id") == user_id) & (F.col("run_date") == F.lit(run_date))
    rows = context.tables.read("recommendations").where(of_user).orderBy("rank").collect()
    mailed = _slots(night, "email_recommendations", user_id)
    in_feed = _slots(night, "feed_recommendations", user_id)
    num_shown = context.config.publish.feed_slots
    ranked = [row.asDict() for row in rows if row["rank"] <= num_shown or row["item_id"] in mailed]
    recommended = {row["item_id"] for row in ranked}
    shown = recommended.union(sequence["item_ids"], candidates["item_ids"] if candidates else [])
    titles = _titles(Inputs.newest(context), shown)
    places = {item: slot["place"] for item, slot in mailed.items()}
    reasons = {item: _reason(slot) for item, slot in (in_feed | mailed).items()}
    tables: list[Table] = [
        _history(sequence, titles, user_id, run_date),
        _ranked(ranked, titles, places, reasons),
    ]
    if candidates:
        tables.append(_lost(candidates, recommended, titles))
    return Group(*tables)


def _titles(inputs: Inputs, item_ids: set[str]) -> dict[str, str]:
    """Return the titles of the items in the newest catalogue."""
    items, _ = inputs.catalogue()
    rows = items.where(F.col("item_id").isin(list(item_ids))).select("item_id", "title").collect()
    return {row[0]: row[1] for row in rows}


def _slots(night: Night, table: str, user_id: str) -> dict[str, dict[str, Any]]:
    """Return item id → slot of the user, with its `place` from 1; empty where the date is not published."""
    if not night.context.tables.exists(table):
        return {}
    row = _one(night, table, user_id)
    slots = row["slots"] if row else []
    return {slot["item_id"]: {**slot.asDict(), "place": place} for place, slot in enumerate(slots, start=1)}


def _reason(slot: dict[str, Any]) -> str:
    """Return the reason of a slot with the title that it is about; empty in rows of older versions."""
    return " ".join(text for text in (slot["reason"], slot["because_title"]) if text)


def _one(night: Night, table: str, user_id: str) -> dict[str, Any] | None:
    """Return the user's row of a nightly table, or None."""
    rows = night.context.tables.read_date(table, night.run_date)
    row = rows.where(F.col("user_id") == user_id).first()
    return None if row is None else row.asDict()


def _history(sequence: dict[str, Any], titles: dict[str, str], user_id: str, run_date: date) -> Table:
    """Return the table of the user's last `SHOWN_HISTORY` items."""
    num_interactions = sequence["num_interactions"]
    title = f"User {user_id} on {run_date}: history ({num_interactions} interactions)"
    table = _table(title, "day", "item", "title")
    events = list(zip(sequence["item_ids"], sequence["event_times"], strict=True))
    for item, time in events[-SHOWN_HISTORY:]:
        table.add_row(f"{time:%Y-%m-%d}", Text(item), _title(titles, item))
    return table


def _ranked(
    rows: list[dict[str, Any]], titles: dict[str, str], places: dict[str, int], reasons: dict[str, str]
) -> Table:
    """Return the table of the user's recommendations with their slot of the e-mail, parts and reasons."""
    table = _table("Recommendations", "rank", "e-mail", "item", "title", *NUMBERS, "source", "because")
    for row in rows:
        item = row["item_id"]
        source = row["source"] + (f" ({row['fallback_reason']})" if row["fallback_reason"] else "")
        numbers = [_number(row[column]) for column in NUMBERS.values()]
        because = Text(reasons.get(item, ""), no_wrap=True, overflow="ellipsis")
        place = str(places.get(item, ""))
        table.add_row(str(row["rank"]), place, Text(item), _title(titles, item), *numbers, source, because)
    return table


def _lost(candidates: dict[str, Any], recommended: set[str], titles: dict[str, str]) -> Table:
    """Return the table of the candidates that are in neither feed nor e-mail."""
    table = _table("Candidates that lost", "item", "title", "CF", "text", "from")
    columns = (candidates[name] for name in ("item_ids", "cf_scores", "text_scores", "sources"))
    for item, cf_score, text_score, source in zip(*columns, strict=True):
        if item not in recommended:
            table.add_row(Text(item), _title(titles, item), _number(cf_score), _number(text_score), source)
    return table


def _table(title: str, *columns: str) -> Table:
    """Return an empty table with shrinking titles and right-aligned numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in (*NUMBERS, "rank", "e-mail") else "left"
        table.add_column(column, no_wrap=column not in ("title", "because"), justify=justify)
    return table


def _title(titles: dict[str, str], item: str) -> Text:
    """Return the title on one line, truncated by the terminal."""
    return Text(titles.get(item, "?"), no_wrap=True, overflow="ellipsis")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
