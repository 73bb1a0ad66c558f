"""What decides a user's list, as one hash: where it is the same as last night's, the list is kept."""

from __future__ import annotations

import hashlib
import json

from allmrec.bundle import Bundle
from allmrec.ranking.candidate_lists import CandidateLists


def inputs_hashes(lists: CandidateLists, bundle: Bundle) -> list[str]:
    """Return 16 hex digits for each of the B users: of all that scoring reads of them.

    That is the trained bundle, the history, the candidates in their order with what found them, and the texts
    of all these items. Scores of retrieval are left out: they follow from the rest, but for rounding. A child
    of the bundle counts as the bundle itself: what it changes are the texts of some items.
    """
    trained = bundle.manifest.parent_id or bundle.bundle_id
    text_of = bundle.text_hash_of_item
    ids = lists.listed(lists.ids)
    sources = lists.listed(lists.sources)
    hashes = []
    for history, candidates, found_by in zip(lists.histories, ids, sources, strict=True):
        items = [*history, *candidates]
        texts = [text_of.get(item, "") for item in items]
        content = json.dumps([trained, len(history), items, found_by, texts])
        hashes.append(hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16])
    return hashes
