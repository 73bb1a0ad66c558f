"""One page that a person looks at: an evaluation as a single HTML file without anything from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

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

COLOURS = {
    "popularity": "#9aa0a6",
    "text": "#b58900",
    "cf": "#2a78b5",
    "alignment": "#6c71c4",
    "blend": "#2aa198",
    "llm": "#d33682",
    "llm_floor": "#f0a3c5",
    "with_llm": "#8a3ffc",
    "served": "#1a7f37",
}
BAR_WIDTH, BAR_HEIGHT, LABEL_WIDTH = 420, 20, 150
"""Pixels of a whole bar, of a row of bars, and of the names before them."""
PLOT_WIDTH, PLOT_HEIGHT, MARGIN = 420, 220, 45
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 1000px; margin: 2em auto }
h1 { font-size: 1.6em } h2 { margin-top: 2em; border-bottom: 1px solid #d0d7de } h3 { margin-bottom: .2em }
p.note { color: #57606a; margin: .2em 0 } table { border-collapse: collapse; margin: .5em 0 }
td, th { padding: .15em .7em; text-align: right; border-bottom: 1px solid #eaeef2; white-space: nowrap }
td:first-child, th:first-child { text-align: left } .words td { text-align: left; white-space: normal }
 .user { display: flex; gap: 2em; flex-wrap: wrap }
.better { color: #1a7f37 } .worse { color: #cf222e } .hit { font-weight: 600; color: #1a7f37 }
svg text { font: 12px system-ui, sans-serif; fill: #1f2328 }
"""


