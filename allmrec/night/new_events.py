"""New rows of the log since an earlier night.

New rows were added since, or have times between the two cut-offs. Some users are read whole: rows of theirs
were changed or deleted, or items of theirs came into the catalogue or left it.
"""

from __future__ import annotations

from datetime import date
from functools import reduce
from typing import NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.data import interactions as events
from allmrec.data import items as catalogue
from allmrec.data.in_place import as_ours, is_lasting, read_in_place
from allmrec.data.rejection import row_values, split_rejected
from allmrec.errors import UserError
from allmrec.runtime.inputs import Inputs, source_of, step_of_sequences
from allmrec.runtime.night import Finished, Night, StepRun
from allmrec.runtime.runs import RunRow
from allmrec.spark.troubles import first_line
from allmrec.tables.sources import Changes


class CannotAdvance(Exception):
    """The sequences of no earlier night can be advanced. The message is the reason."""


class New(NamedTuple):
    """The changes of the inputs since an earlier night."""

    since: date
    """The date of the earlier night."""
    record: RunRow
    """The record of its sequences."""
    last: DataFrame
    """Its rows of `user_sequences`, without users who are read whole."""
    log: DataFrame
    """Rows of the raw log: the new rows, and all rows of users who are read whole."""
    known: DataFrame | None
    """Distinct older rows that new rows with earlier times repeat. None if there are none."""
    rebuilt: DataFrame | None
    """The users who are read whole (user_id); None if there are none."""


def whats_new(inputs: Inputs, run: StepRun) -> New:
    """Return the changes of `inputs` since the newest night before the run's.

    Raises CannotAdvance where that night has no sequences by the same settings and code, or the changes since
    are unknown.
    """
    run_date = run.night.run_date
    before = _night_before(inputs, run.night)
    since = before.night.run_date
    old = Inputs.of_step(before)
    last = before.read("user_sequences")
    new = inputs.interactions_between(since, run_date)
    known = None
    try:
        changes = _changes(old, inputs)
        if changes is not None:
            late = run.keep(_late(inputs, changes, since))
            # Older versions, or added files, may be missing. The sequences are then built from the whole log.
            first = late.agg(F.min("event_time").cast("date")).collect()[0][0]
            new = new.unionByName(late)
            if first is not None:
                earlier = old.interactions_between(first, since).select(*events.COLUMNS)
                known = run.keep(earlier.intersect(late.select(*events.COLUMNS)))
                known.count()
        rebuilt = _users_to_rebuild(old, inputs, changes, new, last)
        rebuilt = None if rebuilt is None else run.keep(rebuilt.distinct())
        if rebuilt is None or rebuilt.isEmpty():
            return New(since, before.row, last, new, known, None)
    except (PySparkException, Py4JJavaError, UserError) as error:
        raise CannotAdvance(f"what changed since {since} cannot be read: {first_line(error)}") from error
    others = [frame.join(rebuilt, "user_id", "left_anti") for frame in (last, new)]
    whole = inputs.log_to_check(run_date).join(rebuilt, "user_id", "left_semi")
    known = None if known is None else known.join(rebuilt, "user_id", "left_anti")
    return New(since, before.row, others[0], others[1].unionByName(whole), known, rebuilt)


def _night_before(inputs: Inputs, night: Night) -> Finished:
    """Return the sequences of the newest earlier night. Raises CannotAdvance where they do not fit."""
    if night.context.options.force:
        raise CannotAdvance("--force is given")
    newest = night.before("sequences")
    if newest is None:
        raise CannotAdvance("there is no earlier night")
    since = newest.run_date
    try:
        before = newest.done("sequences")
    except UserError as error:
        raise CannotAdvance(str(error)) from error
    old = Inputs.of_step(before)
    if step_of_sequences(newest, old).fingerprint != before.row.fingerprint:
        raise CannotAdvance(f"the night of {since} had other settings, tables or code")
    for name in ("interactions", "items"):
        source = source_of(night.context, name)
        if old.table_ids.get(source.key) != inputs.table_ids.get(source.key):
            raise CannotAdvance(f"{source.place} is another table than in the night of {since}")
        if not 0 <= old.versions[source.key] <= inputs.versions[source.key]:
            raise CannotAdvance(f"{name} has no versions, or the night of {since} read a newer one")
        if not is_lasting(source):
            raise CannotAdvance(f"what tables.{name}.where lets in changes with the time")
    return before


