"""The nights of `runs` for a terminal, one in detail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from operator import methodcaller
from typing import NamedTuple

from rich.console import Group
from rich.text import Text

from allmrec.runtime.context import Context
from allmrec.runtime.runs import NIGHT, RunRow
from allmrec.views.night_records import NightRecord, read_nights
from allmrec.views.stacked_table import STYLES, Column, StackedTable

NUM_FIGURES = 3
"""Number of a training's figures that are shown, those of `FIGURES` first."""
FIGURES = ("cf_NDCG@10", "blend_with_llm_blend_NDCG@10", "blend_without_llm_blend_NDCG@10")
NUM_PARTS = 2
"""Number of a step's parts whose time is shown, the longest."""
NOTHING = "–"
"""The cell without a recorded value."""


class Metric(NamedTuple):
    """A number of a night and of the night before. None if it was not recorded."""

    words: str
    value: float | None
    before: float | None
    decimals: int

    @property
    def change(self) -> str:
        """The difference, with its sign."""
        if self.value is None or self.before is None:
            return NOTHING
        change = round(self.value - self.before, self.decimals)
        return f"{change:+,.{self.decimals}f}" if change else "0"

    @property
    def percent(self) -> str:
        """The difference as a share of the night before, unless 0."""
        return f"{self.value / self.before - 1:+,.1%}" if self.value is not None and self.before else NOTHING


def nights(context: Context, run_date: date | None, last: int) -> Group:
    """Return the newest `last` nights, and one in detail, as tables.

    The detailed night is that of `run_date`, by default the newest: step by step, compared with the last
    published night before it, and by the rules of `gates`. The newest trainings follow. Raises InputError
    where the night is unknown.
    """
    records = read_nights(context, run_date, last)
    night = records.night
    parts: list[StackedTable | Text] = [
        _list(records.listed),
        _steps(night),
        *_messages(night),
        _against(night, records.before),
        _gates(night, context.config.gates.model_dump()),
    ]
    if records.trainings:
        parts.append(_trainings(records.trainings))
    return Group(*parts)


def _list(listed: Sequence[NightRecord]) -> StackedTable:
    """Return the table with a row per night."""
    status = [
        Column("status", [night.status for night in listed], wraps=True),
        Column("began (UTC)", [_began(night.run_date, _first_of_newest_run(night)) for night in listed]),
        _numbers("seconds", [sum(night.seconds.values()) or None for night in listed], decimals=1),
        Column("gates", [_gates_in_words(night) for night in listed], wraps=True),
        Column("LLM dtype", [night.llm_dtype or NOTHING for night in listed], is_expendable=True),
        Column("run", [night.newest.run_id for night in listed], is_expendable=True),
    ]

    def counted(heading: str, name: str) -> Column:
        return _numbers(heading, [night.count(name) for night in listed])

    users = [counted("users\nin", "users_in"), counted("users\nout", "users_out")]
    users += [counted(source, f"source_{source}") for source in ("llm", "cf", "popular")]
    fallbacks = _numbers("fall-\nbacks", [_fallbacks(night) for night in listed])
    others = [counted("carried", "carried"), counted("un-\nservable", "unservable"), fallbacks]
    key = Column("run date", [str(night.run_date) for night in listed])
    return StackedTable("Nights, newest first", key, [status, users, others])


def _steps(night: NightRecord) -> StackedTable:
    """Return the table with a row per step of a night."""
    rows = list(night.rows.values())
    what = [
        Column("status", [row.status for row in rows]),
        Column("began (UTC)", [_began(night.run_date, row) for row in rows]),
        _numbers("seconds", [row.timings.get("all") for row in rows], decimals=1),
        Column("longest parts", [_longest_parts(row) for row in rows], wraps=True),
    ]
    which = [
        Column("bundle", [row.bundle_id or NOTHING for row in rows]),
        Column("run", [row.run_id for row in rows]),
    ]
    key = Column("step", [row.step for row in rows])
    return StackedTable(f"Night of {night.run_date}, step by step", key, [what, which])


def _messages(night: NightRecord) -> list[Text]:
    """Return the errors of steps, which are too long for cells."""
    lines = []
    for step, row in night.rows.items():
        if row.status == "failed":
            lines.append(Text(f"{step} failed: {row.message or NOTHING}\n", STYLES["failed"]))
        elif row.status == "started":
            lines.append(Text(f"{step} has no end: it was killed, or is at work\n", STYLES["started"]))
    return lines


def _against(night: NightRecord, before: NightRecord | None) -> StackedTable:
    """Return the table of a night's numbers and of those before."""
    metrics = [metric for metric in _metrics(night, before) if (metric.value, metric.before) != (None, None)]
    columns = [_column("this night", [_number(metric.value, metric.decimals) for metric in metrics])]
    title = f"Night of {night.run_date}; none was published before it"
    if before:
        title = f"Night of {night.run_date} against {before.run_date}, the last published one before it"
        columns += [
            _column("night before", [_number(metric.before, metric.decimals) for metric in metrics]),
            _column("change", [metric.change for metric in metrics]),
            _column("in percent", [metric.percent for metric in metrics]),
        ]
    return StackedTable(title, Column("metric", [metric.words for metric in metrics]), [columns])