def page(
    title: str,
    figures: pd.DataFrame,
    compared: Sequence[tuple[str, str, str, str, Comparison]],
    ranks: pd.DataFrame,
    lists: pd.DataFrame,
    items: pd.DataFrame,
    histories: Mapping[str, Sequence[str]],
    about_lists: Lists,
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    title: what was evaluated.
    figures: rows of `evaluation_results`.
    compared: what `report.comparisons` returns.
    ranks: protocol, model, user_id, target and target_rank of all users.
    lists: rows of `evaluation_predictions` of the sampled users.
    items: item_id, title and num_interactions.
    histories: item ids, oldest first, of the users who are shown as examples.
    about_lists: what the remarks say of the lists.
    """
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    counts = dict(zip(items["item_id"], items["num_interactions"], strict=True))
    parts = [
        f"<h1>{escape(title)}</h1>",
        *_of_protocols(figures, about_lists),
        "<h2>The served order against the others</h2>",
        _comparisons(compared),
        "<h2>Quality against cost</h2>",
        _costs(figures),
        "<h2>By the popularity of the next item</h2>",
        *_by_popularity(ranks, counts),
        "<h2>Do probabilities mean what they say?</h2>",
        *_calibration(lists),
        "<h2>Some users</h2>",
        *_examples(lists, titles, histories),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f"<!doctype html>\n<html><head>{head}</head><body>\n" + "\n".join(parts) + "\n</body></html>\n"


def _of_protocols(figures: pd.DataFrame, about_lists: Lists) -> Iterator[str]:
    """Yield a section per protocol: bars of the headline metric for each group of users, and a table."""
    for protocol, of_protocol in figures.groupby("protocol", sort=False):
        yield f"<h2>{escape(TITLES[str(protocol)]).capitalize()}</h2>"
        for scenario, block in of_protocol.groupby("scenario", sort=False):
            words, (_, group) = users_in_words(str(scenario)), condition_and_group(str(scenario))
            num_users = int(block["n"].max())
            drawn = "" if group == "lists" else f"; bars: {HEADLINE} and its 95 % bootstrap interval"
            yield f'<h3>{escape(words).capitalize()}</h3><p class="note">{num_users:,} users{drawn}</p>'
            if not num_users:
                yield '<p class="note">no user is in this scenario</p>'
                continue
            for remark in remarks(str(protocol), group, about_lists):
                yield f'<p class="note">{escape(remark)}</p>'
            if group != "lists":
                yield _bars(block[block["metric"] == HEADLINE])
            if group in ("all", "found", "lists"):
                names = (SHOWN_OF_LISTS if group == "lists" else SHOWN)[str(protocol)]
                yield _table(block, names)
        is_of_all = of_protocol["scenario"].map(lambda scenario: condition_and_group(scenario)[1] == "all")
        recall = of_protocol[is_of_all & (of_protocol["metric"] == "recall")]
        for row in recall.itertuples():
            yield f'<p class="note">Retrieval finds the next item of {row.value:.1%} of the users.</p>'


def _bars(rows: pd.DataFrame) -> str:
    """Return horizontal bars with intervals."""
    most = max(float(rows["high"].max()), 1e-9)
    scale = BAR_WIDTH / most
    shapes = []
    for place, row in enumerate(rows.itertuples()):
        y, width = place * BAR_HEIGHT, row.value * scale
        middle = y + BAR_HEIGHT / 2
        shapes.append(f'<text x="0" y="{middle + 4}">{escape(LABELS.get(row.model, row.model))}</text>')
        shapes.append(
            f'<rect x="{LABEL_WIDTH}" y="{y + 3}" width="{width:.1f}" height="{BAR_HEIGHT - 6}" '
            f'fill="{COLOURS.get(row.model, "#888")}"/>'
        )
        ends = [LABEL_WIDTH + bound * scale for bound in (row.low, row.high)]
        shapes.append(_line([(ends[0], middle), (ends[1], middle)], "#1f2328"))
        shapes.append(f'<text x="{ends[1] + 6:.1f}" y="{middle + 4}">{row.value:.3f}</text>')
    size = f'width="{LABEL_WIDTH + BAR_WIDTH + 60}" height="{len(rows) * BAR_HEIGHT}"'
    return f'<svg {size} role="img" aria-label="{HEADLINE}">{"".join(shapes)}</svg>'


def _table(block: pd.DataFrame, names: Sequence[str]) -> str:
    """Return the figures of a block as a table, a row per ranker."""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
    lines = []
    for model, of_model in block[block["metric"].isin(names)].groupby("model", sort=False):
        by_metric = of_model.set_index("metric").reindex(list(names))
        cells = "".join(
            f"<td>{_cell(*row)}</td>" for row in by_metric[["value", "low", "high"]].to_numpy(float)
        )
        lines.append(f"<tr><td>{escape(LABELS.get(str(model), str(model)))}</td>{cells}</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _cell(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} <small>[{low:.3f}, {high:.3f}]</small>"


def _comparisons(compared: Sequence[tuple[str, str, str, str, Comparison]]) -> str:
    """Return what may be said of the served order, a row per other ranker."""
    lines = []
    for protocol, scenario, metric, model, one in compared:
        css = one.verdict if one.verdict in ("better", "worse") else ""
        cells = (place_of(protocol, scenario), f"against {LABELS.get(model, model)}", in_words(metric, one))
        lines.append(f'<tr class="{css}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>')
    return f'<table class="words">{"".join(lines)}</table>'


def _by_popularity(ranks: pd.DataFrame, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield the headline metric by the popularity of the target, for each protocol that has users."""
    for protocol, x, lines in by_popularity(ranks, counts):
        yield f"<h3>{escape(TITLES[protocol]).capitalize()}</h3>"
        yield _plot(np.log10(x + 1), lines, [f"{value:,.0f}" for value in x], "interactions in training")


def _costs(figures: pd.DataFrame) -> str:
    """Return a plot of the headline metric of all users against seconds per 1,000 users, a dot per ranker."""
    rows = of_costs(figures)
    if not rows:
        return '<p class="note">no costs: the protocol retrieved was not asked for</p>'
    x = np.log10([max(seconds, 1e-3) for _, seconds, _ in rows])
    top, low, high = max(quality for *_, quality in rows) or 1.0, x.min(), x.max()
    axes = [(MARGIN, 10), (MARGIN, 10 + PLOT_HEIGHT), (MARGIN + PLOT_WIDTH, 10 + PLOT_HEIGHT)]
    shapes, ticks = [_line(axes, "#8c959f")], []
    for place, ((model, seconds, quality), one) in enumerate(zip(rows, x, strict=True)):
        across = MARGIN + 8 + (one - low) / (high - low) * (PLOT_WIDTH - 16) if high > low else MARGIN + 8
        down = 10 + (1 - quality / top) * PLOT_HEIGHT
        colour = COLOURS.get(model, "#888")
        shapes.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="5" fill="{colour}"/>')
        y = 20 + place * 18
        label = f"{LABELS.get(model, model)}: {quality:.3f}, {seconds:,.1f} s"
        shapes.append(f'<circle cx="{PLOT_WIDTH + 80}" cy="{y - 4}" r="5" fill="{colour}"/>')
        shapes.append(f'<text x="{PLOT_WIDTH + 96}" y="{y}">{escape(label)}</text>')
        ticks.append((across, f"{seconds:,.1f}"))
    shapes += _labels(top, sorted(ticks), f"{COST}; upwards {HEADLINE} of all users")
    size = f'width="{PLOT_WIDTH + 340}" height="{PLOT_HEIGHT + 52}"'
    return f'<svg {size} role="img" aria-label="{HEADLINE} by {COST}">{"".join(shapes)}</svg>'


def _calibration(lists: pd.DataFrame) -> Iterator[str]:
    """Yield, by bins of equally many candidates, the mean probability and the share that came true."""
    rows = calibration(lists)
    if not rows:
        yield '<p class="note">no probabilities: the protocol retrieved was not asked for</p>'
        return
    head = "<tr><th></th><th>stated</th><th>came true</th><th>candidates</th></tr>"
    cells = "".join(
        f"<tr><td>{escape(LABELS[model])}</td><td>{mean:.2%}</td><td>{share:.2%}</td><td>{num:,}</td></tr>"
        for model, mean, share, num in rows
    )
    yield f"<table>{head}{cells}</table>"


def _examples(
    lists: pd.DataFrame, titles: Mapping[str, str], histories: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Yield some users: what they had, what came next, and the first five by the blend and as served."""
    for one in examples(lists, histories):
        had = "".join(f"<li>{escape(titles.get(item, item))}</li>" for item in one.had)
        came = f"then came <b>{escape(titles.get(one.came, one.came))}</b>"
        blocks = [f"<div>had, oldest first<ul>{had}</ul>{came}</div>"]
        for model, order in one.lists.items():
            cells = "".join(
                f'<li class="{"hit" if item == one.came else ""}">{escape(titles.get(item, item))}</li>'
                for item in order
            )
            blocks.append(f"<div>{escape(LABELS[model])}<ol>{cells}</ol></div>")
        yield f"<h3>{escape(one.user_id)}</h3>"
        yield f'<div class="user">{"".join(blocks)}</div>'


def _plot(x: np.ndarray, lines: Mapping[str, np.ndarray], ticks: Sequence[str], what: str) -> str:
    """Return lines over x, a tick below every point."""
    low, high = float(x.min()), float(x.max())
    top = max(max(float(values.max()) for values in lines.values()), 1e-9)

    def at(one: float, value: float) -> tuple[float, float]:
        along = (one - low) / (high - low) if high > low else 0.5
        return MARGIN + along * PLOT_WIDTH, 10 + (1 - value / top) * PLOT_HEIGHT

    shapes = [_line([at(low, 0), at(high, 0)], "#8c959f")]
    places = [at(float(one), 0)[0] for one in x]
    shapes += _labels(top, list(zip(places, ticks, strict=True)), what)
    for place, (model, values) in enumerate(lines.items()):
        points = [at(float(one), float(value)) for one, value in zip(x, values, strict=True)]
        shapes.append(_line(points, COLOURS[model]))
        y = 20 + place * 18
        shapes.append(_line([(PLOT_WIDTH + 70, y - 4), (PLOT_WIDTH + 90, y - 4)], COLOURS[model]))
        shapes.append(f'<text x="{PLOT_WIDTH + 96}" y="{y}">{escape(LABELS[model])}</text>')
    size = f'width="{PLOT_WIDTH + 230}" height="{PLOT_HEIGHT + 52}"'
    return f'<svg {size} role="img" aria-label="{HEADLINE} by {escape(what)}">{"".join(shapes)}</svg>'


def _labels(top: float, ticks: Sequence[tuple[float, str]], what: str) -> Iterator[str]:
    """Yield the texts around a plot: its upper end, 0, ticks from left to right, and what lies along it.

    A tick that would cover the one before is left out.
    """
    yield f'<text x="0" y="20">{top:.2f}</text>'
    yield f'<text x="0" y="{PLOT_HEIGHT + 14}">0</text>'
    last = -np.inf
    for place, tick in ticks:
        if place - last > 10 * len(tick):
            yield f'<text x="{place:.1f}" y="{PLOT_HEIGHT + 28}" text-anchor="middle">{tick}</text>'
            last = place
    yield f'<text x="{MARGIN}" y="{PLOT_HEIGHT + 46}">{escape(what)}</text>'


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>'
