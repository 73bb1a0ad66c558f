"""Where this machine keeps what it computed once: converted LLMs, embeddings, bundles, trainings."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from allmrec.config import CacheConfig


def default_cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/allmrec`, or `~/.cache/allmrec`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "allmrec"


def cache_folder(settings: CacheConfig) -> Path:
    """Return the folder that `cache.folder` names, or the default one."""
    return default_cache_folder() if settings.folder is None else Path(settings.folder).expanduser()


def training_folder(settings: CacheConfig, root: str, training: str) -> Path:
    """Return where a training of that fingerprint works, for the tables below `root` (absolute).

    Another shop's tables may have the same versions, and then its trainings the same fingerprint.
    """
    shop = hashlib.sha256(root.encode()).hexdigest()[:16]
    return cache_folder(settings) / "training" / f"{training}-{shop}"
