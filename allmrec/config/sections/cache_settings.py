"""Settings of the cache."""

from __future__ import annotations

from allmrec.config.sections.section import Section, Text


class CacheConfig(Section):
    """The folder of results and files that this machine keeps."""

    folder: Text | None = None
    """Folder for bundles, trainings at work, converted models and computed embeddings; null:
    `$XDG_CACHE_HOME/allmrec`, or `~/.cache/allmrec`."""
