"""The schema of every table: rows, columns, key, partitioning and constraints.

`README.md` of this folder is generated from it. The module needs no running Spark.
"""

from __future__ import annotations

from pyspark.sql import types as T

from allmrec.tables.column_types import (
    BOOLEAN,
    DATE,
    DOUBLE,
    DOUBLES,
    INT,
    LONG,
    STRING,
    STRINGS,
    TIME,
    TIMES,
    USER_ID,
)
from allmrec.tables.evaluation_schemas import EVALUATION_PREDICTIONS, EVALUATION_RESULTS
from allmrec.tables.specification import ColumnSpec, Constraint, TableSpec

ITEM_VALUES = T.ArrayType(T.StructType([T.StructField("name", STRING), T.StructField("value", STRING)]))
"""Columns of an item as names and texts: one type for any names, with an order and a hash, unlike a map."""
_SLOTS = T.ArrayType(
    T.StructType(
        [
            T.StructField("rank", INT),
            T.StructField("item_id", STRING),
            T.StructField("title", STRING),
            T.StructField("score", DOUBLE),
            T.StructField("probability", DOUBLE),
            T.StructField("source", STRING),
            T.StructField("item", ITEM_VALUES),
            T.StructField("because_item_id", STRING),
            T.StructField("because_title", STRING),
            T.StructField("reason", STRING),
            T.StructField("rule", STRING),
        ]
    )
)
_ITEM = "`item` has the columns of `items` that `publish.item_columns` names, as texts; null without names"
_REASON = (
    "`reason` is a template: `similar to`, `often bought after`, `bought before`, `popular` or `new in the "
    "shop`. The first three are about an item of the history (`because_item_id`, `because_title`), the one "
    "that is most like the slot by text and by the CF model; null in rows of older versions"
)
_RULE = "`rule` is the rule of `publish.rules` that pins, boosts or buries the item; null without one"

_WRITTEN = T.StructType(
    [
        T.StructField("version", LONG),
        T.StructField("num_rows", LONG),
        T.StructField("digest", STRING),
    ]
)

_RUN_DATE = ColumnSpec("run_date", DATE, "the knowledge cut-off: only events before its midnight were read")

