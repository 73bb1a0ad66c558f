"""The schemas of the tables of an evaluation."""

from __future__ import annotations

from allmrec.tables.column_types import DOUBLE, DOUBLES, INT, INTS, LONG, STRING, STRINGS, USER_ID
from allmrec.tables.specification import ColumnSpec, Constraint, TableSpec

_EVALUATED = (
    ColumnSpec("bundle_id", STRING, "the evaluated bundle; null in rows of version 0.1.0", required=False),
    ColumnSpec(
        "protocol",
        STRING,
        "what the held-out item was ranked among: `retrieved`, `catalogue`, `uniform` or `popular`; "
        "null in rows of version 0.1.0",
        required=False,
    ),
)
EVALUATION_PREDICTIONS = TableSpec(
    "evaluation_predictions",
    "A model's ranking of a user's held-out item; from a bundle's newest evaluation.",
    (
        ColumnSpec(
            "scenario",
            STRING,
            "`leave_one_out`: every user's last item; else the condition of the evaluation, such as "
            "`history_3` or `missing_text`",
        ),
        ColumnSpec("model", STRING, "the ranker, such as `cf`, `llm` or `served`"),
        USER_ID,
        ColumnSpec("target", STRING, "the held-out item"),
        ColumnSpec(
            "candidates",
            STRINGS,
            "the ranked items: the retrieved list; the target and the best others of the catalogue; "
            "the target and sampled negatives",
        ),
        ColumnSpec("ranks", INTS, "rank of each candidate, from 1"),
        *_EVALUATED,
        ColumnSpec("target_rank", INT, "rank of the target; null if it was not retrieved", required=False),
        ColumnSpec("num_ranked", INT, "number of ranked candidates", required=False),
        ColumnSpec(
            "scores", DOUBLES, "the ranker's score of each candidate; null for `catalogue`", required=False
        ),
        ColumnSpec(
            "probabilities",
            DOUBLES,
            "that each candidate is the user's next item; null for rankers without probabilities",
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
            "the users: `all`, those with a `warm`, `middle` or `cold` target, or with a target that was "
            "`found` by retrieval; `lists`: whole lists of the sampled users; `history_3/all`, say: under a "
            "condition",
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
