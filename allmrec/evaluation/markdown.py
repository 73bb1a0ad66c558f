"""An evaluation as Markdown, which a terminal shows as well: the same as the page, with tables for bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from allmrec.evaluation.comparison import Comparison
from allmrec.evaluation.condition import condition_and_group
from allmrec.evaluation.list_figures import calibration
from allmrec.evaluation.report import (
    COST,
    HEADLINE,
    LABELS,
    SHOWN,
    SHOWN_OF_LISTS,
    TITLES,
    Lists,
    by_popularity,
    examples,
    in_words,
    of_costs,
    place_of,
    remarks,
    users_in_words,
)


def tables(figures: pd.DataFrame, lists: Lists) -> str:
    """Return the results as text: a table per protocol and scenario, a line per ranker, with intervals."""
    lines: list[str] = []
    for (protocol, scenario), block in figures.groupby(["protocol", "scenario"], sort=False):
        _, group = condition_and_group(scenario)
        names = (SHOWN_OF_LISTS if group == "lists" else SHOWN)[protocol]
        about = f"{TITLES[protocol]}, {users_in_words(scenario)}"
        lines += [f"## {about} (n = {int(block['n'].max()):,}; 95 % bootstrap intervals)", ""]
        notes = remarks(protocol, group, lists) if block["n"].max() else ["No user is in this scenario."]
        recall = block[block["metric"] == "recall"][["value", "low", "high"]].to_numpy(dtype=np.float64)
        if len(recall) and group != "found":
            notes.append(f"{LABELS['retrieval']}: {_cell(*recall[0])}")
        lines += [line for note in notes for line in (note, "")]
        rows = []
        for model, of_model in block[block["metric"].isin(names)].groupby("model", sort=False):
            by_metric = of_model.set_index("metric")[["value", "low", "high"]].reindex(list(names))
            cells = [_cell(*figure) for figure in by_metric.to_numpy(dtype=np.float64)]
            rows.append([LABELS.get(str(model), str(model)), *cells])
        lines += [*_table(["", *names], rows), ""]
    return "\n".join(lines)


def comparison_lines(found: Sequence[tuple[str, str, str, str, Comparison]]) -> str:
    """Return comparisons of the served order as text, a line each; empty where it ordered nothing."""
    rows = [
        [place_of(protocol, scenario), LABELS.get(model, model), in_words(metric, one)]
        for protocol, scenario, metric, model, one in found
    ]
    if not rows:
        return ""
    heading = "## the served order against the others, by the same users"
    return "\n".join([heading, "", *_table(["", "against", ""], rows), ""])


def by_popularity_lines(ranks: pd.DataFrame, counts: Mapping[str, int]) -> str:
    """Return the headline metric by the popularity of the target; see `report.by_popularity`."""
    lines: list[str] = []
    for protocol, popularity_P, by_model in by_popularity(ranks, counts):
        lines += [f"## {TITLES[protocol]}, {HEADLINE} by the popularity of the next item", ""]
        rows = [
            [f"{popularity:,.1f}", *(f"{values[place]:.3f}" for values in by_model.values())]
            for place, popularity in enumerate(popularity_P)
        ]
        lines += [*_table(["interactions", *(LABELS[model] for model in by_model)], rows), ""]
    return "\n".join(lines)


def calibration_lines(lists: pd.DataFrame) -> str:
    """Return stated probabilities beside what came true; empty where no list has any."""
    rows = [
        [LABELS[model], f"{stated:.2%}", f"{true:.2%}", f"{num:,}"]
        for model, stated, true, num in calibration(lists)
    ]
    if not rows:
        return ""
    heading = "## do probabilities mean what they say?"
    return "\n".join([heading, "", *_table(["", "stated", "came true", "candidates"], rows), ""])


def cost_lines(figures: pd.DataFrame) -> str:
    """Return quality against cost on retrieved lists; empty where they were not asked for."""
    rows = [
        [LABELS.get(model, model), f"{seconds:,.1f}", f"{quality:.3f}"]
        for model, seconds, quality in of_costs(figures)
    ]
    if not rows:
        return ""
    return "\n".join(["## quality against cost", "", *_table(["", COST, HEADLINE], rows), ""])


def example_lines(
    lists: pd.DataFrame, titles: Mapping[str, str], histories: Mapping[str, Sequence[str]]
) -> str:
    """Return some users: what they had, what came next, and the first five by the blend and as served."""
    lines = []
    for one in examples(lists, histories):
        had = "; ".join(titles.get(item, item) for item in one.had)
        lines += [f"## {one.user_id}", "", f"- had, oldest first: {had}"]
        lines.append(f"- then came: {titles.get(one.came, one.came)}")
        for model, order in one.lists.items():
            named = (
                f"**{titles.get(item, item)}**" if item == one.came else titles.get(item, item)
                for item in order
            )
            lines.append(f"- {LABELS[model]}: {'; '.join(named)}")
        lines.append("")
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, its columns as wide as their widest cells."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for cells in (head, ["-" * width for width in widths], *rows):
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        yield f"| {' | '.join(padded)} |"


def _cell(value: float, low: float, high: float) -> str:
    """Return a figure with its interval, where it has one."""
    if np.isnan(value):
        return "–"
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
