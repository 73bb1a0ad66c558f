"""MF, LightGCN, NCF and VBPR compute their papers' equations, and fold users in by the normal equations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from snapshot_fixture import group_snapshot, write_snapshot
from torch import Tensor, nn

from allmrec.config import load
from allmrec.errors import InputError
from allmrec.models.cf import BACKBONES, build_cf_model
from allmrec.models.cf.factors import RIDGE, UNSEEN_WEIGHT, FactorModel, Interactions
from allmrec.models.cf.lightgcn import Propagation
from allmrec.models.cf.mf import Tables
from allmrec.models.cf.ncf import Towers
from allmrec.models.cf.vbpr import TextFactors
from allmrec.reporting import Report
from allmrec.training.cf import train_cf
from allmrec.training.group import ALONE
from allmrec.training.loader import Snapshot
from allmrec.training.losses import bpr_loss, labels_loss
from allmrec.training.objectives.pairs import PairLoss, UserBatches, UserItems
from allmrec.training.work import Work

NUM_ITEMS, WIDTH = 15, 6
FACTORS = [name for name, backbone in BACKBONES.items() if backbone.objective != "next_item"]
CPU = torch.device("cpu")


def matrix(num_items: int = NUM_ITEMS, width: int = WIDTH) -> Tensor:
    """Return item vectors [I+1, D], row 0 zeros."""
    vectors_ID = torch.randn(num_items + 1, width, generator=torch.Generator().manual_seed(4))
    vectors_ID[0] = 0
    return vectors_ID


def built(name: str = "mf") -> FactorModel:
    """Return an untrained factor model, in eval mode."""
    cf = load([], [f"cf.model={name}", f"cf.width={WIDTH}"]).cf
    model = build_cf_model(cf, NUM_ITEMS, 8).eval()
    assert isinstance(model, FactorModel)
    return model


def log_of(*pairs: tuple[int, ...]) -> Interactions:
    """Return the interactions of pairs of a user and an item."""
    user_N, item_N = torch.tensor(pairs).T
    return Interactions(int(user_N.max()) + 1, user_N, item_N)


def test_bpr_has_the_loss_and_the_gradient_of_its_equation() -> None:
    positive = torch.tensor([1.2], requires_grad=True)
    loss = bpr_loss(positive, torch.tensor([[0.2]]))
    loss.backward()
    assert loss.item() == pytest.approx(0.313262, abs=1e-6)
    assert positive.grad is not None
    assert positive.grad.item() == pytest.approx(-0.268941, abs=1e-6)


def test_the_loss_of_labels_is_torchs_cross_entropy_of_a_pair_and_its_negatives() -> None:
    scores_NM = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]])
    labels_NM = torch.tensor([[1.0, 0, 0], [1, 0, 0]])
    expected = nn.functional.binary_cross_entropy_with_logits(scores_NM, labels_NM, reduction="sum") / 2
    assert torch.isclose(labels_loss(scores_NM[:, 0], scores_NM[:, 1:]), expected)


@pytest.mark.parametrize("name", FACTORS)
def test_a_user_solves_the_normal_equations_of_every_prefix_of_the_history(name: str) -> None:
    model = built(name)
    known = torch.arange(NUM_ITEMS + 1) > 0
    known[[5, 9]] = False
    model.set_known(known)
    model.settle(matrix())
    vectors_KD = matrix()[known].double().numpy()
    a_DD = UNSEEN_WEIGHT * vectors_KD.T @ vectors_KD
    a_DD += RIDGE * (vectors_KD**2).mean() * np.eye(WIDTH)
    history = [0, 0, 3, 7, 5, 1, 3]  # padding, an unknown item, an item that came again
    states = model.position_representations(torch.tensor([history]))[0]
    for end, item in enumerate(history):
        had = [other for other in history[: end + 1] if other not in (0, 5)]
        rows_MD = matrix()[had].double().numpy()
        expected_D = np.linalg.solve(a_DD + rows_MD.T @ rows_MD, rows_MD.sum(axis=0))
        if item in (0, 5):
            expected_D = np.zeros(WIDTH)
        np.testing.assert_allclose(states[end].detach().numpy(), expected_D, atol=1e-4)


def test_items_of_another_shop_leave_the_fold_in_as_it_was_trained() -> None:
    model = built()
    model.settle(matrix())
    other = model.with_items(matrix(3) * 2)
    assert torch.equal(other.inverse_DD, model.inverse_DD)
    rows_MD = (matrix(3) * 2)[[1, 3]].double()
    a_DD = torch.linalg.inv(model.inverse_DD.double())
    expected_D = torch.linalg.solve(a_DD + rows_MD.T @ rows_MD, rows_MD.sum(dim=0))
    found_D = other.user_representation(torch.tensor([[0, 1, 3]]))[0]
    assert torch.allclose(found_D, expected_D.float(), atol=1e-4)


def propagation(log: Interactions, items: list[float], users: list[float], num_layers: int) -> Propagation:
    """Return LightGCN's learner of one column."""
    learner = Propagation(torch.tensor([[0.0], *([one] for one in items)]), log, num_layers, penalty=0.5)
    with torch.no_grad():
        learner.users.weight.copy_(torch.tensor(users)[:, None])
    return learner


