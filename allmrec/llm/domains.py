"""The words that a prompt uses for a domain: data, no logic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """The words of one domain."""

    verb_past: str
    """In "This user has <verb_past> …", say "bought"."""
    verb: str
    """In "… for this user to <verb> next", say "buy"."""
    noun: str
    """In "Recommend one next <noun>", say "item"."""
    together: str
    """What opens a prompt of the layout `no_list`."""


DOMAINS: dict[str, Domain] = {
    "item": Domain("bought", "buy", "item", "Bought together"),
    "movie": Domain("watched", "watch", "movie", "Watched together"),
    "game": Domain("played", "play", "game", "Played together"),
}
