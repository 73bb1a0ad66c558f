"""GRU4Rec, NextItNet and Caser compute their papers' equations, on numbers that other code computed."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from allmrec.config import load
from allmrec.models.cf import CFModel, build_cf_model
from allmrec.models.cf.caser import Caser
from allmrec.models.cf.gru4rec import GRU4Rec
from allmrec.models.cf.nextitnet import CausalConvolution, NextItNet

NUM_ITEMS, MAX_HISTORY, WIDTH = 20, 12, 8
Model = TypeVar("Model", bound=CFModel)


def untrained(kind: type[Model], *settings: str) -> Any:
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


def test_a_convolution_of_nextitnet_reads_zeros_before_the_first_item() -> None:
    convolution: Any = CausalConvolution(1, kernel_size=3, dilation=2)
    with torch.no_grad():
        convolution.convolution.weight.copy_(torch.tensor([[[100.0, 10.0, 1.0]]]))
        convolution.convolution.bias.zero_()
        columns = convolution(torch.tensor([[[1.0, 2, 3, 4, 5, 6]]]))
    assert columns.flatten().tolist() == [1, 2, 13, 24, 135, 246]


def test_nextitnet_is_its_equation_with_the_layers_of_torch() -> None:
    model = untrained(NextItNet, "cf.nextitnet.dilations=[1, 2]")
    x_MD = rows_of(model, 4, 8, 2, 6, 11)
    for block, dilation in zip(model.blocks, (1, 2), strict=True):
        inner_MD = x_MD
        pairs = ((block.near, block.near_norm, dilation), (block.far, block.far_norm, 2 * dilation))
        for layer, norm, distance in pairs:
            weight_DDK, bias_D = layer.convolution.weight, layer.convolution.bias
            before_TD = torch.cat([torch.zeros(2 * distance, WIDTH), inner_MD])
            taps = [before_TD[tap * distance : tap * distance + len(x_MD)] for tap in range(3)]
            conv_MD = sum(tap @ weight_DDK[:, :, k].T for k, tap in enumerate(taps)) + bias_D
            inner_MD = nn.functional.layer_norm(conv_MD, (WIDTH,), norm.weight, norm.bias).relu()
        x_MD = x_MD + inner_MD
    expected_MD = x_MD @ model.output.weight.T + model.output.bias
    found_MD = model.position_representations(torch.tensor([[0, 0, 4, 8, 2, 6, 11]]))[0, 2:]
    assert torch.allclose(found_MD, expected_MD, atol=1e-5)


def test_an_item_moves_the_states_of_nextitnet_from_its_place_on() -> None:
    model = untrained(NextItNet)
    one, other = (model.position_representations(torch.tensor([[5, 3, last, 9, 1, 2]]))[0] for last in (4, 8))
    assert torch.equal(one[:2], other[:2])
    assert ((one - other)[2:].abs().amax(dim=1) > 1e-4).all()


@pytest.mark.parametrize(("dilations", "num_items"), [("[1]", 7), ("[1, 4]", 31), ("[1, 2, 4, 8]", 91)])
def test_nextitnet_sees_as_many_items_as_its_dilations_reach(dilations: str, num_items: int) -> None:
    model = untrained(NextItNet, f"cf.nextitnet.dilations={dilations}")
    history = torch.arange(100).remainder(NUM_ITEMS)[None] + 1
    user = model.user_representation(history)
    for place, is_seen in ((100 - num_items, True), (99 - num_items, False)):
        changed = history.clone()
        changed[0, place] = history[0, place] % NUM_ITEMS + 1
        assert torch.equal(model.user_representation(changed), user) is not is_seen


def test_caser_joins_as_many_features_as_the_papers_sizes_give() -> None:
    model = untrained(Caser, "cf.width=50", "cf.caser.window=5")
    assert model.joined.in_features == 4 * 50 + 16 * 5 == 280


def test_a_horizontal_filter_of_ones_finds_the_largest_sum_of_neighbouring_rows() -> None:
    model = untrained(Caser, "cf.caser.window=4", "cf.caser.num_horizontal=1")
    with torch.no_grad():
        model.horizontal[1].weight.fill_(1.0)
        model.horizontal[1].bias.zero_()
    images_BDT = torch.tensor([[0.0, 0, 0, 1, 5, 2, 3, 0, 1]])[:, None].repeat(1, WIDTH, 1) / WIDTH
    # Windows: 0001, 0015, 0152, 1523, 5230, 2301.
    assert model._horizontal(images_BDT)[1].flatten().tolist() == pytest.approx([1, 6, 7, 7, 7, 5])


@pytest.mark.parametrize("items", [(3,), (3, 7, 1), (3, 7, 1, 9, 12, 5, 5)])
def test_caser_is_its_equation_on_the_image_of_the_newest_items(items: tuple[int, ...]) -> None:
    model = untrained(Caser, "cf.caser.num_horizontal=3", "cf.caser.num_vertical=2")
    image_WD = torch.cat([torch.zeros(5, WIDTH), rows_of(model, *items)])[-5:]
    vertical = [
        weight_W @ image_WD + bias
        for weight_W, bias in zip(model.vertical.weight[:, 0], model.vertical.bias, strict=True)
    ]
    vertical_F = torch.stack(vertical, dim=1).flatten()  # of each column both filters
    horizontal = []
    for height, layer in enumerate(model.horizontal, start=1):
        for weight_DH, bias in zip(layer.weight, layer.bias, strict=True):
            sums = [(weight_DH.T * image_WD[top : top + height]).sum() + bias for top in range(6 - height)]
            horizontal.append(torch.stack(sums).relu().max())
    z_D = model.joined(torch.cat([vertical_F, torch.stack(horizontal)])).relu()
    expected_D = model.output(torch.cat([z_D, rows_of(model, *items).mean(dim=0)]))
    padded = torch.tensor([[0, 0, 0, *items]])
    assert torch.allclose(model.user_representation(padded)[0], expected_D, atol=1e-5)


def test_caser_knows_items_before_its_window_as_the_users_mean_alone() -> None:
    model = untrained(Caser, "cf.caser.window=2")
    one, other = model.user_representation(torch.tensor([[1, 2, 3, 4, 5], [3, 1, 2, 4, 5]]))
    assert torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(one, model.user_representation(torch.tensor([[9, 2, 3, 4, 5]]))[0], atol=1e-4)