@pytest.mark.parametrize("again", [(), ((0, 2), (0, 2))])
def test_lightgcn_has_the_numbers_of_its_equations(again: tuple[tuple[int, int], ...]) -> None:
    log = log_of((0, 1), (0, 2), (1, 2), (1, 3), *again)
    users_UD, items_ID = propagation(log, [3, 5, 7], [1, 2], 2).vectors(torch.tensor([0, 1]))
    assert users_UD[:, 0].tolist() == pytest.approx([2.290440, 3.733249], abs=1e-6)
    assert items_ID[:, 0].tolist() == pytest.approx([0, 2.324958, 4.178511, 4.560660], abs=1e-6)
    assert (users_UD[0] * items_ID[3]).item() == pytest.approx(10.445919, abs=1e-5)


def test_lightgcn_is_the_mean_of_powers_of_the_dense_matrix() -> None:
    random = np.random.default_rng(5)
    had_UI = random.random((7, NUM_ITEMS + 1)) < 0.3
    had_UI[:, 0] = False
    had_UI[:, 8] = False  # an item without a user
    had_UI[np.arange(7), 1 + np.arange(7)] = True
    learner = Propagation(matrix(), log_of(*zip(*had_UI.nonzero(), strict=True)), 3, penalty=0.0)
    adjacency = np.block([[np.zeros((7, 7)), had_UI], [had_UI.T, np.zeros((16, 16))]])
    scale = 1 / np.sqrt(np.maximum(adjacency.sum(axis=1), 1))
    normalised = scale[:, None] * adjacency * scale
    layer = np.concatenate([learner.users.weight.detach().numpy(), matrix().numpy()])
    expected = sum(np.linalg.matrix_power(normalised, power) @ layer for power in range(4)) / 4
    users_UD, items_ID = learner.vectors(torch.arange(7))
    np.testing.assert_allclose(torch.cat([users_UD, items_ID]).detach().numpy(), expected, atol=1e-6)


def test_lightgcn_shrinks_the_batchs_vectors_of_layer_0_alone() -> None:
    learner = propagation(log_of((0, 1), (1, 2)), [3, 5, 7], [1, 2], 2)
    penalty = learner.penalty(torch.tensor([0, 0]), torch.tensor([[1, 2], [1, 1]]))
    assert penalty.item() == pytest.approx(0.5 / 2 * ((1 + 9 + 25) + (1 + 9 + 9)) / 2)
    penalty.backward()
    assert learner.items.weight.grad is not None
    assert learner.items.weight.grad.flatten().bool().tolist() == [False, True, True, False]


def test_towers_end_without_a_relu() -> None:
    learner: Any = Towers(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), 1, hidden_width=2, dropout=0.5).eval()
    with torch.no_grad():
        learner.users.weight.copy_(torch.tensor([[1.0, -2.0]]))
        for tower in (learner.user_tower, learner.item_tower):
            for name, weights in tower.named_parameters():
                weights.copy_(torch.eye(2) if name.endswith("weight") else torch.zeros(2))
    users_UD, items_ID = learner.vectors(torch.tensor([0]))
    assert (users_UD[0] @ items_ID[1]).item() == pytest.approx(3.0)
    assert not items_ID[0].any()
    with torch.no_grad():
        learner.item_tower[-1].weight.neg_()
    assert learner.vectors(torch.tensor([0]))[1][1].tolist() == [-3.0, -4.0]


def test_vbpr_is_its_equation_as_a_dot_product() -> None:
    items_ID = torch.tensor([[0.0] * 5, [2.0, 1.0, 9.0, 9.0, 9.0]])
    learner = TextFactors(items_ID, torch.tensor([[0.0], [5.0]]), 1, penalty=0.0)
    with torch.no_grad():
        learner.users.weight.copy_(torch.tensor([[0.5, -1.0, 1.0, 0.5]]))
        learner.map.weight.copy_(torch.tensor([[0.2], [-0.4]]))
        learner.text_bias.weight.fill_(0.1)
        learner.bias.weight[1] = 0.3
    users_UD, found_ID = learner.vectors(torch.tensor([0]))
    assert (users_UD[0] @ found_ID[1]).item() == pytest.approx(0.4, abs=1e-6)
    assert not found_ID[0].any()