INTERACTIONS = TableSpec(
    "interactions",
    "An event: a user did something with an item.",
    (
        ColumnSpec("user_id", STRING, "the user"),
        ColumnSpec("item_id", STRING, "the item"),
        ColumnSpec("event_time", TIME, "time of the event"),
        ColumnSpec("rating", DOUBLE, "the user's rating of the item", required=False),
        ColumnSpec("event_type", STRING, "the kind of event, in your words", required=False),
    ),
    key=("user_id", "item_id", "event_time", "event_type"),
    owned=False,
)
ITEMS = TableSpec(
    "items",
    "An item of the catalogue.",
    (
        ColumnSpec("item_id", STRING, "the item"),
        ColumnSpec("title", STRING, "the title, for the LLM and for users"),
        ColumnSpec("description", STRING, "a longer text, for the sentence encoder", required=False),
        ColumnSpec("categories", STRINGS, "its category, from the root to the leaf", required=False),
        ColumnSpec(
            "available", BOOLEAN, "whether it may be recommended; a missing value means yes", required=False
        ),
        ColumnSpec(
            "updated_at", TIME, "when the row changed; the newest row of an item counts", required=False
        ),
    ),
    key=("item_id",),
    owned=False,
)
USERS = TableSpec(
    "users",
    "A user who may have no event yet. The whole table may be missing.",
    (USER_ID,),
    key=("user_id",),
    owned=False,
)
USER_SEQUENCES = TableSpec(
    "user_sequences",
    "A user's history as of a run date; users without a history have empty arrays.",
    (
        _RUN_DATE,
        USER_ID,
        ColumnSpec(
            "item_ids", STRINGS, "the newest `sequences.max_history` items, oldest first; ties by a hash"
        ),
        ColumnSpec("event_times", TIMES, "time of each item's event"),
        ColumnSpec("num_interactions", LONG, "number of the user's valid events in the whole log"),
        ColumnSpec("last_event_time", TIME, "time of the newest of these events", required=False),
        ColumnSpec(
            "seen_item_ids",
            STRINGS,
            "every item in the user's rows of the whole log, rejected ones too; null from an older version",
            required=False,
        ),
    ),
    key=("run_date", "user_id"),
    partitioned_by=("run_date",),
    constraints=(
        Constraint(
            "one_time_an_item",
            "size(item_ids) = size(event_times)",
            "every item has one time",
        ),
        Constraint(
            "not_longer_than_the_log",
            "size(item_ids) <= num_interactions",
            "the log has at least as many events of the user",
        ),
    ),
)
CANDIDATES = TableSpec(
    "candidates",
    "The candidates of a user on a run date; empty arrays if no item is left to recommend.",
    (
        _RUN_DATE,
        USER_ID,
        ColumnSpec("item_ids", STRINGS, "the candidates"),
        ColumnSpec(
            "cf_scores", DOUBLES, "the CF model's score of each; null if the model lacks the item or the user"
        ),
        ColumnSpec(
            "text_scores", DOUBLES, "cosine of each with the user's last ten items; 0 without a history"
        ),
        ColumnSpec("sources", STRINGS, "how each was found: `cf`, `text` or `popular`"),
        ColumnSpec(
            "inputs_hash",
            STRING,
            "hash of the user's inputs of scoring: trained bundle, history, candidates, texts of both",
            required=False,
        ),
    ),
    key=("run_date", "user_id"),
    partitioned_by=("run_date",),
    constraints=(
        Constraint(
            "one_score_an_item",
            "size(item_ids) = size(cf_scores) AND size(item_ids) = size(text_scores) "
            "AND size(item_ids) = size(sources)",
            "every candidate has one CF score, one text score and one source",
        ),
        Constraint(
            "distinct_items",
            "size(array_distinct(item_ids)) = size(item_ids)",
            "candidates are distinct",
        ),
    ),
)
RECOMMENDATIONS = TableSpec(
    "recommendations",
    "An item in a user's ranked list of a run date, at most `scoring.top_k` per user.",
    (
        _RUN_DATE,
        USER_ID,
        ColumnSpec("rank", INT, "place in the list, from 1"),
        ColumnSpec("item_id", STRING, "the item"),
        ColumnSpec(
            "score",
            DOUBLE,
            "relevance, by which the list is ordered unless `scoring.rerankers` are set; scores of two users "
            "cannot be compared",
        ),
        ColumnSpec(
            "probability",
            DOUBLE,
            "that this candidate is the user's next item: calibrated over all items, retrieved or not; null "
            "for popular lists",
            required=False,
        ),
        ColumnSpec(
            "llm_logprob",
            DOUBLE,
            "the LLM's log-probability of the title in nats, before the prior",
            required=False,
        ),
        ColumnSpec(
            "score_without_llm",
            DOUBLE,
            "relevance by the blend without the LLM, by which the arm `without_llm` is ordered; null from an "
            "older version",
            required=False,
        ),
        ColumnSpec("alignment_score", DOUBLE, "cosine of the projections of user and item", required=False),
        ColumnSpec("cf_score", DOUBLE, "the CF model's score, as in `candidates`", required=False),
        ColumnSpec("text_score", DOUBLE, "similarity by text, as in `candidates`", required=False),
        ColumnSpec(
            "source",
            STRING,
            "how the list was ordered: `llm`, `cf` (without the LLM) or `popular` (without a known history)",
        ),
        ColumnSpec(
            "fallback_reason",
            STRING,
            "why the list was ordered otherwise than the settings ask: `no_history`, `prompt_too_long`, "
            "`out_of_memory`, `non_finite_score`, `no_candidate` (the LLM wrote no candidate's title) or "
            "`deadline`; null if it was not",
            required=False,
        ),
        ColumnSpec("bundle_id", STRING, "the model bundle that scored"),
        ColumnSpec("run_id", STRING, "the run that scored the list"),
        ColumnSpec("scored_at", TIME, "when it was scored"),
        ColumnSpec(
            "carried_from",
            DATE,
            "the run date whose list was kept, because its inputs are unchanged; "
            "null if the list was scored for this date",
            required=False,
        ),
        ColumnSpec(
            "inputs_hash",
            STRING,
            "hash of the list's inputs, except whether the LLM was asked; a list with an equal hash is kept",
            required=False,
        ),
    ),
    key=("run_date", "user_id", "rank"),
    partitioned_by=("run_date",),
    constraints=(
        Constraint("rank_from_one", "rank >= 1", "ranks begin at 1"),
        Constraint("finite_score", "NOT isnan(score)", "the score is a number"),
        Constraint(
            "probability_is_one",
            "probability IS NULL OR (probability >= 0 AND probability <= 1)",
            "a probability is between 0 and 1",
        ),
        Constraint(
            "known_source", "source IN ('llm', 'cf', 'popular')", "the source is one of those named below"
        ),
        Constraint(
            "popular_has_no_probability",
            "source <> 'popular' OR probability IS NULL",
            "popular lists have no probability",
        ),
    ),
)
EMAIL_RECOMMENDATIONS = TableSpec(
    "email_recommendations",
    "A user's e-mail of a run date: relevant available items that are unlike each other.",
    (
        _RUN_DATE,
        USER_ID,
        ColumnSpec(
            "slots",
            _SLOTS,
            "at most `publish.email_slots`, chosen from all rows of `recommendations`: by `rank`, the one "
            "there, items that were in one of the last `publish.not_again_days` days after the others. One "
            "title is there once. Near-duplicates, such items, items like bought ones "
            "(`publish.not_like_last_days`) and more of a kind than `publish.max_per` come only where "
            "nothing else is left. A pinned item that the user's recommendations lack has neither rank nor "
            "score. Users who are no recipients, or in the arm `control`, have no row; "
            f"{_ITEM}; {_REASON}; {_RULE}",
        ),
        ColumnSpec("arm", STRING, "the user's arm of `publish.arms`; null without arms", required=False),
    ),
    key=("run_date", "user_id"),
    partitioned_by=("run_date",),
)
FEED_RECOMMENDATIONS = TableSpec(
    "feed_recommendations",
    "A user's feed of a run date: the best available items.",
    (
        _RUN_DATE,
        USER_ID,
        ColumnSpec(
            "slots",
            _SLOTS,
            "by rank, at most `publish.feed_slots`; items that a feed had in the last "
            "`publish.feed_not_again_days` after the others, then items like bought ones "
            "(`publish.not_like_last_days`), and buried ones last; empty in the arm `control`; "
            f"{_ITEM}; {_REASON}; {_RULE}",
        ),
        ColumnSpec("arm", STRING, "the user's arm of `publish.arms`; null without arms", required=False),
    ),
    key=("run_date", "user_id"),
    partitioned_by=("run_date",),
)
REJECTED_ROWS = TableSpec(
    "rejected_rows",
    "A bad row of an input, stored once.",
    (
        ColumnSpec("table", STRING, "the row's table: `interactions` or `items`"),
        ColumnSpec("row_hash", STRING, "SHA-256 of `row`"),
        ColumnSpec("reason", STRING, "the fault, such as `null_user_id` or `exact_duplicate`"),
        ColumnSpec("row", STRING, "the row as JSON"),
        ColumnSpec("step", STRING, "the step that rejected it first"),
        ColumnSpec("run_id", STRING, "the run that rejected it first"),
        ColumnSpec("first_seen", TIME, "when it was rejected first"),
    ),
    key=("table", "row_hash", "reason"),
)
RUNS = TableSpec(
    "runs",
    "The start or the end of a step of a run, with its inputs and its outcome.",
    (
        ColumnSpec("run_id", STRING, "the run: its start in UTC and eight hexadecimal digits"),
        ColumnSpec("step", STRING, "the step, such as `score`"),
        ColumnSpec(
            "status",
            STRING,
            "`started`; at the end a second row with `done` or `failed` (a killed run has none)",
        ),
        ColumnSpec("started_at", TIME, "when the step began"),
        ColumnSpec("run_date", DATE, "the run date it worked for", required=False),
        ColumnSpec("finished_at", TIME, "when it ended", required=False),
        ColumnSpec(
            "fingerprint",
            STRING,
            "hash of everything that decides the step's rows; a step with an equal hash is skipped",
            required=False,
        ),
        ColumnSpec(
            "input_versions",
            T.MapType(STRING, LONG),
            "version of each input table, with the table's name or path if it is not ours; "
            "below 0: a table without versions, minus the microseconds since 1970 when the run read it",
            required=False,
        ),
        ColumnSpec("bundle_id", STRING, "the model bundle it used or made", required=False),
        ColumnSpec(
            "config_hash", STRING, "hash of the configuration without `spark.settings`", required=False
        ),
        ColumnSpec(
            "counts",
            T.MapType(STRING, LONG),
            "users in and out, by source, by fallback, unservable by reason; rejected rows",
            required=False,
        ),
        ColumnSpec("timings", T.MapType(STRING, DOUBLE), "seconds per part of the step", required=False),
        ColumnSpec(
            "figures", T.MapType(STRING, DOUBLE), "figures of trainings and evaluations", required=False
        ),
        ColumnSpec("message", STRING, "the error", required=False),
        ColumnSpec(
            "run_order",
            LONG,
            "the run's number among those of its date: a run with a higher number supersedes it; "
            "nanoseconds since 1970 at its start",
            required=False,
        ),
        ColumnSpec(
            "outputs",
            T.MapType(STRING, _WRITTEN),
            "the rows in each written table: a version that contains them, their number and the sum of their "
            "hashes",
            required=False,
        ),
        ColumnSpec(
            "gates",
            T.MapType(STRING, DOUBLE),
            "the figure that each rule of the section `gates` measured",
            required=False,
        ),
        ColumnSpec(
            "overridden", STRINGS, "the rules that were broken and overridden by `--override`", required=False
        ),
        ColumnSpec("llm_dtype", STRING, "the number type that the LLM computed in", required=False),
        ColumnSpec(
            "table_ids",
            T.MapType(STRING, STRING),
            "Delta's id of each table that was read or written, named as in `input_versions` and `outputs`: "
            "another table at the same path has another id",
            required=False,
        ),
        ColumnSpec(
            "broken",
            STRINGS,
            "the rules of the section `gates` that made the step fail; null in rows of older versions",
            required=False,
        ),
    ),
    key=("run_id", "run_date", "step", "status"),
    constraints=(
        Constraint(
            "known_status",
            "status IN ('started', 'done', 'failed')",
            "the status is one of those named below",
        ),
    ),
)
_INPUTS = (INTERACTIONS, ITEMS, USERS)
_NIGHT = (USER_SEQUENCES, CANDIDATES, RECOMMENDATIONS, EMAIL_RECOMMENDATIONS, FEED_RECOMMENDATIONS)
_RECORDS = (REJECTED_ROWS, RUNS, EVALUATION_PREDICTIONS, EVALUATION_RESULTS)

TABLES: dict[str, TableSpec] = {spec.name: spec for spec in (*_INPUTS, *_NIGHT, *_RECORDS)}
"""Every table by its name."""
