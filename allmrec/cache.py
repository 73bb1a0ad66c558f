"""Where this machine keeps what it computed once: converted LLMs, embeddings, bundles, trainings."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from allmrec.config import LLMConfig


def default_cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/allmrec`, or `~/.cache/allmrec`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "allmrec"


def cache_folder(settings: LLMConfig) -> Path:
    """Return the folder that `llm.cache` names, or the default one."""
    return default_cache_folder() if settings.cache is None else Path(settings.cache).expanduser()


def training_folder(settings: LLMConfig, root: str, training: str) -> Path:
    """Return where a training of that fingerprint works, for the tables below `root` (absolute).

    Another shop's tables may have the same versions, and then its trainings the same fingerprint.
    """
    shop = hashlib.sha256(root.encode()).hexdigest()[:16]
    return cache_folder(settings) / "training" / f"{training}-{shop}"