def _metrics(night: NightRecord, before: NightRecord | None) -> Iterator[Metric]:
    """Yield the compared numbers in order, also those of one night."""

    def metric(words: str, number: Callable[[NightRecord], float | None], decimals: int = 0) -> Metric:
        return Metric(words, number(night), number(before) if before else None, decimals)

    names = sorted({*night.counts, *(before.counts if before else ())})
    for start in ("users_in", "users_out", "source_", "fallback_", "carried", "unservable", "rejected_rows"):
        for name in (name for name in names if name.startswith(start)):
            yield metric(_in_words(name), methodcaller("count", name))
    yield metric("coverage", lambda one: one.shape.get("coverage"))
    yield metric("top-1 share", lambda one: one.shape.get("top1_share"), 4)
    for step in NIGHT:
        yield metric(f"seconds of {step}", methodcaller("seconds_of", step), 1)


def _gates(night: NightRecord, limits: Mapping[str, float | None]) -> StackedTable | Text:
    """Return the table of the rules' figures that night and today's limits."""
    measured = night.gates
    if not measured:
        return Text(f"Gates: no rule was measured in the night of {night.run_date}.\n")
    rules = sorted(measured, key=[*limits, *measured].index)
    allowed = [limits.get(rule) for rule in rules]
    columns = [
        _column("measured", [_short(measured[rule]) for rule in rules]),
        _column("limit", ["off" if limit is None else _short(limit) for limit in allowed]),
        Column("outcome", [_outcome(night, rule, limit) for rule, limit in zip(rules, allowed, strict=True)]),
    ]
    title = f"Gates of {night.run_date}, with the limits of this configuration"
    return StackedTable(title, Column("rule", rules), [columns])


def _trainings(rows: Sequence[RunRow]) -> StackedTable:
    """Return the table with a row per training."""
    columns = [
        Column("status", [row.status for row in rows]),
        Column("bundle", [row.bundle_id or NOTHING for row in rows]),
        _numbers("seconds", [row.timings.get("all") for row in rows], decimals=1),
        Column("figures", [_chosen_figures(row.figures) for row in rows], wraps=True),
    ]
    key = Column("run date", [str(row.run_date) for row in rows])
    return StackedTable("Trainings, newest first", key, [columns])


def _column(heading: str, cells: Sequence[str]) -> Column:
    return Column(heading, cells, is_number=True)


def _numbers(heading: str, values: Sequence[float | None], decimals: int = 0) -> Column:
    return _column(heading, [_number(value, decimals) for value in values])


def _number(value: float | None, decimals: int) -> str:
    return NOTHING if value is None else f"{value:,.{decimals}f}"


def _short(value: float) -> str:
    """Return a limit or figure, whole or with four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _in_words(name: str) -> str:
    """Return the shown name of a count: `source llm` for `source_llm`."""
    start, _, rest = name.partition("_")
    return f"{start} {rest}".rstrip()


def _began(run_date: date, row: RunRow) -> str:
    """Return when a step began, with a year unlike the run date's."""
    same_year = row.started_at.year == run_date.year
    return f"{row.started_at:%m-%d %H:%M}" if same_year else f"{row.started_at:%Y-%m-%d %H:%M}"


def _first_of_newest_run(night: NightRecord) -> RunRow:
    """Return the first row of a night's newest run."""
    own = [row for row in night.rows.values() if row.run_id == night.newest.run_id]
    return min(own, key=lambda row: row.started_at)


def _fallbacks(night: NightRecord) -> int | None:
    """Return how many users with a history lack the due LLM list."""
    if night.count("users_out") is None:
        return None
    reasons = {name for name in night.counts if name.startswith("fallback_")} - {"fallback_no_history"}
    return sum(night.counts[name] for name in reasons)


def _gates_in_words(night: NightRecord) -> str:
    words = [f"{rule} failed" for rule in night.broken] + [f"{rule} overridden" for rule in night.overridden]
    return ", ".join(words) or ("ok" if night.gates else NOTHING)


def _outcome(night: NightRecord, rule: str, limit: float | None) -> str:
    """Return a rule's outcome that night, by today's limit."""
    if rule in night.overridden:
        return "overridden"
    if rule in night.broken or (limit is not None and night.gates[rule] > limit):
        return "broken"
    return NOTHING if limit is None else "ok"


def _longest_parts(row: RunRow) -> str:
    timings = {name: seconds for name, seconds in row.timings.items() if name != "all" and seconds}
    longest = sorted(timings, key=lambda name: -timings[name])[:NUM_PARTS]
    return ", ".join(f"{name} {timings[name]:,.1f}" for name in longest) or NOTHING


def _chosen_figures(figures: Mapping[str, float]) -> str:
    """Return some figures of a training, those of `FIGURES` first."""
    others = [name for name in sorted(figures) if name.startswith(("stage2_", "blend_"))]
    names = [name for name in FIGURES if name in figures]
    names += [name for name in others if name not in names and not name.endswith("seconds")]
    return ", ".join(f"{name} {figures[name]:.4g}" for name in names[:NUM_FIGURES]) or NOTHING
