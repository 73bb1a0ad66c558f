"""The words of a prompt by domain."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """The words of one domain."""

    verb_past: str
    """For "This user has <verb_past> …", such as "bought"."""
    verb: str
    """For "… for this user to <verb> next", such as "buy"."""
    noun: str
    """For "Recommend one next <noun>", such as "item"."""
    together: str
    """The beginning of a prompt of the layout `no_list`."""


DOMAINS: dict[str, Domain] = {
    "item": Domain("bought", "buy", "item", "Bought together"),
    "movie": Domain("watched", "watch", "movie", "Watched together"),
    "game": Domain("played", "play", "game", "Played together"),
}
