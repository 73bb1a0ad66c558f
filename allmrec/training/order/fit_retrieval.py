"""Fitting the weights of retrieval's signals, on held-back items that no signal has learned.

The held-back item is told from sampled items of the catalogue by softmax(Σ weight · z_signal)
(`allmrec.training.order.logit`). Uniform samples leave the weights what they would be over the whole
catalogue (McFadden 1978), and a likelihood uses every user, where recall at some cut would use those near it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from allmrec import seeds
from allmrec.bundle import Bundle
from allmrec.config import Config
from allmrec.ranking.search_weights import SearchWeights
from allmrec.scoring.signals import BY_LINKS, PRIOR, Signals
from allmrec.scoring.user_vectors import UserEncoder, UserVectors
from allmrec.training.loader import Snapshot
from allmrec.training.order.held_back import by_item_id, comes_again, held_back_users
from allmrec.training.order.logit import fit_logit

NUM_SAMPLED = 1000
"""Items that a held-back one is told from."""
LOWEST_TEXT = 0.05
"""Least weight of the text, as a share of the CF model's: it searches for histories new to the CF model."""


def fit_retrieval(bundle: Bundle, snapshot: Snapshot, config: Config) -> SearchWeights:
    """Return the weights of the signals, which sum to 1, with the offset of items unknown to the CF model.

    At most `training.blend_users` users are looked at; without any the prior is returned. Users whose
    held-back item no list can hold are left out.
    """
    rows = held_back_users(snapshot, config)
    if config.candidates.exclude_seen:
        rows = rows[~comes_again(rows)].reset_index(drop=True)
    encoder = UserEncoder(bundle)
    signals = Signals(encoder)
    prior_P = np.array([*(PRIOR[name] for name in signals.names), 0.0])
    if len(rows):
        features_BCP, present_BC = _features(encoder, signals, rows, snapshot.available_items(), config)
        weights_P = fit_logit(features_BCP, present_BC, np.zeros(len(rows), dtype=np.int64), prior_P)
    else:
        weights_P = prior_P
    by_name = dict(zip(signals.names, weights_P[:-1].tolist(), strict=True))
    by_name["text"] = max(by_name["text"], LOWEST_TEXT * (by_name["cf"] or 1.0))
    total = sum(by_name.values())
    scaled = {name: weight / total for name, weight in by_name.items()}
    return SearchWeights(scaled, float(weights_P[-1]) / total, len(rows))


def _features(
    encoder: UserEncoder, signals: Signals, rows: pd.DataFrame, available_I: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """Return the z-scores of the held-back item, first, and of sampled ones, and which of them count.

    [B, C, P + 1] float64, the last column 1 for what the CF model does not know; [B, C] bool: sampled items
    count where a night may show them, the held-back one not twice.
    """
    ids = encoder.item_ids.tolist()
    vectors = encoder.encode(by_item_id(rows, ids)["history"].tolist())
    targets_B = rows["held_back"].to_numpy(dtype=np.int64)
    random = seeds.generator(config.seed, "retrieval", "sampled items")
    sampled_M = 1 + np.sort(random.permutation(len(ids))[:NUM_SAMPLED])
    columns_BC = np.column_stack([targets_B, np.broadcast_to(sampled_M, (len(rows), len(sampled_M)))])
    hides_seen = config.candidates.exclude_seen
    hidden = [
        [target, *(seen if hides_seen else ())]
        for seen, target in zip(rows["seen_before"], targets_B, strict=True)
    ]
    present_BC = np.array([available_I[sampled_M] & ~np.isin(sampled_M, items) for items in hidden])
    present_BC = np.column_stack([np.ones(len(rows), dtype=bool), present_BC])
    unknown_BC = ~encoder.known[columns_BC] & vectors.has_cf[:, None]
    scores = [_products(signals, vectors, name, targets_B, sampled_M) for name in signals.names]
    return np.stack([*scores, unknown_BC.astype(np.float64)], axis=-1), present_BC


def _products(
    signals: Signals, vectors: UserVectors, name: str, targets_B: np.ndarray, sampled_M: np.ndarray
) -> np.ndarray:
    """Return one signal's scores of the held-back items and of the sampled ones, [B, 1 + M] float64."""
    if name in BY_LINKS:
        linked_BI = signals.linked(vectors, name)
        target_B = linked_BI[np.arange(len(targets_B)), targets_B].A1
        return np.column_stack([target_B, linked_BI[:, sampled_M].toarray()]).astype(np.float64)
    users_BK = signals.users(vectors, name)
    items_IK = signals.items[name]
    target_B1 = (users_BK * items_IK[torch.from_numpy(targets_B)]).sum(dim=1, keepdim=True)
    sampled_BM = users_BK @ items_IK[torch.from_numpy(sampled_M)].T
    return torch.cat([target_B1, sampled_BM], dim=1).double().cpu().numpy()