def _changes(old: Inputs, new: Inputs) -> Changes | None:
    """Return the changes of the log, or None. Raises CannotAdvance where they are unknown."""
    log = source_of(new.context, "interactions")
    versions = old.versions[log.key], new.versions[log.key]
    if versions[0] == versions[1]:
        return None
    if not log.has_same_columns(*versions):
        raise CannotAdvance(f"columns of {log.place} were renamed, or dropped and added, since")
    changes = log.changes(*versions)
    if changes is None:
        raise CannotAdvance(
            f"rows of {log.place} were changed or deleted since, and its change data feed is off"
        )
    return changes


def _late(inputs: Inputs, changes: Changes, since: date) -> DataFrame:
    """Return added rows with a time before the earlier cut-off, or none."""
    log = source_of(inputs.context, "interactions")
    return events.rows_before_or_untimed(as_ours(log, changes.added, before=since), since)


def _users_to_rebuild(
    old: Inputs, inputs: Inputs, changes: Changes | None, new: DataFrame, last: DataFrame
) -> DataFrame | None:
    """Return (user_id) of users whose older rows read otherwise now.

    Returns None if no change of the inputs can have caused it.
    """
    users = inputs.users()
    items = _items_come_and_gone(old, inputs)
    found = []
    if changes is not None and changes.changed is not None:
        found.append(as_ours(source_of(inputs.context, "interactions"), changes.changed))
    if items is not None:
        saw = last.select("user_id", F.explode("seen_item_ids").alias("item_id"))
        found.append(saw.join(items, "item_id", "left_semi"))
    if inputs.context.tables.exists("rejected_rows"):
        # Rejected rows that count as seen may belong to users who are missing in `last`.
        everyone = [new.select("user_id"), *([] if users is None else [users.select("user_id")])]
        ids = reduce(DataFrame.union, everyone).join(last, "user_id", "left_anti")
        rejected = inputs.context.tables.read("rejected_rows").where("table = 'interactions'")
        found.append(_named_with(rejected, ids if items is None else ids.union(items)))
    key = source_of(inputs.context, "users").key
    pins = [(one.versions.get(key), one.table_ids.get(key)) for one in (old, inputs)]
    if key in old.versions and pins[0] != pins[1]:
        # Users without events came from the table `users`, which they may have left, or have only rejected
        # events.
        idle = last.where((F.col("num_interactions") == 0) & (F.size("seen_item_ids") > 0))
        found.append(idle if users is None else idle.join(users, "user_id", "left_anti"))
    return reduce(DataFrame.union, [frame.select("user_id") for frame in found]) if found else None


def _items_come_and_gone(old: Inputs, new: Inputs) -> DataFrame | None:
    """Return (item_id) of good items in only one of two catalogues."""
    source = source_of(new.context, "items")
    if old.versions[source.key] == new.versions[source.key]:
        return None
    now = new.catalogue()[0].select("item_id")
    rows = catalogue.tagged_items(read_in_place(source, old.versions[source.key]))
    before = split_rejected(rows, "items", catalogue.COLUMNS)[0].select("item_id")
    return now.subtract(before).union(before.subtract(now))


def _named_with(rejected: DataFrame, ids: DataFrame) -> DataFrame:
    """Return (user_id): all values of rejected rows with one of the ids."""
    values = rejected.select("row_hash", F.explode(row_values()).alias("user_id"))
    named = ids.toDF("user_id")
    hashes = values.join(named, "user_id", "left_semi").select("row_hash")
    return values.join(hashes, "row_hash", "left_semi").where(F.col("user_id").isNotNull())
