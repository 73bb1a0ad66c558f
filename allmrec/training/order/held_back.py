"""The users whose held-back item no trained part has learned: orders are fitted on them.

A night right before the held-back event shows what `Retriever` lets in: available items that the user had not
before. The same rule decides here which held-back items a list can hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from allmrec import seeds
from allmrec.config import Config
from allmrec.training.loader import Snapshot

ROLES = ("early_stop", "blend")
"""The roles of these users. Items of `stage2` taught the projections."""


def held_back_users(snapshot: Snapshot, config: Config) -> pd.DataFrame:
    """Return rows of `Snapshot.held_back` in an order drawn from the seed, so that the first are a sample.

    They are at most `training.blend_users`. Users whose held-back item is unavailable at the cut-off are left
    out, because such an item is nobody's next one.
    """
    rows = pd.concat([snapshot.held_back(role) for role in ROLES], ignore_index=True)
    rows = rows[snapshot.available_items()[rows["held_back"].to_numpy(dtype=np.int64)]]
    drawn = [seeds.derive(config.seed, "blend", user) for user in rows["user_id"]]
    rows = rows.assign(drawn=drawn).sort_values(["drawn", "user_id"]).drop(columns="drawn")
    return rows.head(config.training.blend_users).reset_index(drop=True)


def comes_again(rows: pd.DataFrame) -> np.ndarray:
    """Return whether the user had the held-back item before, [N] bool, of rows of `Snapshot.held_back`.

    Where `candidates.exclude_seen` is set, a list can never hold such an item.
    """
    pairs = zip(rows["seen_before"], rows["held_back"], strict=True)
    return np.array([item in seen for seen, item in pairs], dtype=bool)


def by_item_id(rows: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """Return user_id, history, target and seen_before of `held_back_users`, with item ids for item_idx.

    `ids` are those of the items 1..I.
    """
    return pd.DataFrame(
        {
            "user_id": rows["user_id"],
            "history": [[ids[idx - 1] for idx in items if idx > 0] for items in rows["item_idx"]],
            "target": [ids[idx - 1] for idx in rows["held_back"]],
            "seen_before": [[ids[idx - 1] for idx in items] for items in rows["seen_before"]],
        }
    )
