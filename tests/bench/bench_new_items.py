"""How new items are judged: a training whose log lacks a tenth of the items, and users who want such an item.

    python -m tests.bench.bench_new_items TABLES CONFIG [SECTION.KEY=VALUE …]

TABLES/_snapshots holds one snapshot for evaluation. Every interaction with a seeded tenth of the items is
taken out of it, the items stay in the catalogue, and a bundle is trained without the LLM. Test users whose
next item is such an item are `new`, the others `known`; whoever is left without a history is left out.
Weights are then fitted again, on validation lists in which other items pass for unknown to the CF model:

    as trained   no item passes for unknown
    all          all weights, of retrieval and blend, with 15 % of the items passing for unknown
    offset       only the offsets of unknown items, the other weights as trained

Differences are paired, against the first line.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy import sparse
from torch import nn

from allmrec import metrics, seeds
from allmrec.bundle import Bundle, FittedOrder, LinkState
from allmrec.config import Config, load
from allmrec.ranking.blend import BlendWeights, blend_features
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.search_weights import SearchWeights
from allmrec.ranking.served import log_softmax
from allmrec.reporting import Report
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.scoring.signals import PRIOR, Signals
from allmrec.scoring.user_vectors import UserEncoder, UserVectors
from allmrec.training.loader import Snapshot
from allmrec.training.order import fit_retrieval as retrieval_fit
from allmrec.training.order.fit_blend import fit_blend, without_llm
from allmrec.training.order.fit_order import blend_lists
from allmrec.training.order.held_back import held_back_users
from allmrec.training.order.logit import SHRINK, fit_logit
from allmrec.training.pipeline import train_bundle
from allmrec.training.work import Work
from tests.bench.bench_candidates import WITHOUT_LLM, Figures, in_words
from tests.bench.trained import only_snapshot, users_of

HIDDEN_SHARE, PRETENDED_SHARE = 0.1, 0.15
OFFSETS = np.linspace(-6.0, 6.0, 241)
"""Grid of the unknown offset, temperature included."""
CHUNK_USERS = 1024
Weights = TypeVar("Weights", SearchWeights, BlendWeights)
Ranks = np.ndarray
"""The next item's rank in each user's list, [N] float64; infinite: it is not there."""


def main(root: Path, config_path: str, overrides: list[str]) -> None:
    """Print the figures of every fit; raises ValueError where there is not exactly one snapshot."""
    config = load([config_path], [f"tables.root={root}", *WITHOUT_LLM, *overrides])
    with tempfile.TemporaryDirectory() as folder:
        snapshot = without_items(only_snapshot(root), Path(folder) / "snapshot", config.seed)
        bundle, _ = train_bundle(Work(snapshot, config, Path(folder) / "checkpoints", Report(print)))
        users = users_of(snapshot, config.seed).head(config.evaluation.num_users)
        is_new = users["is_new"].to_numpy(dtype=bool)
        first = dict[str, Figures]()
        for name, fit in FITS.items():
            order = fit(bundle, snapshot, config) if fit else bundle.order
            ranks = ranks_of(bundle.with_state(order), snapshot.available_items(), users, config)
            print(f"{name}: {_weights(order)}")
            for group, chosen in (("new", is_new), ("known", ~is_new)):
                found = figures_of(ranks[chosen])
                print(f"  {group}, n = {chosen.sum():,}: {in_words(found, first.setdefault(group, found))}")
            sys.stdout.flush()


def without_items(snapshot: Snapshot, folder: Path, seed: int) -> Snapshot:
    """Write the snapshot without the interactions of a tenth of its items into `folder`, and return it.

    `targets` has one more column there: is_new.
    """
    items = snapshot.items()
    hidden_I1 = _drawn(seed, "hidden items", snapshot.num_items, HIDDEN_SHARE)
    items.loc[hidden_I1[1:], "num_interactions"] = 0
    hidden_ids = set(items["item_id"][hidden_I1[1:]])
    num_sequences = 0
    for name in ("items", "sequences", "held_back", "targets"):
        for path in sorted((snapshot.folder / name).glob("*.parquet")):
            rows = pd.read_parquet(path)
            if name == "items":
                rows = items
            elif name == "targets":
                rows = _targets_without(rows, hidden_ids)
            else:
                rows = _sequences_without(rows, hidden_I1, name == "held_back")
                num_sequences += len(rows) if name == "sequences" else 0
            (folder / name).mkdir(parents=True, exist_ok=True)
            schema = pq.read_schema(path).remove_metadata()
            if name == "targets":
                schema = schema.append(pa.field("is_new", pa.bool_()))
            pq.write_table(
                pa.Table.from_pandas(rows, schema, preserve_index=False), folder / name / path.name
            )
    manifest = {**snapshot.manifest, "num_sequences": num_sequences}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Snapshot(folder)


def _drawn(seed: int, purpose: str, num_items: int, share: float) -> np.ndarray:
    """Return a seeded share of the items, [I+1] bool, false at 0."""
    drawn_I = seeds.generator(seed, "new items", purpose).permutation(num_items) < share * num_items
    return np.concatenate([[False], drawn_I])


def _sequences_without(rows: pd.DataFrame, hidden_I1: np.ndarray, is_held_back: bool) -> pd.DataFrame:
    """Return rows of sequences/ or held_back/ without the hidden items; empty sequences are left out."""
    matrix_NL = np.stack(rows["item_idx"].to_list())
    left = [row[~hidden_I1[row] & (row > 0)] for row in matrix_NL]
    padded_NL = np.zeros_like(matrix_NL)
    for number, own in enumerate(left):
        padded_NL[number, padded_NL.shape[1] - len(own) :] = own
    lengths = np.array([len(own) for own in left], dtype=np.int32)
    is_hidden = hidden_I1[rows["held_back"].to_numpy()]
    rows = rows.assign(item_idx=list(padded_NL), length=lengths)
    rows = rows.assign(
        held_back=rows["held_back"].where(~is_hidden, 0), role=rows["role"].where(~is_hidden, "")
    )
    return rows[(lengths > 0) & ~(is_hidden & is_held_back)]


def _targets_without(rows: pd.DataFrame, hidden_ids: set[str]) -> pd.DataFrame:
    """Return the test users who keep a history, and whether their next item is hidden."""
    histories = [[item for item in history if item not in hidden_ids] for history in rows["history"]]
    rows = rows.assign(history=histories, is_new=rows["target"].isin(hidden_ids))
    return rows[[bool(history) for history in histories]]


class AsIfUnknown(UserEncoder):
    """Users as they are, some items as if the CF model did not know them."""

    def __init__(self, bundle: Bundle, pretended_I1: np.ndarray) -> None:
        super().__init__(bundle)
        self._users = UserEncoder(bundle)
        pretended = torch.from_numpy(pretended_I1)[:, None].to(self.soft_items.device)
        text_soft_items = bundle.rec.text_soft_items().float().to(self.soft_items.device)
        self.soft_items = torch.where(pretended, text_soft_items, self.soft_items)
        self.alignment_items = nn.functional.normalize(self.soft_items, dim=1)
        self.known = self.known & ~pretended_I1

    def encode(self, histories: Sequence[Sequence[str]]) -> UserVectors:
        """Return the vectors of the whole bundle."""
        return self._users.encode(histories)


@dataclass(frozen=True)
class Pretended:
    """What weights are fitted on: validation lists in which some items pass for unknown."""

    bundle: Bundle
    encoder: AsIfUnknown

    @classmethod
    def of(cls, bundle: Bundle, seed: int) -> Pretended:
        """Draw the items that pass for unknown: nobody has had them either."""
        pretended_I1 = _drawn(seed, "pretended items", bundle.num_items, PRETENDED_SHARE)
        counts = bundle.items["num_interactions"].where(~pretended_I1[1:], 0)
        items = bundle.items.assign(num_interactions=counts)
        if bundle.links is not None:
            kept = sparse.diags((~pretended_I1).astype(np.float32))
            links = replace(bundle.links, together=(kept @ bundle.links.together @ kept).tocsr())
            bundle = bundle.with_state(LinkState(links))
        return cls(replace(bundle, items=items), AsIfUnknown(bundle, pretended_I1))

    def lists(
        self, search: SearchWeights, snapshot: Snapshot, config: Config
    ) -> tuple[CandidateLists, list[str], float]:
        """Return validation lists that hold the held-back item, with `alignment`; the items; the recall."""
        with mock.patch("allmrec.scoring.retrieval.UserEncoder", return_value=self.encoder):
            lists, targets, recall = blend_lists(
                self.bundle.with_state(FittedOrder(search)), snapshot, config
            )
        users_BH = self.encoder.encode(lists.histories).alignment
        rows = np.repeat(np.arange(len(lists)), lists.counts)
        items = self.encoder.item_ids.get_indexer(lists.ids[lists.present]) + 1
        cosine_N = (users_BH[rows] * self.encoder.alignment_items[items]).sum(dim=1)
        return lists.with_parts({"alignment": lists.spread(cosine_N.double().cpu().numpy())}), targets, recall


def fit_all(bundle: Bundle, snapshot: Snapshot, config: Config) -> FittedOrder:
    """Return an order whose every weight was fitted where some items pass for unknown."""
    pretended, parts = Pretended.of(bundle, config.seed), without_llm(config.training.blend_parts)
    with mock.patch.object(retrieval_fit, "UserEncoder", return_value=pretended.encoder):
        weights = retrieval_fit.fit_retrieval(pretended.bundle, snapshot, config)
    lists, targets, recall = pretended.lists(weights, snapshot, config)
    blend, _ = fit_blend(lists, targets, parts, seed=config.seed)
    return _order(weights, replace(blend, recall=recall))


def fit_offset(bundle: Bundle, snapshot: Snapshot, config: Config) -> FittedOrder:
    """Return the bundle's order with offsets that were fitted where some items pass for unknown."""
    pretended = Pretended.of(bundle, config.seed)
    rows = held_back_users(snapshot, config)
    signals = Signals(pretended.encoder)
    available_I = snapshot.available_items()
    features_BCP, present_BC = retrieval_fit._features(pretended.encoder, signals, rows, available_I, config)
    if bundle.search is None:
        raise ValueError("the bundle's search was not fitted, expected a trained one")
    columns_B = np.zeros(len(rows), dtype=np.int64)
    prior_P = np.array([*(PRIOR[name] for name in signals.names), 0.0])
    # The weights of the search sum to 1: their scale is that of a fit on the same items.
    temperature = 1.0 / float(fit_logit(features_BCP, present_BC, columns_B, prior_P)[:-1].sum())
    weights = _with_offset(bundle.search, temperature, features_BCP, present_BC, columns_B)
    lists, targets, recall = pretended.lists(weights, snapshot, config)
    blend = bundle.blends["without_llm"]
    features_BCP = blend_features(lists, tuple(blend.weights))
    columns_B = lists.columns_of(targets)
    blend = _with_offset(blend, blend.temperature, features_BCP, lists.present, columns_B)
    return _order(weights, replace(blend, recall=recall))


