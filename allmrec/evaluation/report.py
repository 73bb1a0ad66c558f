"""Figures of every model in every scenario, with bootstrap intervals and the number of users, as a frame and as text."""

from __future__ import annotations

import numpy as np
import pandas as pd

from allmrec import metrics
from allmrec.config import EvaluationConfig
from allmrec.evaluation.leave_one_out import MODELS, target_ranks
from allmrec.evaluation.scenarios import SCENARIOS, scenario_rows, warm_cold

PER_USER = {
    "Hit@1": lambda ranks: metrics.hit(ranks, 1),
    "HR@5": lambda ranks: metrics.hit(ranks, 5),
    "HR@10": lambda ranks: metrics.hit(ranks, 10),
    "NDCG@5": lambda ranks: metrics.ndcg(ranks, 5),
    "NDCG@10": lambda ranks: metrics.ndcg(ranks, 10),
    "MRR": metrics.mrr,
}

NAMES = {
    "popularity": "popularity",
    "text": "text similarity",
    "cf": "CF model",
    "blend": "blend without LLM",
    "llm": "A-LLMRec",
    "served": "served order",
}

COLUMNS = ["scenario", "model", "metric", "value", "low", "high", "n"]


def results(
    predictions: pd.DataFrame, items: pd.DataFrame, settings: EvaluationConfig, seed: int
) -> pd.DataFrame:
    """Return one row a scenario, model and metric: value, low, high (95 % bootstrap interval) and n, the number of users.

    `predictions` has user_id, target, candidates, model, ranks (of every candidate, from 1), the same users for every model; `items` has item_id
    and num_interactions (in training). The same resamples serve all models. Without users, value, low and high are NaN.
    """
    labels = dict(
        zip(
            items["item_id"],
            warm_cold(items["num_interactions"].to_numpy(), settings.tail_share),
            strict=True,
        )
    )
    present = set(predictions["model"])
    rows = []
    for model in [*(name for name in MODELS if name in present), *sorted(present - set(MODELS))]:
        mine = predictions[predictions["model"] == model].sort_values("user_id", kind="stable")
        ranks = target_ranks(list(mine["candidates"]), list(mine["ranks"]), list(mine["target"]))
        target_labels = np.array([labels.get(target, "cold") for target in mine["target"]], dtype=object)
        for scenario in SCENARIOS:
            kept = ranks[scenario_rows(target_labels, scenario)]
            for metric, per_user in PER_USER.items():
                values = per_user(kept)
                low, high = metrics.bootstrap_interval(values, settings.bootstrap_samples, seed)
                rows.append((scenario, model, metric, metrics.mean(values), low, high, len(kept)))
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"n": "int64"})
    return table.sort_values(
        "scenario", key=lambda column: column.map(SCENARIOS.index), kind="stable", ignore_index=True
    )


def table(frame: pd.DataFrame) -> str:
    """Return the results as text: a block a scenario, a line a model, `value [low, high]` a metric."""
    lines = []
    for scenario, block in frame.groupby("scenario", sort=False):
        metric_names = list(dict.fromkeys(block["metric"]))
        n = int(block["n"].max())
        what = "all users" if scenario == "all" else f"users whose next item is {scenario}"
        lines += [
            f"{what} (n = {n:,}; 95 % bootstrap intervals)",
            f"{'':<20}" + "".join(f"{name:<22}" for name in metric_names),
        ]
        for model, mine in block.groupby("model", sort=False):
            figures = (
                mine.set_index("metric")[["value", "low", "high"]]
                .loc[metric_names]
                .to_numpy(dtype=np.float64)
            )
            cells = [_cell(*figure) for figure in figures]
            lines.append(
                (
                    f"{NAMES.get(str(model), str(model)):<20}" + "".join(f"{cell:<22}" for cell in cells)
                ).rstrip()
            )
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _cell(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
