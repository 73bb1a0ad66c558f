"""What shorter numbers change in the lists: the same users' lists, read in float32 and in another type.

    python -m tests.bench.bench_exactness TABLES CONFIG USERS [DTYPE]

TABLES holds a bundle for evaluation and its snapshot; needs no Spark. DTYPE is bfloat16 (default), float16,
int8 or int8_weights. Prints how far log-probabilities differ, how far they may by the bound below (of 16
bits), how many users have the same first item, by the LLM alone and in the served list, and how far the ranks
of what the LLM read agree (Spearman's correlation, the mean over users).

Layers of 8 bits (Dettmers et al. 2022, section 2.1, without outliers kept apart) are computed here as what
they would give: every row of a weight matrix, and in int8 every token's input of it, is rounded to 127 steps
to either side of zero, then multiplied in float32. The head stays as it is.

The bound. Rounding to p significant bits has a relative error of at most u = 2^-p (8 bits in bfloat16, 11 in
float16), u/√3 rms (Higham 2002, section 2.8, by the model of independent roundings). Each block rounds the
residual stream twice, and twice what it reads of it after normalisation; sums inside a product are kept in
float32. Independent roundings add in squares, so the last state of L blocks is off by at most

    r = u/√3 · √(4 L + 1)

of its length, rms (the earlier a rounding, the shorter the stream still was). A state that is off by r of its
length in a random direction moves a logit by r times the spread s of the logits over the vocabulary, and the
head rounds each logit once more, u/√3 of its size a. So the sum over the P tokens of a title is off by

    σ = √(P · ((r s)² + (a u)²/3)).

A first item can only change where another one is so near to it. With independent errors that happens to at
most the mean over users of Σ_c Φ(−margin_c / (√2 σ)), with margins in units of the score (in the blend, σ
times the LLM's weight over the spread of its scores in the list).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from allmrec.cache import cache_folder
from allmrec.config import Config, load
from allmrec.llm.frozen import FrozenLLM
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rankers import rankers
from allmrec.scoring.scorer import Scorer
from allmrec.scoring.user_vectors import left_padded
from tests.bench.trained import Trained
from tests.oracle import oracle

BITS = {"bfloat16": 8, "float16": 11}
CHUNK_USERS = 64


@dataclass(frozen=True)
class Logits:
    """Of the LLM at the tokens of titles: what the bound needs."""

    spread: float
    """Standard deviation over the vocabulary, rms over positions."""
    size: float
    """Rms of the logits of the titles' own tokens."""


def main(root: Path, config_path: str, num_users: int, dtype: str = "bfloat16") -> None:
    """Read the same users twice, print the differences and the bound."""
    settings = [f"tables.root={root}", "scoring.order=blend_with_llm", "llm.dtype=float32"]
    config = load([config_path], settings)
    trained = Trained.newest(root, config, num_users)
    lists = trained.lists(config.candidates)
    exact = _read(lists, Scorer(trained.bundle, trained.llm, config))
    error, num_titles = error_of_packing(exact, Scorer(trained.bundle, trained.llm, config))
    print(f"float32 against {num_titles:,} titles read by themselves: off by {error:.2g} nats at most")
    logits = logits_of_titles(trained)
    rounded = _read(lists, _shorter(trained, config, dtype))
    difference_BC = rounded.part("llm_logprob") - exact.part("llm_logprob")
    errors_N = difference_BC[~np.isnan(difference_BC)]
    lengths = np.diff(trained.bundle.titles.offsets)[1:]
    print(
        f"{dtype} against float32, n = {len(exact):,} users, {len(errors_N):,} titles: off by "
        f"{np.sqrt((errors_N**2).mean()):.3f} nats rms (at most {np.abs(errors_N).max():.2f}); "
        f"logits spread {logits.spread:.2f}, size {logits.size:.2f}"
    )
    read_BC = ~np.isnan(exact.part("llm"))
    for name, factors_B1 in (
        ("llm", np.ones((len(exact), 1))),
        ("blend_with_llm", _in_blend(exact, trained)),
    ):
        one, other = (
            rankers(trained.bundle.blends, config.scoring)[name].scores(read) for read in (exact, rounded)
        )
        same = float((one.argmax(axis=1) == other.argmax(axis=1)).mean())
        agree = spearman(one, other, read_BC)
        print(
            f"{name}: the same first item for {same:.2%} of the users; "
            f"ranks agree {agree.mean():.4f} ({(agree < 0.99).mean():.1%} of the users below .99)"
        )
        if dtype in BITS:
            bound = sigma(logits, BITS[dtype], trained.llm.num_layers, float(lengths.mean()))
            kept = 1 - changes(one, bound * factors_B1, read_BC)
            print(f"  bounds: {bound:.3f} nats rms, the same first item for {kept:.2%}")


