"""Comparison of two evaluated bundles by the users of both evaluations."""

from __future__ import annotations

import pandas as pd
from pyspark.sql import functions as F

from allmrec import metrics, seeds
from allmrec.errors import InputError
from allmrec.evaluation.comparison import in_words, paired
from allmrec.evaluation.condition import LEAVE_ONE_OUT
from allmrec.evaluation.report import HEADLINE, by_protocol, target_ranks_of
from allmrec.evaluation.words import TITLES
from allmrec.parts import OLD_RANKERS
from allmrec.ranking.rankers import label_of
from allmrec.runtime.context import Context

KEYS = ["protocol", "model", "user_id", "target"]


def compared_bundles(context: Context, first: str, second: str) -> str:
    """Return a comparison of two bundles' rankers, a line per ranker.

    A bundle is an id, or `id/condition`, such as `…/missing_text`. Only stored rows of
    `evaluation_predictions` are compared, of users who have the same held-out item in both. Raises
    InputError, with the known names, for a bundle that was not evaluated, and where the two have no common
    user.
    """
    both = _ranks(context, first).merge(_ranks(context, second), on=KEYS, suffixes=("_first", "_second"))
    if both.empty:
        raise InputError(
            f"{first} and {second} were evaluated on no user with the same held-out item under the same "
            "protocol; evaluate both at one cut-off"
        )
    seed = seeds.derive(context.config.seed, "bootstrap")
    per_user = metrics.PER_USER[HEADLINE]
    lines = [f"bundle {second} against bundle {first}, by the same users"]
    for protocol, by_model in by_protocol(both):
        for model, rows in by_model.items():
            first_N, second_N = (
                per_user(target_ranks_of(rows, f"target_rank_{which}")) for which in ("first", "second")
            )
            words = in_words(HEADLINE, paired(first_N, second_N, metrics.BOOTSTRAP_SAMPLES, seed))
            lines.append(f"{TITLES[protocol]:<20}{label_of(model):<20}{words}")
    return "\n".join(lines) + "\n"


def _ranks(context: Context, name: str) -> pd.DataFrame:
    """Return KEYS and target_rank of an evaluated bundle."""
    bundle_id, _, condition = name.partition("/")
    table = context.tables.read("evaluation_predictions").where(F.col("protocol").isNotNull())
    own = (F.col("bundle_id") == bundle_id) & (F.col("scenario") == (condition or LEAVE_ONE_OUT))
    rows = pd.DataFrame(table.where(own).select(*KEYS, "target_rank").toPandas())
    rows["model"] = rows["model"].replace(OLD_RANKERS)
    if rows.empty:
        known = sorted(_name(*row) for row in table.select("bundle_id", "scenario").distinct().collect())
        raise InputError(
            f"bundle {name}: not in evaluation_predictions, expected one of "
            f"{', '.join(known) or 'none yet'}; evaluate it (allmrec evaluate --set "
            f"bundle.id={bundle_id})"
        )
    return rows


def _name(bundle_id: str, scenario: str) -> str:
    """Return the name of a bundle under a condition."""
    return bundle_id if scenario == LEAVE_ONE_OUT else f"{bundle_id}/{scenario}"