def test_networks_over_item_tables_start_from_the_models_vectors() -> None:
    log = log_of((0, 1), (1, 2))
    for name in ("mf", "lightgcn", "ncf"):
        model = built(name)
        model.start_from(matrix())
        learner = model.learner(log, {})
        assert isinstance(learner, Tables)
        assert torch.equal(learner.items.weight, matrix())


def test_a_negative_is_an_item_that_the_user_had_not() -> None:
    class Recorded(Tables):
        def penalty(self, user_N: Tensor, item_NM: Tensor) -> Tensor:
            found.append(item_NM)
            return super().penalty(user_N, item_NM)

    found: list[Tensor] = []
    batch = UserItems(torch.tensor([1, 0]), torch.tensor([[0, 1, 2], [7, 8, 9]]))
    torch.manual_seed(0)
    loss = PairLoss(built(), Recorded(matrix(), 2, 0.0), ALONE)
    for _ in range(50):
        loss(batch)
    pairs_N2 = torch.cat(found)
    assert set(pairs_N2[:, 0].tolist()) == {1, 2, 7, 8, 9}
    for had in ({1, 2}, {7, 8, 9}):
        negatives = {negative for item, negative in pairs_N2.tolist() if item in had}
        assert negatives == set(range(1, NUM_ITEMS + 1)) - had


def test_users_keep_their_numbers_in_every_batch(tmp_path: Path) -> None:
    sequences = {f"u{number:02}": [number % 9 + 1, number % 5 + 1] for number in range(30)}
    snapshot = Snapshot(write_snapshot(tmp_path / "s", sequences, ["x"] * 9))
    user_ids, user_N, item_N = snapshot.pairs()
    assert user_ids.tolist() == sorted(sequences)
    expected = sorted((int(user), item) for user, items in enumerate(sequences.values()) for item in items)
    assert sorted(zip(user_N.tolist(), item_N.tolist(), strict=True)) == expected
    work = Work(snapshot, load([], ["cf.batch_size=7"]), tmp_path, Report())
    batches = list(UserBatches(work, user_ids, CPU)(0))
    rows = [
        row for batch in batches for row in zip(batch.user_B.tolist(), batch.items_BL.tolist(), strict=True)
    ]
    assert sorted((user, item) for user, items in rows for item in items if item) == expected


@pytest.mark.parametrize("name", FACTORS)
def test_a_log_of_one_item_is_refused_with_what_was_found(name: str, tmp_path: Path) -> None:
    snapshot = Snapshot(write_snapshot(tmp_path / "s", {"a": [2], "b": [2]}, ["x", "y", "z"]))
    work = Work(snapshot, load([], [f"cf.model={name}"]), tmp_path / "work", Report())
    with pytest.raises(InputError, match="2 pairs of a user and an item, of 1 different items, expected two"):
        train_cf(work, {"text": torch.eye(4)})


@pytest.mark.parametrize("name", FACTORS)
def test_a_trained_model_is_as_large_for_more_users(name: str, tmp_path: Path) -> None:
    sizes = set()
    for num_users in (30, 90):
        snapshot = Snapshot(group_snapshot(tmp_path / f"s{num_users}", num_users))
        settings = [f"cf.model={name}", "cf.width=8", "cf.epochs=1", "cf.item_init=random"]
        work = Work(snapshot, load([], settings), tmp_path / f"w{num_users}", Report())
        model, _ = train_cf(work, {"text": torch.randn(snapshot.num_items + 1, 5)})
        sizes.add(sum(one.numel() for one in model.state_dict().values()))
    assert sizes == {41 * 8 + 8 * 8 + 41}


def test_a_model_without_early_stopping_has_the_vectors_of_the_last_step(tmp_path: Path) -> None:
    snapshot = Snapshot(write_snapshot(tmp_path / "s", {"a": [1, 2], "b": [2, 3], "c": [1, 3]}, ["x"] * 3))
    settings = ["cf.model=mf", "cf.width=4", "cf.epochs=3", "cf.item_init=random", "cf.learning_rate=0.1"]
    work = Work(snapshot, load([], settings), tmp_path / "work", Report())
    model, _ = train_cf(work, {})
    untrained = build_cf_model(work.config.cf, 3, snapshot.max_history)
    assert (model.item_matrix() - untrained.item_matrix()).abs().max() > 0.15