@torch.inference_mode()
def error_of_packing(read: CandidateLists, scorer: Scorer, num_users: int = 50) -> tuple[float, int]:
    """Return by how many nats, at most, scores of some users are off those of titles read alone; how many."""
    assert scorer.llm is not None
    assert scorer.requests is not None
    index, max_history = scorer.bundle.index, scorer.bundle.config.sequences.max_history
    lists, errors = read.take(np.arange(min(num_users, len(read)))), [0.0]
    for history, ids_C, logprobs_C in zip(lists.histories, lists.ids, lists.part("llm_logprob"), strict=True):
        read_C = ~np.isnan(logprobs_C)
        if read_C.any():
            known = np.array([index[item] for item in history if item in index], dtype=np.int64)
            padded_1L = left_padded(np.zeros_like(known), known, 1, max_history)
            users_1H = scorer.rec.soft_users(
                torch.from_numpy(padded_1L).to(scorer.device), scorer.soft_items
            ).float()
            items = [index[item] for item in ids_C[read_C]]
            request = scorer.requests.build(known.tolist(), items, items)
            alone = oracle(scorer.llm, request, 0, scorer.soft_items, users_1H)
            errors += np.abs(logprobs_C[read_C] - alone).tolist()
    return max(errors), len(errors) - 1


def sigma(logits: Logits, bits: int, num_layers: int, num_tokens: float) -> float:
    """Return σ, the rms error of a title's log-probability in nats, by the bound."""
    unit = 2.0**-bits
    state = unit / math.sqrt(3) * math.sqrt(4 * num_layers + 1)
    return math.sqrt(num_tokens * ((state * logits.spread) ** 2 + (logits.size * unit) ** 2 / 3))


def changes(scores_BC: np.ndarray, sigma_B1: np.ndarray, read_BC: np.ndarray) -> float:
    """Return the share of users whose first item may change, at most, where read scores are off by σ."""
    first_B1 = scores_BC.argmax(axis=1)[:, None]
    margins_BC = np.take_along_axis(scores_BC, first_B1, axis=1) - scores_BC
    is_other_BC = read_BC & (np.arange(scores_BC.shape[1]) != first_B1)
    normal = torch.distributions.Normal(0.0, 1.0)
    far_BC = margins_BC / (math.sqrt(2) * np.maximum(sigma_B1, 1e-12))
    swaps = normal.cdf(torch.from_numpy(-far_BC)).numpy()
    return float(np.where(is_other_BC, swaps, 0.0).sum(axis=1).clip(max=1.0).mean())


def spearman(one_BC: np.ndarray, other_BC: np.ndarray, read_BC: np.ndarray) -> np.ndarray:
    """Return each user's rank correlation of two scores over what was read; of users with two items."""
    lists = [(one[read], other[read]) for one, other, read in zip(one_BC, other_BC, read_BC, strict=True)]
    ranks = [[scores.argsort().argsort() for scores in pair] for pair in lists if len(pair[0]) > 1]
    return np.array([np.corrcoef(*pair)[0, 1] for pair in ranks])


def round_to_8_bits(model: Any, inputs_too: bool) -> None:
    """Round the weights of all linear layers but the head, row by row, and their inputs, token by token."""
    head = model.get_output_embeddings()
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer is not head:
            layer.weight.data = rounded_rows(layer.weight.data)
            if inputs_too:
                layer.register_forward_pre_hook(lambda _, inputs: (rounded_rows(inputs[0]), *inputs[1:]))


def rounded_rows(values: Tensor) -> Tensor:
    """Return the values on 255 even steps between the largest size of their row and its negative."""
    step = values.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / 127
    return (values / step).round() * step


def _shorter(trained: Trained, config: Config, dtype: str) -> Scorer:
    """Return what scores with numbers of that type."""
    if dtype in BITS:
        config = config.model_copy(update={"llm": config.llm.model_copy(update={"dtype": dtype})})
    llm = FrozenLLM.load(config.llm, cache_folder(config.cache))
    if dtype not in BITS:
        round_to_8_bits(llm.model, inputs_too=dtype == "int8")
    return Scorer(trained.bundle, llm, config)


@torch.inference_mode()
def logits_of_titles(trained: Trained, num_items: int = 64) -> Logits:
    """Return the spread and size of logits at the tokens of some titles."""
    spreads, sizes = [], []
    for idx in range(1, num_items + 1):
        ids = torch.tensor([trained.bundle.titles.of(idx)], device=trained.llm.device)
        logits_TV = trained.llm.model(input_ids=ids).logits[0, :-1].float()
        spreads.append(logits_TV.var(dim=1))
        sizes.append(logits_TV.gather(1, ids[0, 1:, None])[:, 0] ** 2)
    return Logits(*(float(torch.cat(squares).mean().sqrt()) for squares in (spreads, sizes)))


def _in_blend(lists: CandidateLists, trained: Trained) -> np.ndarray:
    """Return by how much an error of the LLM's score moves the blend's log-probabilities, [B, 1] float64."""
    blend = trained.bundle.blends["with_llm"]
    spread_B1 = np.nanstd(lists.part("llm"), axis=1)[:, None]
    per_nat = blend.weights.get("llm", 0.0) / blend.temperature / np.where(spread_B1 > 0, spread_B1, 1.0)
    return np.where(spread_B1 > 0, per_nat, 0.0)  # without spread the part is 0 for all


def _read(lists: CandidateLists, scorer: Scorer) -> CandidateLists:
    """Return the lists as the LLM read them."""
    starts = range(0, len(lists), CHUNK_USERS)
    chunks = [np.arange(start, min(start + CHUNK_USERS, len(lists))) for start in starts]
    return CandidateLists.concatenated([scorer.score(lists.take(rows)) for rows in chunks])


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
