"""The cache of this machine: converted LLMs, embeddings, bundles, trainings."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from allmrec.config import CacheConfig


def default_cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/allmrec`, or `~/.cache/allmrec`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "allmrec"


def cache_folder(settings: CacheConfig) -> Path:
    """Return the folder of `cache.folder`, or the default."""
    return default_cache_folder() if settings.folder is None else Path(settings.folder).expanduser()


def training_folder(settings: CacheConfig, root: str, training: str) -> Path:
    """Return a training's working folder, by fingerprint and `root` (absolute).

    The trainings of another shop, with tables of the same versions, may have the same fingerprint.
    """
    shop = hashlib.sha256(root.encode()).hexdigest()[:16]
    return cache_folder(settings) / "training" / f"{training}-{shop}"
