"""candidates, user_sequences, bundle → recommendations of a run_date."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from allmrec.bundle import decision_of
from allmrec.config import Config, ScoringConfig, fingerprint
from allmrec.data.columns import midnight
from allmrec.night import gates
from allmrec.night.kept_lists import LastNight, carried_rows, last_night, with_carried
from allmrec.night.waves import CHUNK_USERS_WITHOUT_LLM, STAGED, Waves
from allmrec.parts import reads_llm
from allmrec.ranking.decision import resolved
from allmrec.runtime import bundle_store
from allmrec.runtime.decides import CODE_VERSIONS, decisive_settings
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.night import Finished, Night, Step
from allmrec.runtime.workers import WorkerModel
from allmrec.tables.schemas import TABLES
from allmrec.tables.staging import Staging, staging_of_date

COLUMNS = TABLES["recommendations"].schema.fieldNames()


def run_score(night: Night) -> None:
    """Write `recommendations` of the night's date in one commit.

    Finished chunks of a killed run are not scored again, and unchanged lists are kept. `publish` deletes the
    staged rows, because a newer run of the date may be reading them. Raises InputError where the date has no
    candidates; GateError, before it writes, where a rule of `gates` is broken.
    """
    night = night.with_resolved_dtype()
    candidates = night.done("candidates")
    sequences = night.done("sequences")
    bundle_id = str(candidates.row.bundle_id)
    step = night.step("score", after=candidates, bundle=bundle_id)
    if step.is_there():
        return
    context = night.context
    inputs = Inputs.of_step(candidates)
    with step.recorded(inputs.versions, inputs.table_ids) as run:
        with run.part("bundle", "send the model bundle to the workers, check the LLM"):
            bundle_store.require_llm(context, bundle_id, run.report)
            folder = bundle_store.fetch_bundle(context, bundle_id)
            scoring = resolved(context.config.scoring, decision_of(folder))
            config = context.config.model_copy(update={"scoring": scoring})
            model = WorkerModel.ship(context.spark.sparkContext, folder, bundle_id, config)
        with run.part("score", "let the LLM and the blend order every user's candidates"):
            last = last_night(night)
            users = run.keep(users_to_score(sequences, candidates, scoring, last), StorageLevel.DISK_ONLY)
            scored = Waves(run, model, staging_of(step, last)).rows(users.where("NOT is_carried"))
            rows = run.keep(with_kept_lists(scored, users, last, night.run_date), StorageLevel.DISK_ONLY)
        with run.part("gates", "check that every user has a list, and the rules of `gates`"):
            run.counts = counts(sequences, candidates, rows)
            scored_night = as_scored_night(sequences, candidates, run.counts, rows)
            run.figures = scored_night.shape
            gates.check(run, gates.measure("recommendations", scored_night))
        with run.part("write", "replace the date in one commit"):
            run.replace("recommendations", rows.select(*COLUMNS))
        run.bundle_id = bundle_id


def users_to_score(
    sequences: Finished, candidates: Finished, scoring: ScoringConfig, last: LastNight | None
) -> DataFrame:
    """Return one row per user with at least one candidate.

    A row has the columns of `CandidateLists.from_frame`, last_event_time, inputs_hash (of everything that
    decides the list) and is_carried (whether the list is kept). `scoring` has the order that the bundle's
    decision resolved.
    """
    night = candidates.night
    users = sequences.read("user_sequences").select(
        "user_id", F.col("item_ids").alias("history"), "last_event_time"
    )
    lists = candidates.read("candidates").where(F.size("item_ids") > 0).drop("run_date")
    rows = lists.join(users, "user_id", "inner")
    rows = rows.withColumn("use_llm", uses_llm(scoring, night.run_date))
    inputs_hash = F.sha2(F.concat_ws(":", "inputs_hash", F.lit(settings_of_lists(night.context.config))), 256)
    return with_carried(rows.withColumn("inputs_hash", F.substring(inputs_hash, 1, 16)), last)


def settings_of_lists(config: Config) -> str:
    """Return the fingerprint of code and settings that order a list."""
    settings = decisive_settings("score", config)
    del settings["scoring.active_within_days"]
    return fingerprint(code=CODE_VERSIONS["score"], settings=settings)


def uses_llm(settings: ScoringConfig, run_date: date) -> Column:
    """Return whether the order asks the LLM about a user."""
    if not reads_llm(settings.order):
        return F.lit(False)
    if settings.active_within_days is None:
        return F.size("history") > 0
    since = midnight(run_date) - timedelta(days=settings.active_within_days)
    return F.coalesce(F.col("last_event_time") >= F.lit(since), F.lit(False)) & (F.size("history") > 0)


def staging_of(step: Step, last: LastNight | None) -> Staging:
    """Return the place of this scoring's own staged chunks.

    Its name contains everything that decides the users of a chunk. `--force` scores all users again.
    """
    context = step.night.context
    settings = context.config.scoring
    name = fingerprint(
        mark=step.fingerprint,
        kept=None if last is None else [str(last.run_date), last.digest],
        chunk_users=[settings.chunk_users, CHUNK_USERS_WITHOUT_LLM],
        forced_by=context.run_id if context.options.force else None,
    )
    folder = staging_of_date(context.tables.root, step.night.run_date)
    return Staging(context.spark, f"{folder}/{name}", STAGED)


def with_kept_lists(scored: DataFrame, users: DataFrame, last: LastNight | None, run_date: date) -> DataFrame:
    """Return the rows of `recommendations`: scored tonight, and kept."""
    rows = scored.withColumn("carried_from", F.lit(None).cast("date"))
    if last is not None:
        rows = rows.unionByName(carried_rows(last, users.where("is_carried")))
    return rows.withColumn("run_date", F.lit(run_date)).select(*COLUMNS)


def counts(sequences: Finished, candidates: Finished, rows: DataFrame) -> dict[str, int]:
    """Return the numbers of users: in, out, kept and unservable, with reasons."""
    kept = F.col("carried_from").isNotNull()
    first = rows.where("rank = 1").groupBy("source", "fallback_reason", kept.alias("kept"))
    numbers = {"users_in": sequences.row.outputs["user_sequences"].num_rows, "users_out": 0}
    for group in first.count().collect():
        names = ["users_out", f"source_{group['source']}"]
        names += [f"fallback_{group['fallback_reason']}"] if group["fallback_reason"] else []
        names += ["carried"] if group["kept"] else [f"scored_{group['source']}"]
        for name in names:
            numbers[name] = numbers.get(name, 0) + group["count"]
    reasons = unservable(candidates)
    return numbers | reasons | {"unservable": sum(reasons.values())}


def unservable(candidates: Finished) -> dict[str, int]:
    """Return how many users of the date have no candidate, by reason."""
    counted = candidates.row.counts
    number = counted.get("users_without_candidates", 0)
    reason = "saw_every_item" if counted.get("available_items") else "no_item_available"
    return {f"unservable_{reason}": number} if number else {}


def as_scored_night(
    sequences: Finished, candidates: Finished, numbers: Mapping[str, int], rows: DataFrame
) -> gates.ScoredNight:
    """Return the night as the gates measure it; `numbers` are `counts`."""
    settings = candidates.night.context.config
    unservable_users = candidates.read("candidates").where(F.size("item_ids") == 0)
    users = sequences.read("user_sequences")
    items, _ = Inputs.of_step(candidates).catalogue()
    return gates.ScoredNight(
        rows=rows,
        servable=users.join(unservable_users, "user_id", "left_anti").select("user_id"),
        available=items.where("available"),
        seen=users.select("user_id", "seen_item_ids") if settings.candidates.exclude_seen else None,
        num_slots=min(settings.scoring.top_k, max(settings.publish.feed_slots, settings.publish.email_slots)),
        counts=numbers,
        counts_of_sequences=sequences.row.counts,
        last_shape=gates.last_published(candidates.night),
        is_reranked=bool(settings.scoring.rerankers),
    )
