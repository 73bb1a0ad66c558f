"""MoRec's item vectors are a map of the texts."""

from __future__ import annotations

import torch

from allmrec.config import load
from allmrec.models.cf import build_cf_model
from allmrec.models.cf.morec import MoRec

NUM_ITEMS = 9


def morec() -> MoRec:
    """Return an untrained model, in eval mode."""
    torch.manual_seed(1)
    model = build_cf_model(load([], ["cf.model=morec", "cf.width=8"]).cf, NUM_ITEMS, 6).eval()
    assert isinstance(model, MoRec)
    return model


def texts() -> torch.Tensor:
    """Return text embeddings [I+1, 5], row 0 zeros."""
    return torch.randn(NUM_ITEMS + 1, 5) * (torch.arange(NUM_ITEMS + 1) > 0)[:, None]


def test_items_that_swap_their_texts_swap_their_vectors() -> None:
    torch.manual_seed(2)
    features = texts()
    text_map = morec().text_map({"text": features})
    swapped = morec().text_map({"text": features[[0, 1, 4, 3, 2, *range(5, NUM_ITEMS + 1)]]})
    swapped.load_state_dict(text_map.state_dict())
    torch.testing.assert_close(swapped()[[2, 4]], text_map()[[4, 2]])
    assert not torch.equal(text_map()[2], text_map()[4])
    assert not text_map()[0].any()


def test_training_reads_the_vectors_of_the_map_and_moves_it() -> None:
    model = morec()
    text_map = model.text_map({"text": texts()})
    histories = torch.tensor([[0, 3, 5, 7], [0, 0, 2, 9]])
    states = model.states_by(text_map(), histories)
    expected = model.with_items(text_map()).position_representations(histories)
    assert torch.allclose(states, expected, atol=1e-6)
    assert not torch.allclose(states, model.position_representations(histories), atol=1e-2)
    states.square().sum().backward()
    assert text_map.map.weight.grad is not None
    assert text_map.map.weight.grad.abs().max() > 1e-4
    assert model.item_embedding.weight.grad is None
    model.settle(text_map())
    assert torch.allclose(model.position_representations(histories), expected, atol=1e-6)
