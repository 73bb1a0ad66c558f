"""Every table: what its rows and columns are, its key, partitioning and constraints.

`README.md` beside it is made from this. Nothing here needs a running Spark.
"""

from __future__ import annotations

from pyspark.sql import types as T

from allmrec.tables.specification import ColumnSpec, Constraint, TableSpec

STRING, DOUBLE, LONG, INT = T.StringType(), T.DoubleType(), T.LongType(), T.IntegerType()
DATE, TIME, BOOLEAN = T.DateType(), T.TimestampType(), T.BooleanType()
STRINGS, DOUBLES, INTS, TIMES = (T.ArrayType(element) for element in (STRING, DOUBLE, INT, TIME))

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

_WRITTEN = T.StructType(
    [
        T.StructField("version", LONG),
        T.StructField("num_rows", LONG),
        T.StructField("digest", STRING),
    ]
)

_RUN_DATE = ColumnSpec("run_date", DATE, "the knowledge cut-off: no event at or after its midnight was read")
_USER_ID = ColumnSpec("user_id", STRING, "the user")

INTERACTIONS = TableSpec(
    "interactions",
    "An event: a user did something with an item.",
    (
        ColumnSpec("user_id", STRING, "who"),
        ColumnSpec("item_id", STRING, "with which item"),
        ColumnSpec("event_time", TIME, "when"),
        ColumnSpec("rating", DOUBLE, "how much the user liked it", required=False),
        ColumnSpec("event_type", STRING, "what the user did, in your words", required=False),
    ),
    key=("user_id", "item_id", "event_time", "event_type"),
    owned=False,
)
ITEMS = TableSpec(
    "items",
    "An item of the catalogue.",
    (
        ColumnSpec("item_id", STRING, "the item"),
        ColumnSpec("title", STRING, "what the LLM reads of it, and what users see"),
        ColumnSpec("description", STRING, "a longer text, for the sentence encoder", required=False),
        ColumnSpec("categories", STRINGS, "its category, from the root to the leaf", required=False),
        ColumnSpec(
            "available", BOOLEAN, "whether it may be recommended; where missing, it may", required=False
        ),
        ColumnSpec(
            "updated_at", TIME, "when the row changed; of two of an item the newer counts", required=False
        ),
    ),
    key=("item_id",),
    owned=False,
)
USERS = TableSpec(
    "users",
    "A user who may have no event yet. The whole table may be missing.",
    (_USER_ID,),
    key=("user_id",),
    owned=False,
)
USER_SEQUENCES = TableSpec(
    "user_sequences",
    "A user's history as of a run date; users without a history have empty arrays.",
    (
        _RUN_DATE,
        _USER_ID,
        ColumnSpec(
            "item_ids", STRINGS, "the newest `sequences.max_history` items, oldest first; ties by a hash"
        ),
        ColumnSpec("event_times", TIMES, "when, one for each item"),
        ColumnSpec("num_interactions", LONG, "events in the whole log that count for the user"),
        ColumnSpec("last_event_time", TIME, "time of the newest of them", required=False),
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
            "no more items than the log has events of the user",
        ),
    ),
)
CANDIDATES = TableSpec(
    "candidates",
    "What was retrieved for a user on a run date; empty arrays where nothing is left to recommend.",
    (
        _RUN_DATE,
        _USER_ID,
        ColumnSpec("item_ids", STRINGS, "the candidates"),
        ColumnSpec(
            "cf_scores", DOUBLES, "the CF model's score of each; null where it knows the item or the user not"
        ),
        ColumnSpec("text_scores", DOUBLES, "cosine of each with the user's last ten items; 0 without any"),
        ColumnSpec("sources", STRINGS, "what found each: `cf`, `text` or `popular`"),
        ColumnSpec(
            "inputs_hash",
            STRING,
            "hash of what scoring reads of the user: trained bundle, history, candidates, texts of both",
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
            "no candidate is there twice",
        ),
    ),
)
RECOMMENDATIONS = TableSpec(
    "recommendations",
    "An item in a user's ranked list of a run date, at most `scoring.top_k` per user.",
    (
        _RUN_DATE,
        _USER_ID,
        ColumnSpec("rank", INT, "place in the list, from 1"),
        ColumnSpec("item_id", STRING, "the item"),
        ColumnSpec("score", DOUBLE, "what orders the list; scores of two users cannot be compared"),
        ColumnSpec(
            "probability",
            DOUBLE,
            "that this candidate is the user's next item: calibrated, and over the items that were not "
            "retrieved too; null for popular lists",
            required=False,
        ),
        ColumnSpec(
            "llm_logprob",
            DOUBLE,
            "the LLM's log-probability of the title in nats, before the prior",
            required=False,
        ),
        ColumnSpec(
            "alignment_score", DOUBLE, "cosine of what the projections make of user and item", required=False
        ),
        ColumnSpec("cf_score", DOUBLE, "the CF model's score, as in `candidates`", required=False),
        ColumnSpec("text_score", DOUBLE, "likeness by text, as in `candidates`", required=False),
        ColumnSpec(
            "source",
            STRING,
            "how the list was ordered: `llm`, `cf` (without the LLM) or "
            "`popular` (nothing of the history is known)",
        ),
        ColumnSpec(
            "fallback_reason",
            STRING,
            "why the list was not ordered as the settings say: `no_history`, `prompt_too_long`, "
            "`out_of_memory`, `non_finite_score`, `no_candidate` (the LLM wrote no candidate's title) or "
            "`deadline`; null where it was",
            required=False,
        ),
        ColumnSpec("bundle_id", STRING, "the model bundle that scored"),
        ColumnSpec("run_id", STRING, "the run that scored the list"),
        ColumnSpec("scored_at", TIME, "when it was scored"),
        ColumnSpec(
            "carried_from",
            DATE,
            "the run date whose list was kept, because nothing that decides it has changed since; "
            "null where the list was scored for this date",
            required=False,
        ),
        ColumnSpec(
            "inputs_hash",
            STRING,
            "hash of all that decides the list, but for whether the LLM was asked; an equal one keeps it",
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
    "A user's e-mail of a run date: the best items that can still be had.",
    (
        _RUN_DATE,
        _USER_ID,
        ColumnSpec(
            "slots",
            _SLOTS,
            "by rank, at most `publish.email_slots`, and at most `publish.max_per_category` of a leaf "
            "category while others are left; `rank` is the one in `recommendations`",
        ),
    ),
    key=("run_date", "user_id"),
    partitioned_by=("run_date",),
)
FEED_RECOMMENDATIONS = TableSpec(
    "feed_recommendations",
    "A user's feed of a run date: all items that can still be had.",
    (_RUN_DATE, _USER_ID, ColumnSpec("slots", _SLOTS, "by rank, at most `scoring.top_k`")),
    key=("run_date", "user_id"),
    partitioned_by=("run_date",),
)
REJECTED_ROWS = TableSpec(
    "rejected_rows",
    "A bad row of an input, kept once however often it is met.",
    (
        ColumnSpec("table", STRING, "`interactions` or `items`: where the row belongs"),
        ColumnSpec("row_hash", STRING, "SHA-256 of `row`"),
        ColumnSpec("reason", STRING, "what is wrong with it, such as `null_user_id` or `exact_duplicate`"),
        ColumnSpec("row", STRING, "the row as JSON"),
        ColumnSpec("step", STRING, "the step that met it first"),
        ColumnSpec("run_id", STRING, "the run that met it first"),
        ColumnSpec("first_seen", TIME, "when it was met first"),
    ),
    key=("table", "row_hash", "reason"),
)
RUNS = TableSpec(
    "runs",
    "A step of a run begins, or ends: on what it ran and with what outcome.",
    (
        ColumnSpec("run_id", STRING, "the run: its start in UTC and eight hexadecimal digits"),
        ColumnSpec("step", STRING, "the step, such as `score`"),
        ColumnSpec(
            "status",
            STRING,
            "`started`; then, in a row of its own, `done` or `failed` (a run that was killed has none)",
        ),
        ColumnSpec("started_at", TIME, "when the step began"),
        ColumnSpec("run_date", DATE, "the run date it worked for", required=False),
        ColumnSpec("finished_at", TIME, "when it ended", required=False),
        ColumnSpec(
            "fingerprint",
            STRING,
            "hash of all that the step's rows depend on; the same again is skipped",
            required=False,
        ),
        ColumnSpec(
            "input_versions",
            T.MapType(STRING, LONG),
            "version of each input table it read, with the table's name or path where that is not ours; "
            "below 0: a table without versions, minus the microseconds since 1970 when the run looked at it",
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
            "figures", T.MapType(STRING, DOUBLE), "what training and evaluation measured", required=False
        ),
        ColumnSpec("message", STRING, "what went wrong", required=False),
        ColumnSpec(
            "run_order",
            LONG,
            "the run's place among those of its date: one with a higher number supersedes it; "
            "nanoseconds since 1970 at its start",
            required=False,
        ),
        ColumnSpec(
            "outputs",
            T.MapType(STRING, _WRITTEN),
            "what it left in each table: a version that holds its rows, their number and the sum of their "
            "hashes",
            required=False,
        ),
        ColumnSpec(
            "gates",
            T.MapType(STRING, DOUBLE),
            "what each rule of the section `gates` measured",
            required=False,
        ),
        ColumnSpec(
            "overridden", STRINGS, "the rules that were broken and overridden by `--override`", required=False
        ),
        ColumnSpec("llm_dtype", STRING, "the number type that the LLM computed in", required=False),
        ColumnSpec(
            "table_ids",
            T.MapType(STRING, STRING),
            "Delta's id of each table that it read or wrote, named as in `input_versions` and `outputs`: "
            "another table at the same path has another id",
            required=False,
        ),
        ColumnSpec(
            "broken",
            STRINGS,
            "the rules of the section `gates` by which a step failed; null in rows of older versions",
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
_EVALUATED = (
    ColumnSpec("bundle_id", STRING, "the evaluated bundle; null in rows of version 0.1.0", required=False),
    ColumnSpec(
        "protocol",
        STRING,
        "what held-out items were ranked among: `retrieved`, `catalogue`, `uniform` or `popular`; "
        "null in rows of version 0.1.0",
        required=False,
    ),
)
EVALUATION_PREDICTIONS = TableSpec(
    "evaluation_predictions",
    "How one model ranks a user's held-out item among others; a bundle's newest evaluation.",
    (
        ColumnSpec(
            "scenario",
            STRING,
            "`leave_one_out`: every user's last item; or the condition under which it was ranked: "
            "`history_3`, `missing_text`, say",
        ),
        ColumnSpec("model", STRING, "the ranker, such as `cf`, `llm` or `served`"),
        _USER_ID,
        ColumnSpec("target", STRING, "the held-out item"),
        ColumnSpec(
            "candidates",
            STRINGS,
            "what was ranked: the retrieved list; the target and the best others of the catalogue; "
            "the target and sampled negatives",
        ),
        ColumnSpec("ranks", INTS, "rank of each candidate, from 1"),
        *_EVALUATED,
        ColumnSpec("target_rank", INT, "rank of the target; null where it was not retrieved", required=False),
        ColumnSpec("num_ranked", INT, "how many candidates were ranked", required=False),
        ColumnSpec(
            "scores", DOUBLES, "the ranker's score of each candidate; null for `catalogue`", required=False
        ),
        ColumnSpec(
            "probabilities",
            DOUBLES,
            "that each candidate is the user's next item; null where the ranker has none",
            required=False,
        ),
    ),
    key=("bundle_id", "protocol", "scenario", "model", "user_id"),
    constraints=(
        Constraint("one_rank_a_candidate", "size(candidates) = size(ranks)", "every candidate has one rank"),
    ),
)
EVALUATION_RESULTS = TableSpec(
    "evaluation_results",
    "A figure of a bundle's newest evaluation.",
    (
        ColumnSpec(
            "scenario",
            STRING,
            "which users: `all`, those whose target is a `warm`, `middle` or `cold` item, or was `found` by "
            "retrieval; `lists`: whole lists, of the sampled users; `history_3/all`, say: under a condition",
        ),
        ColumnSpec("model", STRING, "the ranker, as in `evaluation_predictions`"),
        ColumnSpec("metric", STRING, "the metric's name"),
        ColumnSpec("n", LONG, "number of users"),
        ColumnSpec("value", DOUBLE, "mean over the users", required=False),
        ColumnSpec("low", DOUBLE, "lower end of its 95 % bootstrap interval", required=False),
        ColumnSpec("high", DOUBLE, "upper end of its 95 % bootstrap interval", required=False),
        *_EVALUATED,
    ),
    key=("bundle_id", "protocol", "scenario", "model", "metric"),
)

_INPUTS = (INTERACTIONS, ITEMS, USERS)
_NIGHT = (USER_SEQUENCES, CANDIDATES, RECOMMENDATIONS, EMAIL_RECOMMENDATIONS, FEED_RECOMMENDATIONS)
_RECORDS = (REJECTED_ROWS, RUNS, EVALUATION_PREDICTIONS, EVALUATION_RESULTS)

TABLES: dict[str, TableSpec] = {spec.name: spec for spec in (*_INPUTS, *_NIGHT, *_RECORDS)}
"""Every table by its name."""
