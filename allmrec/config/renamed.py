"""Settings that were renamed: the former names stay accepted."""

RENAMED: dict[str, str] = {
    "cf.network": "cf.sasrec.network",
    "cf.num_blocks": "cf.sasrec.num_blocks",
    "cf.num_heads": "cf.sasrec.num_heads",
    "importing.rating_range": "sequences.rating_range",
    "llm.cache": "cache.folder",
    "publish.max_per_category": "publish.max_per.category",
    "scoring.bundle_id": "bundle.id",
    "scoring.token_budget": "llm.token_budget",
}
"""Former path of a setting → its path now, or the path of a key of a setting that is a mapping."""
