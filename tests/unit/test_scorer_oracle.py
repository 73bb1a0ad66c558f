"""Multi-item scoring equals the slow way: one candidate at a time, a plain forward without any mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from allmrec.config import LLMConfig
from allmrec.llm import multi_item
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import (
    NON_FINITE,
    OUT_OF_MEMORY,
    PROMPT_TOO_LONG,
    item_priors,
    score_batch,
    score_requests,
)
from allmrec.llm.packing import Request, group_rows, pack
from allmrec.llm.prompt import USER, Prompt, PromptLayout
from tests.oracle import oracle
from tests.tiny_models import make_tiny_llm

FAMILIES = ("llama", "opt", "qwen2", "gpt2")


@pytest.fixture(scope="module", params=FAMILIES)
def llm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FrozenLLM:
    folder = tmp_path_factory.mktemp(request.param)
    return FrozenLLM.load(
        LLMConfig(model=str(make_tiny_llm(folder, request.param)), dtype="float32", device="cpu"), folder
    )


@torch.inference_mode()
def close(one: np.ndarray | None, other: np.ndarray | list[float] | None) -> None:
    """Raise AssertionError unless both are there and equal within 1e-5 nats and float32's rounding."""
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=3e-7)


def random_request(
    rng: np.random.Generator, prompt_tokens: int, num_answers: int, vocab: int, max_tokens: int = 9
) -> Request:
    """A prompt with soft tokens anywhere, and answers with common beginnings, some of them identical."""
    ids = rng.integers(5, vocab, prompt_tokens).tolist()
    places = sorted(rng.choice(prompt_tokens, size=min(3, prompt_tokens), replace=False).tolist())
    answers = [
        rng.integers(5, 9 if place < 2 else vocab, rng.integers(1, max_tokens + 1)).tolist()
        for place in rng.integers(0, 4, num_answers)
    ]
    answers[-1] = list(answers[0])
    if num_answers > 3:
        answers[1] = answers[2] + [7]
        answers[3] = [6]
    return Request(Prompt(ids, places, [USER, 3, 5][: len(places)]), answers)


def soft_tokens(llm: FrozenLLM, num_users: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, llm.width, generator=generator), torch.randn(
        num_users, llm.width, generator=generator
    )


