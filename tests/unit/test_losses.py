from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from allmrec.training.losses import (
    bce_loss,
    info_nce,
    listwise_loss,
    mse_of_both,
    recommendation_loss,
    sampled_softmax_loss,
)


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_bce_is_the_papers_formula(random: torch.Generator) -> None:
    positive, negative = torch.randn(7, generator=random), torch.randn(7, generator=random)
    expected = -(torch.log(torch.sigmoid(positive)) + torch.log(1 - torch.sigmoid(negative))).mean()
    assert bce_loss(positive, negative).item() == pytest.approx(expected.item(), abs=1e-6)


def test_bce_stays_finite_for_huge_scores() -> None:
    assert bce_loss(torch.tensor([-1e4]), torch.tensor([1e4])).item() == pytest.approx(2e4)


def test_sampled_softmax_equals_the_full_softmax_over_positive_and_negatives(random: torch.Generator) -> None:
    positive, negative = torch.randn(4, generator=random), torch.randn(4, 6, generator=random)
    expected = nn.functional.cross_entropy(
        torch.cat([positive[:, None], negative], dim=1), torch.zeros(4, dtype=torch.int64)
    )
    assert sampled_softmax_loss(
        positive, negative, torch.zeros(4, 6, dtype=torch.bool)
    ).item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_negative_that_is_the_positive_itself_is_left_out(random: torch.Generator) -> None:
    positive, negative = torch.randn(2, generator=random), torch.randn(2, 3, generator=random)
    hits = torch.tensor([[True, False, False], [False, False, False]])
    expected = (
        torch.logsumexp(torch.stack([positive[0], *negative[0, 1:]]), 0)
        - positive[0]
        + torch.logsumexp(torch.stack([positive[1], *negative[1]]), 0)
        - positive[1]
    ) / 2
    assert sampled_softmax_loss(positive, negative, hits).item() == pytest.approx(expected.item(), abs=1e-6)


def test_sampled_softmax_has_gradients_when_every_negative_is_accidental() -> None:
    scores = torch.zeros(1, requires_grad=True)
    negatives = torch.zeros(1, 2, requires_grad=True)
    loss = sampled_softmax_loss(scores, negatives, torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    for grad in (scores.grad, negatives.grad):
        assert grad is not None
        assert torch.isfinite(grad).all()


def test_info_nce_without_filter_is_cross_entropy_of_cosines(random: torch.Generator) -> None:
    e, q, texts = (torch.randn(5, 4, generator=random) for _ in range(3))
    logits = nn.functional.cosine_similarity(e[:, None], q[None], dim=-1) / 0.1
    assert info_nce(e, q, texts, 0.1, 1.0).item() == pytest.approx(
        nn.functional.cross_entropy(logits, torch.arange(5)).item(), abs=1e-5
    )


def test_info_nce_leaves_out_negatives_with_similar_texts(random: torch.Generator) -> None:
    e, q = torch.randn(3, 4, generator=random), torch.randn(3, 4, generator=random)
    texts = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])  # the first two are alike
    logits = nn.functional.cosine_similarity(e[:, None], q[None], dim=-1) / 0.1
    compared = [torch.tensor([0, 2]), torch.tensor([1, 2]), torch.tensor([0, 1, 2])]
    expected = [
        (torch.logsumexp(logits[row, columns], 0) - logits[row, row]).item()
        for row, columns in enumerate(compared)
    ]
    assert info_nce(e, q, texts, 0.1, 0.6).item() == pytest.approx(sum(expected) / 3, abs=1e-5)


def test_info_nce_of_items_that_are_all_alike_is_zero(random: torch.Generator) -> None:
    e, q = torch.randn(3, 4, generator=random), torch.randn(3, 4, generator=random)
    assert info_nce(e, q, torch.ones(3, 2), 0.1, 0.6).item() == 0


def test_the_mean_squared_error_of_positives_and_that_of_negatives_are_added(random: torch.Generator) -> None:
    found, expected = (torch.randn(6, 5, generator=random) for _ in range(2))
    means = [float(((found[rows] - expected[rows]) ** 2).mean()) for rows in (slice(0, 3), slice(3, 6))]
    assert mse_of_both(found, expected).item() == pytest.approx(sum(means), abs=1e-6)


def test_the_recommendation_loss_scores_by_dot_product(random: torch.Generator) -> None:
    x, positive, negative = (torch.randn(6, 3, generator=random) for _ in range(3))
    expected = bce_loss(torch.einsum("bd,bd->b", x, positive), torch.einsum("bd,bd->b", x, negative))
    assert recommendation_loss(x, positive, negative).item() == pytest.approx(expected.item(), abs=1e-6)
    of_means = bce_loss((x * positive).mean(dim=1), (x * negative).mean(dim=1))
    found = recommendation_loss(x, positive, negative, "mean").item()
    assert found == pytest.approx(of_means.item(), abs=1e-6)


def test_the_listwise_loss_ignores_padding_and_its_gradients_are_finite() -> None:
    scores = torch.tensor([[1.0, 2.0, -math.inf], [0.0, 1.0, 2.0]], requires_grad=True)
    log_temperature = torch.tensor(0.7, requires_grad=True)
    loss = listwise_loss(scores, torch.tensor([1, 0]), log_temperature)
    loss.backward()
    short = nn.functional.cross_entropy(torch.tensor([[1.0, 2.0]]) / math.exp(0.7), torch.tensor([1]))
    full = nn.functional.cross_entropy(torch.tensor([[0.0, 1.0, 2.0]]) / math.exp(0.7), torch.tensor([0]))
    assert loss.item() == pytest.approx((short + full).item() / 2, abs=1e-6)
    for grad in (scores.grad, log_temperature.grad):
        assert grad is not None
        assert torch.isfinite(grad).all()
