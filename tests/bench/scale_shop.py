"""A shop of any size for `bench_scale`: log, catalogue and a bundle of the right shapes, nothing trained.

    python -m tests.bench.scale_shop TABLES NUM_USERS NUM_ITEMS [more]

With `more` only the events of RUN_DATE are appended, one of every tenth user. Every user has `EVENTS` events
in the `DAYS` days before RUN_DATE; the k-th item is had about 1/k times as often as the first (Zipf). The
bundle's weights and text embeddings are random: a night's work does not depend on what they say, but for
which items it finds.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.bundle import Bundle, FittedOrder, assemble_bundle, save_bundle
from allmrec.cache import cache_folder
from allmrec.config import Config, load
from allmrec.data.columns import midnight
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.prompt import PromptLayout
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import build_cf_model
from allmrec.models.text_encoder import TextEncoder
from allmrec.ranking.blend import BlendWeights
from allmrec.spark.session import create_session
from allmrec.tables.delta import Tables
from allmrec.tables.schemas import TABLES
from tests.unit.tiny_bundle import states_of

RUN_DATE = date(2026, 6, 1)
EVENTS, DAYS, SECONDS = 10, 60, 86_400
VERSION = 1
"""Of `interactions`, when it was created and written."""
DESCRIPTION = (
    "A thing like many others, described at some length, as shops do, so that texts weigh something. " * 5
)


def main(root: Path, num_users: int, num_items: int) -> None:
    """Write the tables and the bundle below `root`."""
    config = load([], settings(root))
    session = create_session(config.spark, "scale_shop")
    tables = Tables(session, config.tables.root)
    items = catalogue(num_items)
    schema = T.StructType(TABLES["items"].schema.fields[:4])
    write(tables, "items", session.createDataFrame(items[schema.fieldNames()], schema))
    write(tables, "interactions", log(session, num_users, num_items))
    counts: pd.DataFrame = tables.read("interactions").groupBy("item_id").count().toPandas()
    session.stop()
    counts = counts.set_index("item_id")["count"].reindex(items["item_id"], fill_value=0)
    save(random_bundle(items.assign(num_interactions=counts.to_numpy()), config), root)


def add_a_day(root: Path, num_users: int, num_items: int) -> None:
    """Append the events of RUN_DATE, unless they are there."""
    config = load([], settings(root))
    session = create_session(config.spark, "scale_shop")
    tables = Tables(session, config.tables.root)
    rows = log(session, num_users, num_items).where(F.xxhash64("user_id") % 10 == 0)
    rows = rows.dropDuplicates(["user_id"]).withColumn(
        "event_time", F.lit(midnight(RUN_DATE)) + F.expr("INTERVAL 9 HOURS")
    )
    if tables.version("interactions") == VERSION:
        write(tables, "interactions", rows)
    session.stop()


def settings(root: Path) -> list[str]:
    """Return the settings of all commands on the shop below `root`, as they are given to `--set`."""
    return [f"tables.root={root}", f"cache.folder={root.parent / 'cache'}", "scoring.order=blend_without_llm"]


def catalogue(num_items: int) -> pd.DataFrame:
    """Return items 1..num_items, the most popular one first."""
    numbers = range(1, num_items + 1)
    return pd.DataFrame({
        "item_idx": np.arange(1, num_items + 1, dtype=np.int32),
        "item_id": [f"item-{number:07d}" for number in numbers],
        "title": [f"Folding chair of model {number}" for number in numbers],
        "description": [f"{DESCRIPTION}Number {number}." for number in numbers],
        "categories": [["Outdoor", f"Shelf {number % 50}"] for number in numbers],
    })  # fmt: skip


def log(session: SparkSession, num_users: int, num_items: int) -> DataFrame:
    """Return the rows of `interactions`; they follow from the two numbers alone."""
    rows = session.range(num_users * EVENTS)
    drawn = F.pmod(F.xxhash64("id", F.lit("item")), F.lit(2**52)) / 2**52
    # P(number ≤ k) = ln(k + 1) / ln(num_items + 1)
    number = F.floor(F.pow(F.lit(num_items + 1.0), drawn)).cast("int")
    ago = F.pmod(F.xxhash64("id", F.lit("time")), F.lit(DAYS * SECONDS)) + 1
    moment = F.timestamp_seconds(F.lit(int(midnight(RUN_DATE).timestamp())) - ago)
    # A user's events lie apart, as in any log.
    user = (F.col("id") % num_users).cast("string")
    return rows.select(
        F.concat(F.lit("user-"), F.lpad(user, 9, "0")).alias("user_id"),
        F.concat(F.lit("item-"), F.lpad(number.cast("string"), 7, "0")).alias("item_id"),
        moment.alias("event_time"),
    )


def write(tables: Tables, name: str, rows: DataFrame) -> None:
    """Append rows to an input table, which is created first."""
    tables.create(name)
    rows.write.format("delta").mode("append").save(tables.path(name))


def random_bundle(items: pd.DataFrame, config: Config) -> Bundle:
    """Return a bundle of these items with random weights, the widths those of the settings and of their LLM.

    `items` has item_idx, item_id, title, description and num_interactions.
    """
    cache = cache_folder(config.cache)
    llm, encoder = FrozenLLM.load(config.llm, cache), TextEncoder.load(config.text_encoder, cache)
    known = torch.tensor([False, *(items["num_interactions"] > 0)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        width = len(encoder.encode(["a text"])[0])
        texts = torch.nn.functional.normalize(torch.randn(len(items) + 1, width), dim=1)
        texts[0] = 0.0
        cf = build_cf_model(config.cf, len(items), config.sequences.max_history)
        cf.set_known(known)
        alignment = AlignmentNetworks(config.cf.width, width, config.stage1)
        rec = ALLMRec.create(cf, alignment, texts, known, llm, config.stage2)
    layout = PromptLayout.of(config.prompt, llm)
    titles = layout.tokenise_titles(items["title"].tolist(), config.prompt.title_tokens)
    priors = np.zeros(len(items) + 1, dtype=np.float32)
    bundle = assemble_bundle(states_of(rec, titles, priors), config, items, llm, encoder)
    blend = BlendWeights({"cf": 0.6, "text": 0.1, "alignment": 0.3}, 0.0, 0.5, 0)
    # Nobody asks the LLM.
    return bundle.with_state(FittedOrder(None, {"with_llm": blend, "without_llm": blend}))


def save(bundle: Bundle, root: Path) -> None:
    """Write the bundle as one for nights from `DAYS` before RUN_DATE on."""
    origin = {"purpose": "serving", "trained_before": "2026-04-01", "fingerprint": "random"}
    save_bundle(root / "_bundles", bundle, origin)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    (main if len(sys.argv) == 4 else add_a_day)(
        Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3])
    )
