"""Would an LLM that reads each user once find more? Readers of a history, beside the signals that there are.

    python -m tests.bench.bench_reader TABLES CONFIG [READER …] [--epochs N] [--lora R] [--examples N]

TABLES holds a bundle for evaluation and its snapshot; needs no Spark, computes on a GPU where there is one.
A reader turns a history into a state after every item of it; a linear head of that state, and of the pooled
soft tokens, is scored against a linear map of every item's [E; Q] by cosine. It is trained by sampled softmax
at all positions and stopped by the early-stopping users. Readers:

    pooled   the mean of the items' soft tokens so far, and the newest: no LLM
    small    two transformer blocks of width 128, trained: no LLM
    soft     the frozen LLM reads one soft token an item
    titles   the frozen LLM reads every item's title, then its soft token

With --lora R the LLM's linear layers learn an addition of rank R (Hu et al. 2022). Prints Recall@10 and
NDCG@10 of the test users in the whole catalogue, for the reader alone, for the bundle's own signals, and for
these with the reader as one more, weights fitted on the validation users; paired differences.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from allmrec import metrics
from allmrec.config import load
from allmrec.evaluation.comparison import paired
from allmrec.scoring.signals import BY_VECTORS, Signals
from allmrec.scoring.user_vectors import UserEncoder
from allmrec.training.order.held_back import by_item_id, held_back_users
from allmrec.training.order.logit import fit_logit
from tests.bench.trained import Trained

HISTORY, WIDTH, SMALL_WIDTH, NEGATIVES, BATCH, PATIENCE = 10, 128, 128, 1024, 128, 3
BLOCK_USERS = 512
"""Users whose scores of the whole catalogue are held at a time."""
READERS = ("pooled", "small", "soft", "titles")


@dataclass(frozen=True)
class Users:
    """Users with a next item: histories (item_idx, oldest first), the next item, what they had before."""

    histories: list[np.ndarray]
    targets: np.ndarray
    seen: list[np.ndarray]

    def take(self, rows: np.ndarray) -> Users:
        """Return some of them."""
        return Users(
            [self.histories[row] for row in rows], self.targets[rows], [self.seen[row] for row in rows]
        )


class Lora(nn.Module):
    """A frozen linear layer with an addition of low rank."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear, device = linear, linear.weight.device
        self.down = nn.Parameter(
            torch.randn(rank, linear.in_features, device=device) / linear.in_features**0.5
        )
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's output."""
        dropped = functional.dropout(inputs, 0.1, self.training)
        return self.linear(inputs) + 2 * functional.linear(functional.linear(dropped, self.down), self.up)


