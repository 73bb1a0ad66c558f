"""The words a prompt uses for a domain: data, no logic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """Words of one domain: `verb_past` (has …), `verb` (to …), `noun` (one next …), `together` (opens the `no_list` layout)."""

    verb_past: str
    verb: str
    noun: str
    together: str


DOMAINS: dict[str, Domain] = {
    "item": Domain("bought", "buy", "item", "Bought together"),
    "movie": Domain("watched", "watch", "movie", "Watched together"),
    "game": Domain("played", "play", "game", "Played together"),
}
