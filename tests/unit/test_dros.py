"""DROS weighs the errors of all items, beside the loss of any sequential backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from allmrec.config import load
from allmrec.models.cf import BACKBONES, build_cf_model
from allmrec.training.group import ALONE
from allmrec.training.losses import robust_loss
from allmrec.training.objectives.next_item import NextItemLoss

NUM_ITEMS = 9


def test_the_robust_loss_has_the_number_of_its_equation() -> None:
    scores = torch.tensor([[0.5, -0.2, 0.1]])
    is_next = torch.tensor([[True, False, False]])
    assert robust_loss(scores, is_next, torch.tensor([4, 1, 0])).item() == pytest.approx(1.201070, abs=1e-6)


@pytest.mark.parametrize("name", [name for name, one in BACKBONES.items() if one.objective == "next_item"])
def test_the_robust_loss_is_added_over_all_known_items(name: str) -> None:
    def loss_of(weight: float, kind: str) -> Any:
        settings = [f"cf.model={name}", "cf.width=8", f"cf.robust_weight={weight}", f"cf.loss={kind}"]
        torch.manual_seed(3)
        return NextItemLoss(model, load([], settings).cf, ALONE, torch.arange(NUM_ITEMS + 1))(sequences)

    torch.manual_seed(1)
    model = build_cf_model(load([], [f"cf.model={name}", "cf.width=8"]).cf, NUM_ITEMS, 6).eval()
    known = torch.arange(NUM_ITEMS + 1) > 0
    known[6] = False
    model.set_known(known)
    sequences = torch.tensor([[0, 3, 5, 7], [0, 0, 2, 9]])
    states_ND = model.position_representations(sequences[:, :-1])[sequences[:, :-1] > 0]
    scores_NI = states_ND @ model.item_matrix().T
    items = [1, 2, 3, 4, 5, 7, 8, 9]
    is_next = torch.tensor([5, 7, 9])[:, None] == torch.tensor(items)
    expected = robust_loss(scores_NI[:, items], is_next, torch.tensor(items))
    for kind in ("sampled_softmax", "bce"):
        assert torch.isclose(loss_of(0.5, kind) - loss_of(0.0, kind), 0.5 * expected, atol=1e-5)
