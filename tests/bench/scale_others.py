"""What other programs take for the work of a night's steps, for `bench_scale`, as one JSON object.

    python -m tests.bench.scale_others TABLES

ALS (`pyspark.ml`): one iteration to have factors as wide as the CF model's, then `recommendForAllUsers` of as
many items as there are candidates, written to Parquet; items seen are not left out. DuckDB: one query from
the files of the log to Parquet files of sequences; nothing is checked. The same query by Spark.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from deltalake import DeltaTable
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import Config, load
from allmrec.spark.session import create_session
from tests.bench.scale_shop import settings

QUERY = """
    SELECT user_id, list(item_id ORDER BY event_time, item_id)[-{newest}:] AS item_ids,
        list(event_time ORDER BY event_time, item_id)[-{newest}:] AS event_times,
        count(*) AS num_interactions, max(event_time) AS last_event_time
    FROM read_parquet({files}) GROUP BY user_id
"""


def main(root: Path) -> None:
    """Print (seconds, CPU seconds) by what was done."""
    config = load([], settings(root))
    files = [uri.removeprefix("file://") for uri in DeltaTable(str(root / "interactions")).file_uris()]
    seconds = {}
    with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
        seconds["duckdb_sequences"] = timed(lambda: by_duckdb(files, config, Path(scratch)))
        session = create_session(config.spark, "scale_others")
        log = session.read.parquet(*files)
        log.select(F.max("event_time")).collect()  # the session is warm, as that of a night is
        seconds["spark_sequences"] = timed(lambda: by_spark(log, config, f"{scratch}/spark"))
        seconds |= by_als(session, log, config, f"{scratch}/als")
        session.stop()
        shutil.rmtree(f"{scratch}/als")
    print(json.dumps(seconds))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall seconds of a piece of work, and the CPU seconds of this process and its children."""
    started, cpu = time.monotonic(), cpu_seconds()
    work()
    return time.monotonic() - started, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Return what this process and those that it started have computed so far."""
    own = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in [own, *own.children(recursive=True)])


def by_duckdb(files: list[str], config: Config, scratch: Path) -> None:
    """Write sequences with DuckDB, on all cores, as it is without settings."""
    try:
        import duckdb
    except ImportError:
        sys.exit("bench_scale compares with DuckDB, which is not installed; pip install duckdb")
    query = QUERY.format(newest=config.sequences.max_history, files=files)
    duckdb.sql(f"COPY ({query}) TO '{scratch / 'duckdb.parquet'}' (FORMAT parquet)")


def by_spark(log: DataFrame, config: Config, folder: str) -> None:
    """Write the same sequences with Spark."""
    events = F.sort_array(F.collect_list(F.struct("event_time", "item_id"))).alias("events")
    rows = log.groupBy("user_id").agg(
        events, F.count(F.lit(1)).alias("num_interactions"), F.max("event_time").alias("last_event_time")
    )
    newest = F.slice(
        "events",
        F.greatest(F.size("events") - config.sequences.max_history + 1, F.lit(1)),
        config.sequences.max_history,
    )
    rows = rows.withColumn("events", newest)
    rows.select(
        "user_id", "events.item_id", "events.event_time", "num_interactions", "last_event_time"
    ).write.parquet(folder)


def by_als(session: SparkSession, log: DataFrame, config: Config, folder: str) -> dict[str, tuple]:
    """Return the times of one iteration, and of everybody's best items written to `folder`."""
    number = {name: F.substring(name, 6, 12).cast("int").alias(name) for name in ("user_id", "item_id")}
    ratings = log.select(*number.values(), F.lit(1.0).alias("rating"))
    als = ALS(rank=config.cf.width, maxIter=1, implicitPrefs=True, userCol="user_id", itemCol="item_id")
    session.conf.set("spark.sql.ansi.enabled", "false")  # its matrix of products overflows ints else
    fitted: list[ALSModel] = []
    fit = timed(lambda: fitted.append(als.fit(ratings)))
    best = fitted[0].recommendForAllUsers(config.candidates.num_candidates)
    return {"als_fit": fit, "als_recommend": timed(lambda: best.write.parquet(folder))}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