@pytest.fixture(params=["as on a CPU", "as on a GPU"])
def grouping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of one request each, and passes of many."""
    if request.param == "as on a GPU":
        monkeypatch.setattr(multi_item, "_groups", lambda llm, rows, budget: group_rows(rows, budget))


@pytest.mark.usefixtures("grouping")
def test_scores_equal_those_of_one_candidate_at_a_time(llm: FrozenLLM) -> None:
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (4, 2), (60, 20), (7, 20), (25, 60), (33, 5), (2, 12)]
    requests = [random_request(rng, prompt, answers, llm.vocab_size) for prompt, answers in shapes]
    items, users = soft_tokens(llm, len(requests))
    scored = score_requests(llm, requests, items, users, token_budget=600)
    assert scored.failures == [None] * len(requests)
    for index, request in enumerate(requests):
        close(scored.logprobs[index], oracle(llm, request, index, items, users))


def test_two_hundred_candidates_over_several_rows_score_as_one_at_a_time(llm: FrozenLLM) -> None:
    if llm.model.config.model_type not in ("llama", "opt"):
        pytest.skip("200 candidates one at a time: Llama and OPT only")
    request = random_request(np.random.default_rng(1), 30, 200, llm.vocab_size, max_tokens=14)
    items, users = soft_tokens(llm, 1)
    assert sum(len(batch.token_ids) for batch in pack([request], 1024)) > 1
    scored = score_requests(llm, [request], items, users, token_budget=1024)
    close(scored.logprobs[0], oracle(llm, request, 0, items, users))


@pytest.mark.usefixtures("grouping")
def test_scores_do_not_depend_on_what_is_packed_together(llm: FrozenLLM) -> None:
    rng = np.random.default_rng(2)
    requests = [
        random_request(rng, int(rng.integers(3, 40)), int(rng.integers(1, 15)), llm.vocab_size)
        for _ in range(6)
    ]
    items, users = soft_tokens(llm, len(requests))
    together = score_requests(llm, requests, items, users, token_budget=4096)
    for budget in (1, 200):
        apart = score_requests(llm, requests, items, users, token_budget=budget)
        for one, other in zip(together.logprobs, apart.logprobs, strict=True):
            close(one, other)


def test_priors_are_the_scores_after_the_bare_opening(llm: FrozenLLM) -> None:
    layout = PromptLayout("no_list", "item", llm.tokenise, llm.bos_ids, llm.eos_id, 10, True)
    titles = layout.tokenise_titles(
        ["red tent", "red tent", "x", "red tent; blue", "blue rain jacket for two"] * 30, cap=12
    )
    idxs = list(range(1, titles.num_items + 1))
    request = Request(Prompt(layout.opening()), [layout.answer(idx, titles) for idx in idxs[:5]])
    expected = oracle(llm, request, 0, *soft_tokens(llm, 1))
    priors = item_priors(llm, layout, titles, idxs, 512)
    assert priors.dtype == np.float32
    close(priors, expected * 30)


def test_gradients_reach_the_soft_tokens_and_nothing_else(llm: FrozenLLM) -> None:
    request = random_request(np.random.default_rng(3), 12, 6, llm.vocab_size)
    items, users = (tensor.requires_grad_() for tensor in soft_tokens(llm, 1))
    [batch] = pack([request], 4096)
    score_batch(llm, batch, items, users).sum().backward()
    assert items.grad is not None
    assert users.grad is not None
    used = items.grad.abs().sum(dim=1) > 0
    assert used.nonzero().flatten().tolist() == [3, 5]
    assert users.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in llm.model.parameters())


class SmallMemory(FrozenLLM):
    """The same LLM on a machine whose memory holds `limit` tokens a pass."""

    limit = 0
    refusals = 0

    def hidden(
        self, inputs_embeds_BTH: torch.Tensor, mask_B1TT: torch.Tensor, position_ids_BT: torch.Tensor
    ) -> torch.Tensor:
        if position_ids_BT.numel() > self.limit:
            self.refusals += 1
            raise torch.OutOfMemoryError(f"out of memory: {position_ids_BT.numel()} tokens")
        return super().hidden(inputs_embeds_BTH, mask_B1TT, position_ids_BT)


def test_a_pass_without_enough_memory_is_split_and_its_largest_user_falls_back(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multi_item, "_groups", lambda llm, rows, budget: group_rows(rows, budget))
    rng = np.random.default_rng(4)
    requests = [random_request(rng, prompt, 4, llm.vocab_size) for prompt in (5, 9, 12, 300, 20)]
    items, users = soft_tokens(llm, len(requests))
    small = SmallMemory(llm.model, llm.tokenizer, llm.name, llm.weight_hash)
    small.limit = 150
    scored = score_requests(small, requests, items, users, token_budget=2000)
    assert scored.failures == [None, None, None, OUT_OF_MEMORY, None]
    assert scored.logprobs[3] is None
    assert small.refusals > 1
    whole = score_requests(llm, requests, items, users, token_budget=2000)
    for index in (0, 1, 2, 4):
        close(scored.logprobs[index], whole.logprobs[index])


def test_too_long_prompts_and_scores_that_are_no_numbers_fail_alone(llm: FrozenLLM) -> None:
    rng = np.random.default_rng(5)
    requests = [random_request(rng, prompt, 4, llm.vocab_size) for prompt in (10, llm.max_positions, 11)]
    items, users = soft_tokens(llm, len(requests))
    users[2] = float("nan")
    scored = score_requests(llm, requests, items, users, token_budget=1000)
    assert scored.failures == [None, PROMPT_TOO_LONG, NON_FINITE]
    close(scored.logprobs[0], oracle(llm, requests[0], 0, items, users))