class Reader(nn.Module):
    """One of READERS, for the items of a bundle."""

    def __init__(self, name: str, trained: Trained, device: torch.device, rank: int) -> None:
        super().__init__()
        rec = trained.bundle.rec
        self.name, self.titles, self.reads_llm = name, trained.bundle.titles, name in ("soft", "titles")
        self.known = torch.from_numpy(trained.bundle.known).to(device)
        with torch.no_grad():
            e, q = rec.joint()
            self.inputs = torch.cat([_standard(e) * rec.known[:, None], _standard(q)], dim=1).to(device)
            cf = rec.cf_items() / rec.cf_items()[rec.known].std()
            self.outputs = torch.cat([cf, _standard(rec.text_embeddings)], dim=1).float().to(device)
        width, self.norm = SMALL_WIDTH, 3.0
        if self.reads_llm:
            self.llm = copy.deepcopy(trained.llm.model).to(device)
            self.embed, self.norm = self.llm.get_input_embeddings(), trained.llm.token_norm
            width = trained.llm.width
            if rank:
                _add_lora(self.llm.base_model, rank)
        self.soft = nn.Sequential(
            nn.Linear(self.inputs.shape[1], width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)
        )
        if name == "small":
            block = nn.TransformerEncoderLayer(
                width, 2, 2 * width, 0.3, "gelu", batch_first=True, norm_first=True
            )
            self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
            self.from_end = nn.Embedding(HISTORY, width)
            nn.init.normal_(self.from_end.weight, std=0.02)
        self.of_state = nn.Sequential(nn.LayerNorm(width), nn.Dropout(0.2), nn.Linear(width, WIDTH))
        self.of_pooled = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, WIDTH, bias=False))
        self.of_item = nn.Linear(self.outputs.shape[1], WIDTH, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.to(device)

    def users(self, histories_BL: Tensor) -> Tensor:
        """Return a vector after every item of histories (item_idx, padded on the right), [B, L, WIDTH]."""
        real_BL1 = (histories_BL > 0)[..., None]
        tokens_BLH = self.norm * functional.normalize(self.soft(self.inputs[histories_BL]), dim=-1)
        tokens_BLH = functional.dropout(tokens_BLH, 0.2, self.training) * real_BL1
        pooled_BLH = tokens_BLH.cumsum(dim=1) / real_BL1.cumsum(dim=1).clamp(min=1) + tokens_BLH
        vectors = self.of_pooled(pooled_BLH)
        if self.name != "pooled":
            vectors = vectors + self.of_state(self._states(histories_BL, tokens_BLH))
        return functional.normalize(vectors, dim=-1) * self.log_scale.exp()

    def items(self, idx: Tensor) -> Tensor:
        """Return the vectors of items, [N, WIDTH]."""
        return functional.normalize(self.of_item(self.outputs[idx]), dim=-1)

    def _states(self, histories_BL: Tensor, tokens_BLH: Tensor) -> Tensor:
        if self.name == "small":
            length = histories_BL.shape[1]
            from_end = (histories_BL > 0).sum(dim=1, keepdim=True) - 1 - torch.arange(length).to(histories_BL)
            later = ~torch.ones(length, length, dtype=torch.bool, device=histories_BL.device).tril()
            scaled = tokens_BLH * (SMALL_WIDTH**0.5 / self.norm)
            return self.blocks(scaled + self.from_end(from_end.clamp(min=0)), mask=later)
        ids_BT, at_BL = self._written(histories_BL)
        rows_B1 = torch.arange(len(ids_BT), device=ids_BT.device)[:, None]
        real_BL = histories_BL > 0
        embeddings = self.embed(ids_BT)
        cells = (rows_B1.expand_as(at_BL)[real_BL], at_BL[real_BL])
        embeddings = embeddings.index_put(cells, tokens_BLH[real_BL].to(embeddings.dtype))
        # Right of a history there is padding alone, which nothing before it sees.
        with torch.autocast(ids_BT.device.type, torch.bfloat16):
            states = self.llm.base_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        return states[rows_B1, at_BL].float()

    def _written(self, histories_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return token ids [B, T], 0 at soft tokens and in padding, and the columns of soft tokens [B, L]."""
        rows, columns = [], np.zeros(histories_BL.shape, dtype=np.int64)
        for row, history in enumerate(histories_BL.cpu().numpy()):
            ids: list[int] = []
            for place, item in enumerate(history[history > 0].tolist()):
                ids += self.titles.of(item) if self.name == "titles" else []
                columns[row, place] = len(ids)
                ids.append(0)
            rows.append(ids)
        padded = _padded([np.array(ids) for ids in rows], max(map(len, rows)))
        return padded.to(histories_BL.device), torch.from_numpy(columns).to(histories_BL.device)


def _standard(values_IK: Tensor) -> Tensor:
    """Return columns with mean 0 and deviation 1 over the items, zeros for the padding item."""
    standard = (values_IK - values_IK[1:].mean(dim=0)) / (values_IK[1:].std(dim=0) + 1e-6)
    return torch.cat([torch.zeros_like(standard[:1]), standard[1:]]).float()


def _add_lora(module: nn.Module, rank: int) -> None:
    """Put a `Lora` in the place of every linear layer."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Lora(child, rank))
        else:
            _add_lora(child, rank)


def _padded(lists: Sequence[np.ndarray], length: int) -> Tensor:
    """Return lists padded with 0 on the right, [B, length] int64."""
    padded = np.zeros((len(lists), max(1, length)), dtype=np.int64)
    for row, values in enumerate(lists):
        padded[row, : len(values)] = values
    return torch.from_numpy(padded)


def train(reader: Reader, sequences: list[np.ndarray], stop: Users, num_epochs: int) -> float:
    """Train a reader; it ends as it was best for the users to stop by. Returns the seconds it took."""
    lora = [parameter for name, parameter in reader.named_parameters() if name.endswith((".down", ".up"))]
    own = [
        parameter
        for name, parameter in reader.named_parameters()
        if not name.startswith(("llm.", "embed.")) and parameter.requires_grad
    ]
    groups = [{"params": own, "lr": 1e-3}, *([{"params": lora, "lr": 2e-4}] if lora else [])]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    num_steps = num_epochs * -(-len(sequences) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * max(0.05, 1 - step / num_steps)
    )
    trained = [*own, *lora]
    started, best, kept, waited = time.perf_counter(), -1.0, [p.detach().clone() for p in trained], 0
    random = np.random.default_rng(0)
    for _ in range(num_epochs):
        reader.train()
        for batch in _batches(sequences, random):
            loss = _loss(reader, batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
        found = float(metrics.ndcg(_ranks(_scores(reader, stop), stop), 10).mean())
        waited += 1
        if found > best:
            best, kept, waited = found, [p.detach().clone() for p in trained], 0
        if waited == PATIENCE:
            break
    with torch.no_grad():
        for parameter, value in zip(trained, kept, strict=True):
            parameter.copy_(value)
    return time.perf_counter() - started


def _batches(sequences: list[np.ndarray], random: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Yield sequences of like length, each a random stretch of HISTORY + 1 items of a longer one."""
    order = random.permutation(len(sequences))
    for start in range(0, len(order), 8 * BATCH):
        block = order[start : start + 8 * BATCH]
        block = block[np.argsort([min(len(sequences[row]), HISTORY + 1) for row in block], kind="stable")]
        for first in range(0, len(block), BATCH):
            cuts = []
            for row in block[first : first + BATCH]:
                begin = random.integers(0, max(1, len(sequences[row]) - HISTORY))
                cuts.append(sequences[row][begin : begin + HISTORY + 1])
            yield cuts


def _loss(reader: Reader, batch: list[np.ndarray]) -> Tensor:
    """Return the sampled softmax at every position of some sequences."""
    device, longest = reader.inputs.device, max(map(len, batch)) - 1
    histories_BL = _padded([items[:-1] for items in batch], longest).to(device)
    next_N = _padded([items[1:] for items in batch], longest).to(device)[histories_BL > 0]
    users_NW = reader.users(histories_BL)[histories_BL > 0]
    known = torch.nonzero(reader.known)[:, 0]
    negatives_M = known[torch.randint(len(known), (NEGATIVES,), device=device)]
    others_NM = (users_NW @ reader.items(negatives_M).T).masked_fill(
        next_N[:, None] == negatives_M, -torch.inf
    )
    target_N1 = (users_NW * reader.items(next_N)).sum(dim=1, keepdim=True)
    logits = torch.cat([target_N1, others_NM], dim=1)
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=device))


@torch.no_grad()
def _scores(reader: Reader, users: Users) -> np.ndarray:
    """Return a reader's scores of the whole catalogue, [B, I+1] float32."""
    reader.eval()
    device = reader.inputs.device
    items_IW = reader.items(torch.arange(len(reader.inputs), device=device))
    scores = np.zeros((len(users.histories), len(items_IW)), dtype=np.float32)
    order = np.argsort([len(history) for history in users.histories], kind="stable")
    for start in range(0, len(order), 256):
        rows = order[start : start + 256]
        histories = [users.histories[row][-HISTORY:] for row in rows]
        padded = _padded(histories, max(map(len, histories))).to(device)
        last = torch.tensor([max(1, len(history)) - 1 for history in histories], device=device)
        vectors = reader.users(padded)[torch.arange(len(rows), device=device), last]
        scores[rows] = (vectors @ items_IW.T).cpu().numpy()
    return scores


def _ranks(scores_BI: np.ndarray, users: Users) -> np.ndarray:
    """Return every target's rank among the items that its user had not, [B] float64."""
    scores_BI = scores_BI.copy()
    scores_BI[:, 0] = -np.inf
    for row, (items, target) in enumerate(zip(users.seen, users.targets, strict=True)):
        own = scores_BI[row, target]
        scores_BI[row, items] = -np.inf
        scores_BI[row, target] = own
    return metrics.ranks_of_target(scores_BI, users.targets)


def _ranks_in_blocks(scores: Callable[[Users], np.ndarray], users: Users) -> np.ndarray:
    """Return every target's rank by `scores` ([B, I+1]), BLOCK_USERS users at a time."""
    starts = range(0, len(users.targets), BLOCK_USERS)
    blocks = [users.take(np.arange(len(users.targets))[start : start + BLOCK_USERS]) for start in starts]
    return np.concatenate([_ranks(scores(block), block) for block in blocks])


def _of_signals(trained: Trained, users: Users) -> np.ndarray:
    """Return the z-scores of the bundle's signals, and 1 for an item new to the CF model, [B, I+1, P + 1]."""
    encoder, ids = UserEncoder(trained.bundle), trained.bundle.items["item_id"].tolist()
    signals = Signals(encoder)
    vectors = encoder.encode([[ids[item - 1] for item in history] for history in users.histories])
    z = [(signals.users(vectors, name) @ signals.items[name].T).cpu().numpy() for name in BY_VECTORS]
    is_new = np.broadcast_to(~encoder.known & vectors.has_cf[:, None], z[0].shape)
    return np.stack([*z, is_new.astype(np.float32)], axis=-1)


def _z(scores_BI: np.ndarray) -> np.ndarray:
    centred = scores_BI - scores_BI[:, 1:].mean(axis=1, keepdims=True)
    return centred / centred[:, 1:].std(axis=1, keepdims=True).clip(min=1e-9)


def _fitted(features_BIP: np.ndarray, users: Users) -> np.ndarray:
    """Return the weights of features, fitted on 1,000 sampled items and every user's target."""
    sampled = 1 + np.random.default_rng(0).permutation(features_BIP.shape[1] - 1)[:1000]
    columns_BC = np.column_stack(
        [users.targets, np.broadcast_to(sampled, (len(users.targets), len(sampled)))]
    )
    chosen = np.take_along_axis(features_BIP, columns_BC[..., None], axis=1).astype(np.float64)
    present = [
        [True, *~np.isin(sampled, [*seen, target])]
        for seen, target in zip(users.seen, users.targets, strict=True)
    ]
    prior = np.array([1.0, *[0.2] * (features_BIP.shape[2] - 2), 0.0])
    return fit_logit(chosen, np.array(present), np.zeros(len(chosen), dtype=np.int64), prior)


def _combined(trained: Trained, reader: Reader | None, validation: Users, test: Users) -> np.ndarray:
    """Return the test users' ranks by the bundle's signals, and by a reader's as one more."""

    def features(users: Users) -> np.ndarray:
        of_bundle = _of_signals(trained, users)
        if reader is None:
            return of_bundle
        by_reader = _z(_scores(reader, users))[..., None]
        return np.concatenate([of_bundle[..., :-1], by_reader, of_bundle[..., -1:]], axis=-1)

    weights = _fitted(features(validation), validation)
    return _ranks_in_blocks(lambda users: features(users) @ weights, test)


def _users(rows: pd.DataFrame, index: dict[str, int]) -> Users:
    """Return users of user_id, history, target and seen_before by item_id."""

    def indexed(items: Sequence[str]) -> np.ndarray:
        return np.array([index[item] for item in items if item in index], dtype=np.int64)

    targets = np.array([index[item] for item in rows["target"]], dtype=np.int64)
    return Users(
        [indexed(items) for items in rows["history"]],
        targets,
        [indexed(items) for items in rows["seen_before"]],
    )


@click.command(help=__doc__)
@click.argument("root", type=Path)
@click.argument("config_path")
@click.argument("names", nargs=-1)
@click.option("--epochs", "num_epochs", default=15)
@click.option("--lora", "rank", default=0, help="Rank of the addition to the LLM's layers; 0: none.")
@click.option("--examples", default=None, type=int, help="Sequences to train on; default: all.")
@click.option("--users", "num_users", default=None, type=int, help="Test users; default: all.")
def main(
    root: Path,
    config_path: str,
    names: tuple[str, ...],
    num_epochs: int,
    rank: int,
    examples: int | None,
    num_users: int | None,
) -> None:
    """Train every reader, print what it finds alone and beside the other signals."""
    config = load([config_path], [f"tables.root={root}", "llm.dtype=float32"])
    trained = Trained.newest(root, config, num_users)
    ids, index = trained.bundle.items["item_id"].tolist(), trained.bundle.index
    held_back = held_back_users(trained.snapshot, config)
    validation, test = _users(by_item_id(held_back, ids), index), _users(trained.users, index)
    stop = validation.take(np.flatnonzero(held_back["role"] == "early_stop"))
    sequences = _sequences(trained)[:examples]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{len(sequences):,} sequences, {len(validation.targets):,} validation users, {device}")
    base = _combined(trained, None, validation, test)
    _say("the bundle's signals", base, base)
    for name in names or READERS:
        torch.manual_seed(0)
        reader = Reader(name, trained, device, rank)
        seconds = train(reader, sequences, stop, num_epochs)
        alone = _ranks_in_blocks(partial(_scores, reader), test)
        _say(f"{name} alone, trained in {seconds:.0f} s", alone, base)
        _say(f"{name} beside the bundle's signals", _combined(trained, reader, validation, test), base)


def _sequences(trained: Trained) -> list[np.ndarray]:
    """Return the histories of training, at least two items each."""
    frame: Any = pd.read_parquet(trained.snapshot.folder / "sequences")
    items = [
        np.asarray(row)[np.asarray(row) > 0].astype(np.int64)
        for row in frame.sort_values("user_id")["item_idx"]
    ]
    return [row for row in items if len(row) >= 2]


def _say(name: str, ranks_N: np.ndarray, base_N: np.ndarray) -> None:
    values = metrics.ndcg(ranks_N, 10)
    one = paired(metrics.ndcg(base_N, 10), values, 1000, 0)
    print(
        f"{name}: Recall@10 {metrics.hit(ranks_N, 10).mean():.4f}, NDCG@10 {values.mean():.4f} "
        f"({one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]), n = {len(values):,}",
        flush=True,
    )


if __name__ == "__main__":
    main()
