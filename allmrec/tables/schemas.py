"""Every table: its columns, key, partitioning and constraints. Nothing here needs a running Spark.

A column that is not nullable here must be there; a nullable column of an input table may be missing and reads as null.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyspark.sql import types as T

STRING, DOUBLE, LONG, INT = T.StringType(), T.DoubleType(), T.LongType(), T.IntegerType()
DATE, TIME = T.DateType(), T.TimestampType()
STRINGS, DOUBLES, TIMES = T.ArrayType(STRING), T.ArrayType(DOUBLE), T.ArrayType(TIME)


@dataclass(frozen=True)
class TableSpec:
    """One Delta table, a folder `<tables.root>/<name>`."""

    name: str
    schema: T.StructType
    key: tuple[str, ...]
    partitioned_by: tuple[str, ...] = ()
    constraints: dict[str, str] = field(default_factory=dict)
    """CHECK constraints: name → SQL expression."""
    owned: bool = True
    """Whether this program alone writes it. NOT NULL and CHECK are enforced on owned tables only: an input table may hold bad rows."""


def _columns(
    *required: tuple[str, T.DataType], optional: tuple[tuple[str, T.DataType], ...] = ()
) -> T.StructType:
    fields = [T.StructField(name, kind, nullable=False) for name, kind in required]
    return T.StructType(fields + [T.StructField(name, kind, nullable=True) for name, kind in optional])


_SLOTS = T.ArrayType(
    T.StructType(
        [
            T.StructField("rank", INT),
            T.StructField("item_id", STRING),
            T.StructField("title", STRING),
            T.StructField("score", DOUBLE),
            T.StructField("probability", DOUBLE),
            T.StructField("source", STRING),
        ]
    )
)
_SLOT_COLUMNS = (("run_date", DATE), ("user_id", STRING), ("slots", _SLOTS))

_ALL = (
    TableSpec(
        "interactions",
        _columns(
            ("user_id", STRING),
            ("item_id", STRING),
            ("event_time", TIME),
            optional=(("rating", DOUBLE), ("event_type", STRING)),
        ),
        key=("user_id", "item_id", "event_time"),
        owned=False,
    ),
    TableSpec(
        "items",
        _columns(
            ("item_id", STRING),
            ("title", STRING),
            optional=(
                ("description", STRING),
                ("categories", STRINGS),
                ("available", T.BooleanType()),
                ("updated_at", TIME),
            ),
        ),
        key=("item_id",),
        owned=False,
    ),
    TableSpec("users", _columns(("user_id", STRING)), key=("user_id",), owned=False),
    TableSpec(
        "user_sequences",
        _columns(
            ("run_date", DATE),
            ("user_id", STRING),
            ("item_ids", STRINGS),
            ("event_times", TIMES),
            ("num_interactions", LONG),
            optional=(("last_event_time", TIME),),
        ),
        key=("run_date", "user_id"),
        partitioned_by=("run_date",),
        constraints={
            "one_time_an_item": "size(item_ids) = size(event_times)",
            "not_longer_than_the_log": "size(item_ids) <= num_interactions",
        },
    ),
    TableSpec(
        "candidates",
        _columns(
            ("run_date", DATE),
            ("user_id", STRING),
            ("item_ids", STRINGS),
            ("cf_scores", DOUBLES),
            ("text_scores", DOUBLES),
            ("sources", STRINGS),
        ),
        key=("run_date", "user_id"),
        partitioned_by=("run_date",),
        constraints={
            "one_score_an_item": "size(item_ids) = size(cf_scores) AND size(item_ids) = size(text_scores) AND size(item_ids) = size(sources)",
            "distinct_items": "size(array_distinct(item_ids)) = size(item_ids)",
        },
    ),
    TableSpec(
        "recommendations",
        T.StructType(
            [
                T.StructField("run_date", DATE, False),
                T.StructField("user_id", STRING, False),
                T.StructField("rank", INT, False),
                T.StructField("item_id", STRING, False),
                T.StructField("score", DOUBLE, False),
                T.StructField("probability", DOUBLE),
                T.StructField("llm_logprob", DOUBLE),
                T.StructField("alignment_score", DOUBLE),
                T.StructField("cf_score", DOUBLE),
                T.StructField("text_score", DOUBLE),
                T.StructField("source", STRING, False),
                T.StructField("fallback_reason", STRING),
                T.StructField("bundle_id", STRING, False),
                T.StructField("run_id", STRING, False),
                T.StructField("scored_at", TIME, False),
            ]
        ),
        key=("run_date", "user_id", "rank"),
        partitioned_by=("run_date",),
        constraints={
            "rank_from_one": "rank >= 1",
            "finite_score": "NOT isnan(score)",
            "probability_is_one": "probability IS NULL OR (probability >= 0 AND probability <= 1)",
            "known_source": "source IN ('llm', 'cf', 'popular')",
            "popular_has_no_probability": "source <> 'popular' OR probability IS NULL",
        },
    ),
    TableSpec(
        "email_recommendations",
        _columns(*_SLOT_COLUMNS),
        key=("run_date", "user_id"),
        partitioned_by=("run_date",),
    ),
    TableSpec(
        "feed_recommendations",
        _columns(*_SLOT_COLUMNS),
        key=("run_date", "user_id"),
        partitioned_by=("run_date",),
    ),
    TableSpec(
        "rejected_rows",
        _columns(
            ("table", STRING),
            ("row_hash", STRING),
            ("reason", STRING),
            ("row", STRING),
            ("step", STRING),
            ("run_id", STRING),
            ("first_seen", TIME),
        ),
        key=("table", "row_hash", "reason"),
    ),
    TableSpec(
        "runs",
        _columns(
            ("run_id", STRING),
            ("step", STRING),
            ("status", STRING),
            ("started_at", TIME),
            optional=(
                ("run_date", DATE),
                ("finished_at", TIME),
                ("fingerprint", STRING),
                ("input_versions", T.MapType(STRING, LONG)),
                ("bundle_id", STRING),
                ("config_hash", STRING),
                ("counts", T.MapType(STRING, LONG)),
                ("timings", T.MapType(STRING, DOUBLE)),
                ("figures", T.MapType(STRING, DOUBLE)),
                ("message", STRING),
            ),
        ),
        key=("run_id", "step"),
        constraints={"known_status": "status IN ('started', 'done', 'failed')"},
    ),
    TableSpec(
        "evaluation_predictions",
        _columns(
            ("scenario", STRING),
            ("model", STRING),
            ("user_id", STRING),
            ("target", STRING),
            ("candidates", STRINGS),
            ("ranks", T.ArrayType(INT)),
        ),
        key=("scenario", "model", "user_id"),
        constraints={"one_rank_a_candidate": "size(candidates) = size(ranks)"},
    ),
    TableSpec(
        "evaluation_results",
        _columns(
            ("scenario", STRING),
            ("model", STRING),
            ("metric", STRING),
            ("n", LONG),
            optional=(("value", DOUBLE), ("low", DOUBLE), ("high", DOUBLE)),
        ),
        key=("scenario", "model", "metric"),
    ),
)

TABLES: dict[str, TableSpec] = {spec.name: spec for spec in _ALL}
"""Every table by its name."""