def _order(search: SearchWeights, blend: BlendWeights) -> FittedOrder:
    return FittedOrder(search, {"without_llm": blend, "with_llm": blend})


def _with_offset(
    weights: Weights,
    temperature: float,
    features_BCP: np.ndarray,
    present_BC: np.ndarray,
    columns_B: np.ndarray,
) -> Weights:
    """Return the weights with the likeliest offset, shrunk towards 0 as `fit_logit` does it."""
    rows_B, weights_P = np.arange(len(columns_B)), np.array([*weights.weights.values()]) / temperature
    scores_BC = np.where(present_BC, features_BCP[..., :-1] @ weights_P, -np.inf)
    losses = [
        -log_softmax(scores_BC + offset * features_BCP[..., -1])[rows_B, columns_B].sum()
        + SHRINK / 2 * offset**2
        for offset in OFFSETS
    ]
    return replace(weights, unknown_offset=float(OFFSETS[int(np.argmin(losses))]) * temperature)


FITS: dict[str, Callable[[Bundle, Snapshot, Config], FittedOrder] | None] = {
    "as trained": None,
    "all": fit_all,
    "offset": fit_offset,
}


def ranks_of(bundle: Bundle, available: np.ndarray, users: pd.DataFrame, config: Config) -> Ranks:
    """Return where the blend without the LLM puts the next item in the retrieved lists."""
    retriever = Retriever(bundle, available, config.candidates)
    scorer = Scorer(bundle, None, config)
    found = []
    for start in range(0, len(users), CHUNK_USERS):
        part = users.iloc[start : start + CHUNK_USERS]
        targets = part["target"].tolist()
        names, histories, seen_before = (
            part[name].tolist() for name in ("user_id", "history", "seen_before")
        )
        lists = scorer.score(retriever.retrieve(names, histories, seen_before))
        columns_B, scores_BC = lists.columns_of(targets), bundle.blends["without_llm"].scores(lists)
        ranks_B = np.full(len(part), np.inf)
        has_B = columns_B >= 0
        ranks_B[has_B] = metrics.ranks_of_target(scores_BC[has_B], columns_B[has_B])
        found.append(ranks_B)
    return np.concatenate(found)


def _weights(order: FittedOrder) -> str:
    """Return the weights of the search, and of the blend with its temperature included, in words."""
    if order.search is None:
        return "not fitted"
    blend = order.blends["without_llm"]
    words = []
    for name, weights, temperature in (
        ("retrieval", order.search, 1.0),
        ("without_llm", blend, blend.temperature),
    ):
        own = {**weights.weights, "unknown": weights.unknown_offset}
        words.append(
            f"{name} " + " ".join(f"{part} {value / temperature:+.2f}" for part, value in own.items())
        )
    return "; ".join(words)


def figures_of(ranks: Ranks) -> Figures:
    """Return the figures of every user by name."""
    return {
        "in the list": metrics.hit(ranks, 1_000),
        "HR@10": metrics.hit(ranks, 10),
        "NDCG@10": metrics.ndcg(ranks, 10),
    }


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
