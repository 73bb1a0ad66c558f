"""Settings of the order of candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from allmrec.config.sections.section import Count, Section, Text, without_repetition
from allmrec.parts import BLEND_WITH_LLM, BLEND_WITHOUT_LLM, OLD_ORDERS, served_parts

ORDERS = ("auto", BLEND_WITH_LLM, BLEND_WITHOUT_LLM, *served_parts())


def _new_name(order: Any) -> Any:
    """Return an order's name of today."""
    return OLD_ORDERS.get(order, order) if isinstance(order, str) else order


if TYPE_CHECKING:
    Order = str
else:
    Order = Annotated[Literal[ORDERS], BeforeValidator(_new_name)]

Time = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", examples=["05:30"])]


class ScoringConfig(Section):
    """How candidates are ordered."""

    mode: Literal["rank", "generate", "free"] = "rank"
    """`rank`: log-probability of every candidate in one pass; `generate`: exact decoding constrained to the
    titles; `free`: greedy text, matched against the titles (the paper; it needs a `prompt.layout` with a
    list). The last two decide the first place only."""
    match: Literal["begins", "contains"] = "begins"
    """`free`: the titles that match the text. `begins`: the longest with which it begins. `contains` (the
    authors' evaluation): all between its first and its last quote, of which the likeliest comes first. A hit
    is a true item whose title matches."""
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0
    """`free`: divides the logits of tokens that were written before (1.5 in the paper's code)."""
    soft_items: Literal["trained", "text"] = "trained"
    """Input of the items' soft tokens. `trained`: as in training (`stage2.item_input`). `text`: q_i in place
    of e_i for every item, without a new training (A-LLMRec (SBERT) in the paper)."""
    order: Order = "auto"
    """`auto`: with the LLM where the bundle's training found the lists better with it, else without it;
    `blend_with_llm`: all parts weighed; `blend_without_llm`: all but the LLM; `llm`: the LLM alone, for the
    users it reads; `cf`: the CF model alone, for all. `blend` and `without_llm` are old names."""
    rerankers: Annotated[tuple[Text, ...], without_repetition("scoring.rerankers")] = ()
    """Re-rankers that move the ordered items, one after another, by their names in
    `allmrec/ranking/rerankers.py`. `rank` is then the place, and `score` may rise with it."""
    llm_candidates: Annotated[int, Field(ge=2)] | None = 10
    """How many of a user's candidates the LLM reads, the best by the blend without it; null: all."""
    top_k: Count = 20
    """Rows of `recommendations` that are kept per user, from which e-mails and feeds are chosen."""
    active_within_days: Count | None = 7
    """The LLM reads only users with an interaction in this many days before the run date; null: all users."""
    deadline: Time | None = None
    """UTC time of the run date, such as `05:30`, after which nobody else is read by the LLM: who was active
    last is read first, the others get the order without it. Later days' runs of the date have none."""
    chunk_users: Count = 64
    """Users per chunk with the LLM; a finished chunk outlives a killed night."""
    num_threads: Count = 1
    """Torch threads per worker."""
