"""The subject of an evaluation: a bundle, its users and its items."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from allmrec.bundle import Bundle, Manifest, load_bundle
from allmrec.cache import cache_folder
from allmrec.config import Config
from allmrec.data.interactions import counted
from allmrec.data.snapshot import held_out_users, snapshot_uri
from allmrec.data.splits import split
from allmrec.data.user_sequences import first_sightings, ordered_events
from allmrec.errors import ConfigError
from allmrec.evaluation.condition import changes_items, with_items
from allmrec.llm.frozen import FrozenLLM
from allmrec.runtime import bundle_store
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs, day_after_last_event
from allmrec.runtime.night import StepRun
from allmrec.spark import filesystem
from allmrec.spark.literal_paths import read_parquet


@dataclass(frozen=True)
class Evaluated:
    """An evaluation's subject: a bundle, and the users of a shop."""

    context: Context
    """The shop of the users."""
    manifest: Manifest
    """The bundle's manifest, as it was trained."""
    home: Context
    """The shop that the bundle was trained on: the same, or that of `evaluation.trained_on`."""
    cut_off: date
    """Only events before this date are read."""
    inputs: Inputs
    """The input tables of the users."""

    @property
    def is_of_other_shop(self) -> bool:
        """Whether the bundle was trained on another shop."""
        return self.home is not self.context


def evaluated(context: Context, run_date: date | None) -> Evaluated:
    """Return the subject that the settings ask to evaluate.

    Raises BundleError where every bundle has seen the targets, or, with `run_date`, this shop's bundle was
    not trained before that date; ConfigError where the other shop is this one.
    """
    root = context.config.evaluation.trained_on
    if root is None:
        manifest = bundle_store.choose_evaluation_bundle(context, run_date)
        cut_off = date.fromisoformat(manifest.trained_before)
        inputs = Inputs(context, manifest.table_versions, manifest.table_ids)
        return Evaluated(context, manifest, context, cut_off, inputs)
    if root.rstrip("/") == context.tables.root.rstrip("/"):
        raise ConfigError(
            f"evaluation.trained_on: {root}, which is tables.root; expected another shop's, or null"
        )
    home = context.at_root(root)
    manifest = bundle_store.choose_evaluation_bundle(home, None)
    inputs = Inputs.newest(context)
    return Evaluated(context, manifest, home, run_date or day_after_last_event(inputs), inputs)


def bundle_in_use(subject: Evaluated, catalogue: pd.DataFrame, run: StepRun) -> Bundle:
    """Return the bundle under the evaluation's condition.

    Its texts may be spoiled, or its items those of another shop. `catalogue` is the result of `catalogue_of`.
    """
    config = subject.context.config
    bundle_id = subject.manifest.bundle_id
    bundle_store.require_llm(subject.home, bundle_id, run.report)
    bundle = load_bundle(bundle_store.fetch_bundle(subject.home, bundle_id), None)
    if not changes_items(config):
        return bundle
    llm = FrozenLLM.load(config.llm, cache_folder(config.cache), run.report)
    return with_items(bundle, catalogue, config, llm)


def catalogue_of(subject: Evaluated) -> pd.DataFrame:
    """Return item_id, title, description and available of the shop's items.

    They are the items that a bundle of the shop was trained on.
    """
    items = _of_snapshot(subject, "items", "available")
    if items is None:
        items, _ = subject.inputs.catalogue()
    found: pd.DataFrame = items.select("item_id", "title", "description", "available").toPandas()
    return found


def available_in(bundle: Bundle, catalogue: pd.DataFrame) -> np.ndarray:
    """Return which items of a bundle are available in `catalogue_of`, [I+1] bool."""
    ids = catalogue["item_id"][catalogue["available"].to_numpy(dtype=bool)]
    available = np.zeros(bundle.num_items + 1, dtype=bool)
    available[[bundle.index[item] for item in ids if item in bundle.index]] = True
    return available


def evaluated_users(subject: Evaluated, trained: Config, run: StepRun) -> DataFrame:
    """Return (user_id, history, target, seen_before, place) of sampled users.

    They have a held-out item. `place` counts the seeded sample from 1, in the order of the draw. They are
    read from the snapshot of the bundle's training, or, for another shop and for snapshots of older versions,
    from the tables. `trained` is the bundle's configuration. Raises TableError where the versions of the
    training were vacuumed.
    """
    users = _of_snapshot(subject, "targets", "seen_before")
    if users is None:
        users = _users_of_tables(subject, trained, run)
    config = subject.context.config
    drawn = F.sha2(F.concat(F.lit(f"{config.seed}:evaluate:"), "user_id"), 256)
    users = users.withColumn("place", F.row_number().over(Window.orderBy(drawn, "user_id")))
    num_users = config.evaluation.num_users
    return users if num_users is None else users.where(F.col("place") <= num_users)


def _of_snapshot(subject: Evaluated, name: str, column: str) -> DataFrame | None:
    """Return a table of the bundle's snapshot.

    Returns None for another shop's bundle, and if the snapshot lacks the table or its `column`.
    """
    if subject.is_of_other_shop or not _has_in_snapshot(subject, name):
        return None
    table = read_parquet(subject.context.spark, _in_snapshot(subject, name))
    return table if column in table.columns else None


def _has_in_snapshot(subject: Evaluated, name: str) -> bool:
    """Return whether the bundle's snapshot has a table of that name."""
    return filesystem.exists(subject.context.spark, _in_snapshot(subject, name))


def _in_snapshot(subject: Evaluated, name: str) -> str:
    """Return the folder of a table of the bundle's snapshot."""
    return f"{snapshot_uri(subject.context.tables.root, subject.manifest.fingerprint)}/{name}"


def _users_of_tables(subject: Evaluated, trained: Config, run: StepRun) -> DataFrame:
    """Return the rows of a snapshot's targets/, made from the tables."""
    log = subject.inputs.good_interactions(subject.cut_off, run.keep)
    events = ordered_events(counted(log.interactions, trained.sequences), trained.sequences)
    parts = split(events, "evaluation", trained.training.held_back_share, trained.seed)
    users = held_out_users(parts, first_sightings(log.rows), trained.sequences.max_history)
    # Version 0.1.0, whose snapshots lack targets/, trained on both items of users with two.
    is_of_first_version = not (subject.is_of_other_shop or _has_in_snapshot(subject, "targets"))
    return users.where(F.size("history") >= 2) if is_of_first_version else users
