"""Where this machine keeps what it computed once: converted LLMs, embeddings, bundles, trainings."""

from __future__ import annotations

import os
from pathlib import Path

from allmrec.config import LLMConfig


def default_cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/allmrec`, or `~/.cache/allmrec`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "allmrec"


def cache_folder(settings: LLMConfig) -> Path:
    """Return the folder that `llm.cache` names, or the default one."""
    return default_cache_folder() if settings.cache is None else Path(settings.cache).expanduser()
