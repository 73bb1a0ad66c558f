"""An evaluation as Markdown, with tables in place of plots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from allmrec.evaluation import words
from allmrec.evaluation.content import Content, Group
from allmrec.evaluation.examples import Example
from allmrec.evaluation.list_figures import Bin
from allmrec.evaluation.plots import ByPopularity, Cost
from allmrec.evaluation.report import COST, HEADLINE
from allmrec.ranking.rankers import label_of


def markdown(content: Content) -> str:
    """Return the content as text."""
    blocks = [*map(_group, content.groups)]
    if content.comparisons:
        rows = [[one.place, label_of(one.ranker), one.words] for one in content.comparisons]
        blocks.append(_block(words.COMPARISONS, _table(["", "against", ""], rows)))
    if content.decision is not None:
        blocks.append(f"Decision of the training: {content.decision}.\n")
    if content.costs:
        blocks.append(_costs(content.costs))
    blocks += map(_by_popularity, content.by_popularity)
    if content.calibration:
        blocks.append(_calibration(content.calibration))
    return "\n".join([*blocks, *map(_example, content.examples)])


def _group(group: Group) -> str:
    """Return a table with a row per ranker, below its remarks."""
    heading = f"{group.protocol}, {group.users} (n = {group.num_users:,}; {words.INTERVALS})"
    rows = [
        [label_of(ranker), *(f"{figure.text} {figure.interval}".rstrip() for figure in figures)]
        for ranker, figures in group.figures.items()
    ]
    remarks = [line for remark in group.remarks for line in (remark, "")]
    return _block(heading, [*remarks, *_table(["", *group.metrics], rows)])


def _costs(costs: Iterable[Cost]) -> str:
    rows = [[label_of(one.ranker), f"{one.seconds:,.1f}", f"{one.quality:.3f}"] for one in costs]
    return _block(words.COSTS, _table(["", COST, HEADLINE], rows))


def _by_popularity(one: ByPopularity) -> str:
    rows = [
        [f"{popularity:,.1f}", *(f"{values[place]:.3f}" for values in one.lines.values())]
        for place, popularity in enumerate(one.popularity)
    ]
    head = ["interactions", *map(label_of, one.lines)]
    return _block(f"{one.protocol}, {words.BY_POPULARITY}", _table(head, rows))


def _calibration(bins: Iterable[Bin]) -> str:
    rows = [
        [label_of(one.ranker), f"{one.stated:.2%}", f"{one.came_true:.2%}", f"{one.num_candidates:,}"]
        for one in bins
    ]
    return _block(words.CALIBRATION, _table(["", *words.CALIBRATION_COLUMNS], rows))


def _example(one: Example) -> str:
    lines = [f"- had, oldest first: {'; '.join(one.had)}", f"- then came: {one.came}"]
    for ranker, order in one.lists.items():
        named = (f"**{item.title}**" if item.is_next else item.title for item in order)
        lines.append(f"- {label_of(ranker)}: {'; '.join(named)}")
    return _block(one.user_id, lines)


def _block(heading: str, lines: Iterable[str]) -> str:
    """Return lines below a heading."""
    return "\n".join([f"## {heading}", "", *lines, ""])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for cells in (head, ["-" * width for width in widths], *rows):
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        yield f"| {' | '.join(padded)} |"
