"""Figures of every ranker in every scenario, with bootstrap intervals and numbers of users."""

from __future__ import annotations

import numpy as np
import pandas as pd

from allmrec import metrics
from allmrec.config import EvaluationConfig
from allmrec.evaluation.leave_one_out import target_ranks
from allmrec.evaluation.scenarios import SCENARIOS, scenario_rows, warm_cold
from allmrec.ranking.rankers import RANKER_NAMES

LABELS = {
    "popularity": "popularity",
    "text": "text similarity",
    "cf": "CF model",
    "alignment": "projections alone",
    "blend": "blend without LLM",
    "llm": "A-LLMRec",
    "served": "served order",
}
"""Ranker → its name in a report; a ranker that is not here is called by its own name."""

COLUMNS = ["scenario", "model", "metric", "value", "low", "high", "n"]


def results(
    predictions: pd.DataFrame, items: pd.DataFrame, settings: EvaluationConfig, seed: int
) -> pd.DataFrame:
    """Return one row per scenario, model and metric: value, low, high (95 % interval) and n (users).

    `predictions` has user_id, target, candidates, model, ranks (of every candidate, from 1), the same users
    for every model; `items` has item_id and num_interactions (in training). The same resamples serve all
    models. Without users, value, low and high are NaN.
    """
    classes = warm_cold(items["num_interactions"].to_numpy(), settings.tail_share)
    class_of_item = dict(zip(items["item_id"], classes, strict=True))
    rows = []
    for model in _in_order(set(predictions["model"])):
        of_model = predictions[predictions["model"] == model].sort_values("user_id", kind="stable")
        ranks = target_ranks(list(of_model["candidates"]), list(of_model["ranks"]), list(of_model["target"]))
        target_classes = np.array(
            [class_of_item.get(target, "cold") for target in of_model["target"]], dtype=object
        )
        for scenario in SCENARIOS:
            ranks_of_scenario = ranks[scenario_rows(target_classes, scenario)]
            for metric, per_user in metrics.PER_USER.items():
                values = per_user(ranks_of_scenario)
                low, high = metrics.bootstrap_interval(values, settings.bootstrap_samples, seed)
                rows.append((scenario, model, metric, metrics.mean(values), low, high, len(values)))
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"n": "int64"})
    return frame.sort_values(
        "scenario", key=lambda column: column.map(SCENARIOS.index), kind="stable", ignore_index=True
    )


def table(frame: pd.DataFrame) -> str:
    """Return the results as text: a block per scenario, a line per model, `value [low, high]` per metric."""
    lines: list[str] = []
    for scenario, block in frame.groupby("scenario", sort=False):
        names = list(dict.fromkeys(block["metric"]))
        users = "all users" if scenario == "all" else f"users whose next item is {scenario}"
        lines.append(f"{users} (n = {int(block['n'].max()):,}; 95 % bootstrap intervals)")
        lines.append(f"{'':<20}" + "".join(f"{name:<22}" for name in names))
        for model, of_model in block.groupby("model", sort=False):
            by_metric = of_model.set_index("metric")[["value", "low", "high"]].loc[names]
            cells = "".join(f"{_cell(*figure):<22}" for figure in by_metric.to_numpy(dtype=np.float64))
            lines.append(f"{LABELS.get(str(model), str(model)):<20}{cells}".rstrip())
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _in_order(models: set[str]) -> list[str]:
    """Return the models in the order of a report, those that are no rankers of ours last."""
    return [*(name for name in RANKER_NAMES if name in models), *sorted(models - set(RANKER_NAMES))]


def _cell(value: float, low: float, high: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
