"""GRU4Rec computes its papers' equations, on numbers that other code computed."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from allmrec.config import load
from allmrec.models.cf import CFModel, build_cf_model
from allmrec.models.cf.gru4rec import GRU4Rec

NUM_ITEMS, MAX_HISTORY, WIDTH = 20, 12, 8
Model = TypeVar("Model", bound=CFModel)


def untrained(kind: type[Model], *settings: str) -> Model:
    """Return a backbone with weights of some size, in eval mode."""
    name = kind.__name__.lower()
    torch.manual_seed(3)
    cf = load([], [f"cf.model={name}", f"cf.width={WIDTH}", *settings]).cf
    model = build_cf_model(cf, NUM_ITEMS, MAX_HISTORY).eval()
    assert isinstance(model, kind)
    model.start_from(torch.randn(NUM_ITEMS + 1, model.width) * (torch.arange(NUM_ITEMS + 1) > 0)[:, None])
    return model


def rows_of(model: CFModel, *items: int) -> Tensor:
    """Return E of the items, [M, D]."""
    return model.item_matrix()[list(items)]


@pytest.mark.parametrize("num_layers", [1, 2])
def test_gru4rec_is_torchs_gru_over_the_history_without_padding(num_layers: int) -> None:
    model = untrained(GRU4Rec, f"cf.gru4rec.num_layers={num_layers}", "cf.gru4rec.hidden_width=5")
    gru = nn.GRU(WIDTH, 5, num_layers, bias=False)
    gru.load_state_dict(model.gru.state_dict())
    hidden_MH, _ = gru(rows_of(model, 3, 7, 1))
    expected = hidden_MH[-1] @ model.output.weight.T + model.output.bias
    for history in ([3, 7, 1], [0] * 9 + [3, 7, 1], [0, 3, 99, 0, 7, 1]):
        assert torch.allclose(model.user_representation(torch.tensor([history]))[0], expected, atol=1e-6)


def test_gru4recs_cell_has_the_numbers_of_its_equations() -> None:
    model = untrained(GRU4Rec, "cf.width=1", "cf.gru4rec.hidden_width=1")
    with torch.no_grad():
        model.item_embedding.weight[1:3] = torch.tensor([[1.0], [-2.0]])
        model.gru.weight_ih_l0.copy_(torch.tensor([[0.5], [1.0], [2.0]]))  # reset, update, new
        model.gru.weight_hh_l0.copy_(torch.tensor([[1.0], [-1.0], [3.0]]))
        model.output.weight.fill_(2.0)
        model.output.bias.fill_(0.25)
    # h₁ = (1 − σ(1)) tanh(2); h₂ = (1 − z) tanh(−4 + 3 r h₁) + z h₁ with r = σ(−1 + h₁), z = σ(−2 − h₁)
    states = model.position_representations(torch.tensor([[1, 2]]))[0, :, 0]
    assert states.tolist() == pytest.approx([0.7685336, -1.5098583], abs=1e-6)
