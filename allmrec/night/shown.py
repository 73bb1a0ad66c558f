"""What e-mails and feeds of earlier dates showed: our own table is the log of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.runtime.night import Night
from allmrec.runtime.runs import RunRow, as_run_row, sort_key
from allmrec.tables.delta import digests_by_date


@dataclass(frozen=True)
class Shown:
    """The rows of a table in the days before a run date, at one version."""

    night: Night
    table: str
    num_days: int
    """Days before the run date; 0: nothing counts."""
    version: int | None
    """The version that is read; None where there is nothing to read."""

    @classmethod
    def before(cls, night: Night, table: str, num_days: int) -> Shown:
        """Return the rows of the newest version. Later dates than the run date do not count."""
        version = night.context.tables.newest(table) if num_days else None
        return cls(night, table, num_days, version)

    def items(self) -> DataFrame | None:
        """Return (user_id, item_id, shown), every pair once; None where nothing is read.

        `shown` is 1 for the earliest of the days and `num_days` for the day before the run date.
        """
        if self.version is None:
            return None
        slots = self._rows().select("user_id", "run_date", F.explode("slots.item_id").alias("item_id"))
        days_ago = F.date_diff(F.lit(self.night.run_date), F.col("run_date"))
        return slots.groupBy("user_id", "item_id").agg(F.max(self.num_days + 1 - days_ago).alias("shown"))

    def marks(self) -> Mapping[str, str]:
        """Return by date what decided its rows: the fingerprint of the step that wrote them.

        An erasure of a user leaves it as it is. Rows that no step has recorded are marked by their digest.
        """
        if self.version is None:
            return {}
        records = self._records()
        found = {}
        for day, rows in digests_by_date(self._rows()).items():
            record = records.get(str(day))
            is_recorded = record is not None and tuple(record.outputs[self.table][1:]) == rows
            found[str(day)] = str(record.fingerprint) if record and is_recorded else rows[1]
        return found

    def versions(self) -> Mapping[str, int]:
        """Return the version that is read by table, for `runs.input_versions`."""
        return {} if self.version is None else {self.table: self.version}

    def _rows(self) -> DataFrame:
        first = self.night.run_date - timedelta(days=self.num_days)
        rows = self.night.context.tables.read(self.table, self.version)
        return rows.where(
            F.col("run_date").between(F.lit(first), F.lit(self.night.run_date - timedelta(days=1)))
        )

    def _records(self) -> dict[str, RunRow]:
        """Return the newest record of a publishing that is done, by date."""
        context = self.night.context
        first = self.night.run_date - timedelta(days=self.num_days)
        rows = context.tables.read("runs").where("step = 'publish' AND status = 'done'")
        rows = rows.where(F.col("run_date").between(F.lit(first), F.lit(self.night.run_date)))
        found = sorted((as_run_row(row.asDict()) for row in rows.collect()), key=sort_key)
        return {str(row.run_date): row for row in found}
