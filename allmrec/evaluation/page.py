"""An evaluation as one self-contained HTML file, made by a template."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from allmrec.evaluation import words
from allmrec.evaluation.content import Content
from allmrec.evaluation.report import COST, HEADLINE
from allmrec.ranking.rankers import colour_of, label_of

CHARACTER = 2.5
"""Width of a digit below a plot, in percent of the width of a plot on a phone."""


def page(content: Content, template: str | Template = "evaluation.html") -> str:
    """Return the content as HTML, by a template."""
    return environment().get_template(template).render(content=content)


def environment() -> Environment:
    """Return the environment of templates: texts are escaped, unknown names are errors."""
    found = Environment(
        loader=PackageLoader("allmrec.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(words=words, HEADLINE=HEADLINE, COST=COST)
    found.filters.update(
        colour=colour_of,
        label=label_of,
        log_places=log_places,
        sentence_case=sentence_case,
        ticks=ticks,
        top=top,
    )
    return found


def sentence_case(text: str) -> str:
    """Return a text with a capital first letter."""
    return text[:1].upper() + text[1:]


def top(values: Iterable[float]) -> float:
    """Return the upper end, above 0, of an axis from 0."""
    return max((value for value in values if not np.isnan(value)), default=0.0) or 1.0


def log_places(values: Iterable[float], added: float) -> list[float]:
    """Return places on a logarithmic axis in percent, for values from 0.

    `added`, above 0, is added to every value, so that 0 has a place.
    """
    logarithms = np.log10(np.array(list(values)) + added)
    low = logarithms.min()
    length = logarithms.max() - low
    return [float(100 * (one - low) / length) if length else 50.0 for one in logarithms]


def ticks(values: Iterable[float], places: Iterable[float], form: str) -> list[tuple[str, float]]:
    """Return (text, place in percent) of values, from left to right.

    A text that would cover the previous one is dropped.
    """
    found: list[tuple[str, float]] = []
    for place, value in sorted(zip(places, values, strict=True)):
        text = form.format(value)
        if not found or place - found[-1][1] > CHARACTER * (len(text) + 1):
            found.append((text, place))
    return found
