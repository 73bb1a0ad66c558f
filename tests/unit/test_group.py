"""What several processes compute is together what one computes: losses, gradients, draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from snapshot_fixture import group_snapshot, write_snapshot
from torch import Tensor, nn

from allmrec.config import Config, load
from allmrec.llm.prompt import PromptLayout
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import BACKBONES, build_cf_model
from allmrec.reporting import Report
from allmrec.training.group import ALONE, Group
from allmrec.training.loader import Snapshot
from allmrec.training.objectives import OBJECTIVES
from allmrec.training.objectives.next_item import NextItemLoss
from allmrec.training.objectives.pairs import PairLoss
from allmrec.training.stage2 import PromptParts
from allmrec.training.stage2.llm_objective import LLMObjective
from allmrec.training.stage2.training_examples import Examples
from allmrec.training.work import Work
from tests.unit.tiny_bundle import tiny_llm

STEP_SEED = 5


def gradients(module: nn.Module, loss_of: Callable[[Group], Tensor], groups: list[Group]) -> list[Tensor]:
    """Return the sum over processes of their losses and of the gradients of every parameter that has one."""
    module.train().zero_grad()
    total = torch.zeros(())
    for group in groups:
        group.seed_step(STEP_SEED)
        loss = loss_of(group)
        loss.backward()
        total += loss.detach()
    return [total, *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


def check_the_same(module: nn.Module, loss_of: Callable[[Group], Tensor], size: int) -> None:
    alone = gradients(module, loss_of, [ALONE])
    together = gradients(module, loss_of, [Group(rank, size) for rank in range(size)])
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-5)
    assert any(value.abs().max() > 1e-3 for value in alone[1:])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("num_rows", [0, 1, 5, 8])
def test_every_row_is_in_the_share_of_one_process(size: int, num_rows: int) -> None:
    shares = [range(num_rows)[Group(rank, size).share(num_rows)] for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(num_rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def learning(objective: str) -> list[str]:
    """Return the backbones that learn by an objective."""
    return [name for name, backbone in BACKBONES.items() if backbone.objective == objective]


@pytest.mark.parametrize("backbone", learning("next_item"))
@pytest.mark.parametrize("loss", ["sampled_softmax", "bce"])
@pytest.mark.parametrize("size", [2, 5])
def test_the_parts_of_a_sequential_models_loss_sum_to_the_whole(backbone: str, loss: str, size: int) -> None:
    small = ["cf.dropout=0.0", "cf.width=8", "cf.num_negatives=6"]
    config = load([], [f"cf.model={backbone}", f"cf.loss={loss}", "cf.robust_weight=0.1", *small])
    torch.manual_seed(0)
    model = build_cf_model(config.cf, 20, 6)
    counts = torch.arange(21)
    sequences = torch.tensor([[0, 0, 0, 0, 3, 4], [1, 2, 3, 4, 5, 6], [0, 0, 0, 9, 8, 7]])  # 3 rows for 5
    check_the_same(model, lambda group: NextItemLoss(model, config.cf, group, counts)(sequences), size)


@pytest.mark.parametrize("backbone", [*learning("pairs"), *learning("labelled_pairs")])
@pytest.mark.parametrize("size", [2, 5])
def test_the_parts_of_a_factor_models_loss_sum_to_the_whole(backbone: str, size: int, tmp_path: Path) -> None:
    snapshot = Snapshot(write_snapshot(tmp_path, {"a": [3], "b": [1, 2, 3], "c": [9, 8]}, ["x"] * 20))
    config = load([], [f"cf.model={backbone}", "cf.dropout=0.0", "cf.width=8"])
    work = Work(snapshot, config, tmp_path, Report())
    torch.manual_seed(0)
    model = build_cf_model(config.cf, snapshot.num_items, snapshot.max_history)
    model.start_from(torch.randn(21, 8) * (torch.arange(21) > 0)[:, None])
    features = {"text": torch.randn(21, 5)}

    objective = OBJECTIVES[BACKBONES[backbone].objective](model, work, features, torch.device("cpu"), ALONE)
    loss = objective.loss
    assert isinstance(loss, PairLoss)
    batch = next(objective.batches(0))

    def loss_of(group: Group) -> Tensor:
        loss.group = group
        return loss(batch)

    check_the_same(loss.learner, loss_of, size)


def llm_loss(folder: Path, config: Config) -> tuple[nn.Module, Callable[[Group], Tensor]]:
    """Return projections with random weights, and their loss through a tiny LLM of four users."""
    llm, snapshot = tiny_llm(folder), Snapshot(group_snapshot(folder / "snapshot", 30))
    torch.manual_seed(0)
    cf = build_cf_model(config.cf, snapshot.num_items, snapshot.max_history)
    texts, known = torch.randn(snapshot.num_items + 1, 10), torch.from_numpy(snapshot.known_items())
    rec = ALLMRec.create(cf, AlignmentNetworks(8, 10, config.stage1), texts, known, llm, config.stage2)
    layout = PromptLayout.of(config.prompt, llm)
    titles = layout.tokenise_titles(snapshot.items()["title"].tolist(), config.prompt.title_tokens)
    objective = LLMObjective(rec, llm, PromptParts(layout, titles, None), config)
    examples = Examples.of(snapshot.held_back("stage2"), rec, llm.device)
    batch = objective.batch(examples, [0, 1, 2, 3], 0)
    return rec.projection, lambda group: objective.loss(examples, batch, group)


@pytest.mark.parametrize("objective", ["title_and_listwise", "title"])
@pytest.mark.parametrize("size", [2, 5])
def test_the_parts_of_stage_2s_loss_sum_to_the_whole_dropout_included(
    tmp_path: Path, objective: str, size: int
) -> None:
    small = ("cf.width=8", "stage1.width=6", "stage2.num_candidates=4", "prompt.history_items=3")
    config = load([], [*small, f"stage2.objective={objective}"])
    projection, loss_of = llm_loss(tmp_path, config)
    assert config.stage2.unknown_dropout
    check_the_same(projection, loss_of, size)


def test_processes_draw_the_same_for_a_batch_and_each_its_own_otherwise() -> None:
    draws, own = [], []
    for group in [ALONE, Group(0, 2), Group(1, 2)]:
        group.seed_step(STEP_SEED)
        with group.same_draws():
            draws.append(torch.rand(3).tolist())
        own.append(torch.rand(3).tolist())
    assert draws[0] == draws[1] == draws[2]
    assert own[1] != own[2]
