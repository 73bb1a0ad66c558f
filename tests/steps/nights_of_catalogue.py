"""Nights on a shop's own tables in a Hive metastore (on Derby), read by name; run as a process of its own.

`python -m tests.steps.nights_of_catalogue FOLDER` writes what came of them to FOLDER/found.json. FOLDER holds
a copy of the small shop; its input tables become tables of the metastore, under other names and types.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from allmrec.config import SparkConfig
from allmrec.errors import UserError
from allmrec.reporting import Report
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs, source_of
from allmrec.runtime.night import Night
from allmrec.spark.session import create_session
from allmrec.steps.nightly import run_nightly
from allmrec.steps.sequences import run_sequences
from allmrec.views import doctor
from tests.conftest import QUICK_SQL, SHORT_RUNS
from tests.steps.conftest import RUN_DATE, asked, small_config

NUMBER = "try_cast(regexp_extract(user_id, '^user-(.+)$', 1) AS BIGINT)"
"""A customer's number: that in the demo shop's `user-00758`; null for its odd ones."""
IN_PLACE = [
    "tables.schema_name=lists",
    "tables.interactions.table=spark_catalog.sales.orders",
    "tables.interactions.columns={user_id: customer, item_id: sku, event_time: ordered_at, rating: stars}",
    "tables.interactions.where=status <> 'cancelled'",
    "tables.items.table=sales.products",
    "tables.items.columns={item_id: sku, title: name, categories: shelves, available: buyable}",
    "tables.users.table=sales.customers",
    "tables.users.columns={user_id: number}",
]


def session(folder: Path) -> SparkSession:
    """Start Spark with a metastore in `folder`."""
    java = f"{SHORT_RUNS} -Dderby.system.durability=test -Dderby.stream.error.file={folder / 'derby.log'}"
    metastore = {
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.hadoop.javax.jdo.option.ConnectionURL": f"jdbc:derby:{folder / 'db'};create=true",
        "spark.driver.extraJavaOptions": java,
    }
    settings = {**QUICK_SQL, **metastore}
    return create_session(SparkConfig(master="local[2]", shuffle_partitions=2, settings=settings))


def move_inputs(spark: SparkSession, root: Path) -> None:
    """Make the shop's input tables tables of the metastore; every order was cancelled once before."""
    spark.sql("CREATE DATABASE sales")
    spark.sql("CREATE DATABASE lists")
    spark.sql(
        f"CREATE TABLE sales.orders USING delta AS SELECT {NUMBER} AS customer, item_id AS sku, "
        "CAST(event_time AS TIMESTAMP_NTZ) AS ordered_at, CAST(rating AS DECIMAL(4,1)) AS stars, "
        f"'web' AS channel, explode(array('paid', 'cancelled')) AS status FROM delta.`{root}/interactions`"
    )
    spark.sql(
        "CREATE TABLE sales.products STORED AS PARQUET AS SELECT item_id AS sku, title AS name, description, "
        f"categories AS shelves, CAST(available AS INT) AS buyable FROM delta.`{root}/items`"
    )
    for name in ("interactions", "items", "users"):
        (root / name).rename(root.parent / f"former_{name}")
    users = f"delta.`{root.parent}/former_users`"
    spark.sql(f"CREATE VIEW sales.customers AS SELECT {NUMBER} AS number FROM {users}")


def histories(context: Context, run_date: dt.date, user: str = "user_id") -> dict[str, list[Any]]:
    """Return every user's items and times of a date; `user` says in SQL what they are called."""
    rows = context.tables.read_date("user_sequences", run_date).selectExpr(
        f"string({user}) AS user", "item_ids", "CAST(event_times AS ARRAY<STRING>)"
    )
    return {row[0]: [row[1], row[2]] for row in rows.where("user IS NOT NULL").collect()}


def refusals(context: Context) -> dict[str, str]:
    """Return the lines with which wrong settings end, and `nothing` where something was written."""
    lines = {}
    for wrong in (
        "tables.schema_name=list",
        "tables.items.table=sales.product",
        "tables.items.columns={item_id: sku, title: label}",
        "tables.interactions.where=state = 'paid'",
        "tables.interactions.columns={rating: ordered_at}",
    ):
        before = context.tables.newest("runs")
        config = small_config(Path(context.tables.root), *IN_PLACE, wrong)
        try:
            run_nightly(Context.open(context.spark, config, Report()), RUN_DATE + dt.timedelta(days=9))
        except UserError as error:
            lines[wrong.partition("=")[0]] = str(error)
        assert context.tables.newest("runs") == before
    return lines


def nights(spark: SparkSession, root: Path) -> dict[str, Any]:
    """Run nights before and after new events, and return what came of them."""
    found: dict[str, Any] = {}
    said: list[str] = []
    config = small_config(root, *IN_PLACE)
    context = Context.open(spark, config, Report(said.append))
    found["expected"] = histories(context, RUN_DATE, NUMBER)
    found["doctor"] = [list(check) for check in doctor._inputs(context)]
    run_nightly(context, RUN_DATE)
    found["first"] = histories(context, RUN_DATE)
    found["said"] = list(said)
    row = Night(context, RUN_DATE).done("score").row
    found["versions"], found["counts"] = dict(row.input_versions), dict(row.counts)
    found["items"] = [row[0] for row in spark.table("sales.products").select("sku").collect()]
    of_night = spark.table("lists.recommendations").where(f"run_date = '{RUN_DATE}'")
    found["recommended"] = [row[0] for row in of_night.select("item_id").distinct().collect()]
    found["named"] = [row["tableName"] for row in spark.sql("SHOW TABLES IN lists").collect()]

    before = dt.datetime.now(dt.timezone.utc)
    customer, sku = min(found["first"]), min(found["items"])
    found["customer"], found["sku"] = customer, sku
    for time in (f"{RUN_DATE - dt.timedelta(days=1)} 23:59:59", f"{RUN_DATE} 00:00:00"):
        event = f"({customer}, '{sku}', TIMESTAMP_NTZ'{time}', 5.0, 'web', 'paid')"
        spark.sql(f"INSERT INTO sales.orders VALUES {event}")
    orders = source_of(context, "interactions")
    found["at"] = [orders.version_at(before), orders.version_at(dt.datetime.now(dt.timezone.utc))]
    said.clear()
    run_nightly(asked(context), RUN_DATE)
    found["rerun"] = list(said)
    found["events"] = [
        inputs.interactions().where(f"user_id = '{customer}' AND item_id = '{sku}'").count()
        for inputs in (Inputs.pinned(Night(context, RUN_DATE), "sequences"), Inputs.newest(context))
    ]
    run_sequences(Night(asked(context), RUN_DATE + dt.timedelta(days=1)))
    found["next"] = histories(context, RUN_DATE + dt.timedelta(days=1))
    found["refusals"] = refusals(context)
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    spark = session(folder)
    move_inputs(spark, folder / "tables")
    (folder / "found.json").write_text(json.dumps(nights(spark, folder / "tables"), default=str))
