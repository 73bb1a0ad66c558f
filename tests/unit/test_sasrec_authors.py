"""SASRec as the code of the paper's authors has it, by numbers that their code computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from allmrec.config import CFConfig
from allmrec.models.cf import CFModel, SASRec, build_cf_model
from allmrec.models.cf.sasrec import AuthorsBlock, RealItems
from allmrec.training.losses import bce_loss

CASE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "fidelity" / "sasrec.json").read_text("utf-8"))
SEQUENCES = torch.tensor(CASE["sequences"])
REAL = SEQUENCES > 0
OURS = {
    "attention_layernorms": "attention_norm",
    "attention_layers": "query_key_value",
    "forward_layernorms": "forward_norm",
    "conv1": "inner",
    "conv2": "outer",
    "out_proj": "attended",
}
"""A module of theirs and the same of ours."""


def our_name(theirs: str) -> str:
    """Return what a weight of theirs is called here."""
    parts = theirs.replace("in_proj_", "").split(".")
    if parts[0] in ("item_emb", "pos_emb"):
        return {"item_emb": "item_embedding", "pos_emb": "position_embedding"}[parts[0]] + ".weight"
    if parts[0] == "last_layernorm":
        return f"final_norm.{parts[1]}"
    module = parts[-2] if parts[-2] in OURS else parts[0]
    return f"blocks.{parts[1]}.{OURS[module]}.{parts[-1]}"


def with_their_weights(network: str) -> CFModel:
    """Return the model of the case; positions are counted from the newest item, theirs from the oldest."""
    config = CFConfig.model_validate({"width": 8, "sasrec": {"num_blocks": 2, "network": network}})
    model = build_cf_model(config, num_items=10, max_history=6)
    weights = {our_name(name): torch.tensor(values) for name, values in CASE["weights"].items()}
    weights["position_embedding.weight"] = weights["position_embedding.weight"].flip(0)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict({name: value.view(shapes[name]) for name, value in weights.items()} | known(model))
    return model.eval()


def known(model: CFModel) -> dict[str, Tensor]:
    """Return the part of the state that their model does not have."""
    return {"known": model.known}


def test_the_states_are_theirs_with_their_weights() -> None:
    model = with_their_weights("authors")
    users = torch.tensor(CASE["user_representation"])
    torch.testing.assert_close(model.user_representation(SEQUENCES), users, atol=1e-6, rtol=0)
    # Their float32 rounding: their own code in float64 is 3.1e-6 from these numbers, and equal to ours.
    states = model.double().position_representations(SEQUENCES)[REAL]
    expected = torch.tensor(CASE["states"], dtype=torch.float64)[REAL]
    torch.testing.assert_close(states, expected, atol=3.2e-6, rtol=0)


def test_logits_and_loss_are_theirs_with_their_weights() -> None:
    model = with_their_weights("authors")
    states = model.position_representations(SEQUENCES)
    logits = {
        kind: (states * model.item_matrix()[torch.tensor(CASE[f"{kind}s"])]).sum(-1)[REAL]
        for kind in ("positive", "negative")
    }
    for kind, values in logits.items():
        expected = torch.tensor(CASE[f"{kind}_logits"])[REAL]
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)
    assert bce_loss(*logits.values()).item() == pytest.approx(CASE["bce_loss"], abs=1e-6)


def test_the_default_network_is_another_one() -> None:
    found = with_their_weights("pre_norm").user_representation(SEQUENCES)
    cosines = nn.functional.cosine_similarity(found, torch.tensor(CASE["user_representation"]))
    assert cosines.mean() < 0.95


def test_an_unknown_item_is_as_if_it_were_not_there_and_shorter_padding_changes_nothing() -> None:
    model = with_their_weights("authors")
    is_known = model.known.clone()
    is_known[4] = False
    model.set_known(is_known)
    plain = model.position_representations(torch.tensor([[0, 0, 0, 1, 2, 3]]))[0, 3:]
    for history, columns in (([1, 2, 3], [0, 1, 2]), ([1, 4, 2, 99, 3, 4], [0, 2, 4])):
        found = model.position_representations(torch.tensor([history]))
        torch.testing.assert_close(found[0, columns], plain, atol=1e-6, rtol=0)
        assert found[0].any(dim=1).sum() == 3


def first_block() -> AuthorsBlock:
    """Return the first block of the case."""
    model = with_their_weights("authors")
    assert isinstance(model, SASRec)
    block = model.blocks[0]
    assert isinstance(block, AuthorsBlock)
    return block


def test_dropout_is_on_the_attention_weights_and_not_on_what_attention_returns() -> None:
    block = first_block()
    nn.init.zeros_(block.outer.weight)
    nn.init.zeros_(block.outer.bias)
    items = torch.arange(6)
    causal = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    real = RealItems(torch.zeros_like(items), items, items, items.flip(0), causal)
    hidden = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    with torch.no_grad():
        draws = torch.stack([block.train()(hidden, real)[0] for _ in range(2000)])
        # The oldest item looks at itself alone: its weight, 1, is dropped or doubled.
        value = hidden[0] @ block.query_key_value.weight[16:].T + block.query_key_value.bias[16:]
        states = {
            weight: block.forward_norm(block.attention_norm(hidden[0]) + block.attended(weight * value))
            for weight in (0, 2)
        }
    shares = {
        weight: torch.isclose(draws, state, atol=1e-5).all(dim=1).float().mean().item()
        for weight, state in states.items()
    }
    assert shares[0] + shares[2] == 1.0
    assert shares[0] == pytest.approx(0.5, abs=0.04)


def test_every_matrix_starts_xavier_normal_and_attention_without_biases() -> None:
    torch.manual_seed(0)
    config = CFConfig.model_validate({"width": 40, "sasrec": {"num_blocks": 2, "network": "authors"}})
    model = build_cf_model(config, num_items=3000, max_history=50)
    for name, value in model.named_parameters():
        if value.dim() > 1:
            expected = (2 / (value.shape[0] + value.shape[1])) ** 0.5
            assert value.std().item() == pytest.approx(expected, rel=0.08), name
        if name.endswith(("query_key_value.bias", "attended.bias")):
            assert not value.any(), name
    assert not model.item_matrix()[0].any()
