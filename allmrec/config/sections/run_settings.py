"""Settings of runs: Spark, reports, maintenance."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from allmrec.config.sections.section import Count, Section, Text, without_repetition


class MaintenanceConfig(Section):
    """The age of rows, bundles and files that `allmrec maintain` keeps."""

    keep_days: Count | None = 90
    """Run dates that stay, in days back from the newest one; null: all stay."""
    keep_bundles: Count = 3
    """Trained bundles of each purpose that stay, the newest; and whatever a night that stays has used."""
    vacuum_hours: Annotated[int, Field(ge=168)] = 168
    """Hours for which files that only old versions of a table hold stay: more than any run takes. A killed
    night or training can go on for so long."""


class ReportingConfig(Section):
    """Reports of a command while it works."""

    json_lines: bool = False
    """One JSON object per line instead of text: time, run_id, step, run_date and message."""
    listeners: Annotated[tuple[Text, ...], without_repetition("reporting.listeners")] = ()
    """Names of listeners, which hear the start and the end of every step
    ([how to add one](../allmrec/README.md#where-a-new-thing-goes)). An error of one is a reported line."""


class SparkConfig(Section):
    """The Spark session that a command starts; under spark-submit what was submitted wins."""

    master: Text | None = None
    """Master URL; null: the environment's, else `local[*]`. Under spark-submit its own counts."""
    driver_memory: Text = "4g"
    """Memory of the driver's JVM. Under spark-submit its own counts."""
    shuffle_partitions: Count = 8
    """Number of shuffle partitions, where spark-submit was not given one."""
    settings: dict[str, str] = {}
    """Further Spark settings by their Spark names, where spark-submit was not given them."""
