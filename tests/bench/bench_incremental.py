"""A night in which a tenth of the users changed, against a full one, in one run.

    python -m tests.bench.bench_incremental TABLES CONFIG RUN_DATE [NUM_USERS] [SECTION.KEY=VALUE …]

TABLES holds an imported shop and a serving bundle trained before RUN_DATE. The LLM reads everybody
(`scoring.active_within_days: null`). First the log is cut to a seeded sample of NUM_USERS users (default:
all), in a new version of `interactions`. Then three nights, each a command of its own: RUN_DATE in full; the
day after, with a new event for a tenth of the users; the day after that, with nothing new. Their wall times
and ratios are printed, and checked is that the LLM read exactly those who changed, and that all others kept
their lists.
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd
from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from allmrec.config import SparkConfig
from allmrec.spark.session import create_session
from tests.steps.reading import rows

CHANGED_SHARE = 0.1


def main(root: Path, config: str, run_date: date, num_users: int | None, settings: list[str]) -> None:
    """Run, time, check and print."""
    sets = [
        f"tables.root={root}",
        "scoring.active_within_days=null",
        "scoring.order=blend_with_llm",
        *settings,
    ]
    command = ["nightly", "--config", config, *(part for value in sets for part in ("--set", value))]
    with_spark(lambda spark: keep_sample(spark, root, num_users))
    seconds = [timed("full night", [*command, "--run-date", str(run_date), "--refresh"])]
    days = [run_date + timedelta(days=number) for number in (1, 2)]
    changed = with_spark(lambda spark: let_a_tenth_buy(spark, root, run_date))
    for day, label in zip(days, ("a tenth changed", "nothing changed"), strict=True):
        seconds.append(timed(label, [*command, "--run-date", str(day)]))
    full = scored_and_kept(root, run_date)
    for day, label, expected in zip(
        days, ("a tenth changed", "nothing changed"), (changed, set()), strict=True
    ):
        scored, kept = scored_and_kept(root, day)
        assert scored == expected, f"{label}: {len(scored)} scored, {len(expected)} changed"
        assert scored | kept == full[0] | full[1], f"{label}: users are lost"
        print(f"{label}: {len(scored):,} users scored, {len(kept):,} lists kept")
    print(f"users: {len(full[0] | full[1]):,}; a tenth / full: {seconds[1] / seconds[0]:.3f}; ", end="")
    print(f"nothing / full: {seconds[2] / seconds[0]:.3f}")


def with_spark(work):  # type: ignore[no-untyped-def]
    """Return what `work` returns for a session that ends before the next night begins."""
    session = create_session(SparkConfig(), "bench")
    try:
        return work(session)
    finally:
        session.stop()


def keep_sample(spark: SparkSession, root: Path, num_users: int | None) -> None:
    """Cut the log to `num_users` users, those whose ids hash lowest."""
    if num_users is None:
        return
    log = DeltaTable.forPath(spark, str(root / "interactions"))
    users = log.toDF().select("user_id").distinct().orderBy(F.sha2("user_id", 256)).limit(num_users)
    kept = [row[0] for row in users.collect()]
    log.delete(~F.col("user_id").isin(kept))


def let_a_tenth_buy(spark: SparkSession, root: Path, run_date: date) -> set[str]:
    """Append an event at noon of `run_date` for a tenth of its users: the first item recommended to them."""
    found = rows(root, "recommendations", run_date=str(run_date))
    first = found[found["rank"] == 1].sort_values("user_id")
    chosen = first.sample(frac=CHANGED_SHARE, random_state=7)
    noon = datetime.combine(run_date, datetime.min.time()) + timedelta(hours=12)
    events = [(user, item, noon) for user, item in zip(chosen["user_id"], chosen["item_id"], strict=True)]
    frame = spark.createDataFrame(events, "user_id string, item_id string, event_time timestamp")
    frame.write.format("delta").mode("append").save(str(root / "interactions"))
    return set(chosen["user_id"])


def scored_and_kept(root: Path, day: date) -> tuple[set[str], set[str]]:
    """Return the users whose lists were scored on a day, and those whose lists were kept."""
    first: pd.DataFrame = rows(root, "recommendations", run_date=str(day)).query("rank == 1")
    kept = first["carried_from"].notna()
    return set(first[~kept]["user_id"]), set(first[kept]["user_id"])


def timed(label: str, command: list[str]) -> float:
    """Run an `allmrec` command, print and return its wall seconds."""
    started = time.monotonic()
    subprocess.run([str(Path(sys.executable).with_name("allmrec")), *command], check=True)
    seconds = time.monotonic() - started
    print(f"{label}: {seconds:.0f} s", flush=True)
    return seconds


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    numbers = [int(argument) for argument in sys.argv[4:] if argument.isdigit()]
    main(
        Path(sys.argv[1]).resolve(),
        sys.argv[2],
        date.fromisoformat(sys.argv[3]),
        numbers[0] if numbers else None,
        [argument for argument in sys.argv[4:] if "=" in argument],
    )
