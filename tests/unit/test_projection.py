"""The projections and A-LLMRec's composition: shapes, standardisation, unknown items, scale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from allmrec.config import CFConfig, LLMConfig, Stage1Config, Stage2Config
from allmrec.llm.frozen import FrozenLLM
from allmrec.models import a_llmrec
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import build_cf_model
from tests.tiny_models import make_tiny_llm

NUM_ITEMS, ADDED = 12, 3


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> FrozenLLM:
    folder: Path = tmp_path_factory.mktemp("llm")
    return FrozenLLM.load(LLMConfig(model=str(make_tiny_llm(folder)), dtype="float32", device="cpu"), folder)


def make_rec(llm: FrozenLLM, **settings: object) -> ALLMRec:
    """Twelve items of the CF model, two of them without interactions, and three added since."""
    torch.manual_seed(0)
    cf = build_cf_model(CFConfig(width=8), NUM_ITEMS, 6)
    known = torch.ones(NUM_ITEMS + ADDED + 1, dtype=torch.bool)
    known[[0, 5, 6, 13, 14, 15]] = False
    cf.set_known(known[: NUM_ITEMS + 1])
    texts = torch.randn(NUM_ITEMS + ADDED + 1, 10)
    stage2 = Stage2Config.model_validate(settings)
    return ALLMRec.create(cf, AlignmentNetworks(8, 10, Stage1Config(width=4)), texts, known, llm, stage2)


@pytest.mark.parametrize("item_input", ["joint_and_text", "joint", "text", "cf", "random"])
@pytest.mark.parametrize("user_input", ["cf_and_history", "cf"])
def test_every_input_gives_tokens_of_the_llms_width_and_norm(
    llm: FrozenLLM, item_input: str, user_input: str
) -> None:
    rec = make_rec(llm, item_input=item_input, user_input=user_input)
    items = rec.soft_items()
    users = rec.soft_users(torch.tensor([[0, 0, 0, 1, 2, 15], [0, 0, 0, 0, 0, 13], [0] * 6]), items)
    assert items.shape == (16, llm.width)
    assert users.shape == (3, llm.width)
    assert items[0].abs().sum() == 0
    torch.testing.assert_close(items[1:].norm(dim=1), torch.full((15,), llm.token_norm))
    torch.testing.assert_close(users.norm(dim=1), torch.full((3,), llm.token_norm))
    torch.testing.assert_close(rec.soft_items(torch.tensor([4, 0, 13])), items[[4, 0, 13]])


def test_joint_inputs_are_standardised_over_what_is_there_and_zero_where_it_is_not(llm: FrozenLLM) -> None:
    rec = make_rec(llm)
    inputs = rec.item_inputs()
    assert inputs.shape == (16, 8)
    torch.testing.assert_close(inputs[rec.known, :4].mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs[1:, 4:].std(0, unbiased=False), torch.ones(4), atol=1e-5, rtol=0)
    assert inputs[~rec.known][:, :4].abs().sum() == 0
    assert inputs[0].abs().sum() == 0


def test_the_papers_inputs_stay_as_they_are_and_unknown_items_have_their_text(llm: FrozenLLM) -> None:
    rec = make_rec(llm, item_input="joint", scale_soft_tokens=False, user_input="cf")
    e, q = rec.joint()
    inputs = rec.item_inputs()
    torch.testing.assert_close(inputs[1:], e.where(rec.known[:, None], q)[1:])
    norms = rec.soft_items()[1:].norm(dim=1)
    assert norms.std() > 1e-3  # as they come


def test_text_can_stand_in_for_the_joint_embedding_of_every_item(llm: FrozenLLM) -> None:
    paper = make_rec(llm, item_input="joint", scale_soft_tokens=False)
    q = paper.joint()[1]
    torch.testing.assert_close(paper.text_soft_items()[1:], paper.projection.items(q)[1:])
    both = make_rec(llm)
    torch.testing.assert_close(both.text_soft_items()[~both.known], both.soft_items()[~both.known])
    assert (both.text_soft_items() - both.soft_items())[both.known].norm(dim=1).min() > 1e-3


def test_random_joint_embeddings_are_the_same_again_and_those_of_items_do_not_change_with_their_number(
    llm: FrozenLLM,
) -> None:
    rec = make_rec(llm, item_input="random")
    drawn = rec._raw_item_inputs()[0]
    torch.testing.assert_close(drawn, make_rec(llm, item_input="random")._raw_item_inputs()[0])
    assert drawn[1:].std() == pytest.approx(1, abs=0.3)
    rec.text_embeddings, rec.known = rec.text_embeddings[:14], rec.known[:14]
    torch.testing.assert_close(rec._raw_item_inputs()[0], drawn[:14])


def test_the_users_token_reads_the_order_and_the_pooled_history(llm: FrozenLLM) -> None:
    rec = make_rec(llm)
    items = rec.soft_items()
    one, other, longer = rec.soft_users(
        torch.tensor([[0, 0, 0, 1, 2, 3], [0, 0, 0, 3, 2, 1], [0, 0, 4, 1, 2, 3]]), items
    )
    assert (one - other).norm() > 1e-3
    assert (one - longer).norm() > 1e-3
    with_unknown, without = rec.soft_users(torch.tensor([[0, 0, 0, 1, 2, 14], [0, 0, 0, 0, 1, 2]]), items)
    assert (with_unknown - without).norm() > 1e-3  # an item the CF model never saw is pooled all the same


def test_how_many_users_are_pooled_at_a_time_changes_no_bit(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = make_rec(llm)
    histories = torch.randint(0, 15, (11, 7), generator=torch.Generator().manual_seed(0))
    together = rec.soft_users(histories, rec.soft_items())
    monkeypatch.setattr(a_llmrec, "POOLED_USERS", 3)
    assert torch.equal(rec.soft_users(histories, rec.soft_items()), together)


def test_the_e_part_is_dropped_in_training_only(llm: FrozenLLM) -> None:
    rec = make_rec(llm, unknown_dropout=0.5)
    torch.testing.assert_close(rec.soft_items(), rec.soft_items())
    rec.projection.train()
    torch.manual_seed(1)
    changed = (rec.soft_items() - rec.soft_items()).abs().sum(dim=1) > 1e-6
    assert changed[rec.known].any()
    assert not changed[~rec.known].any()


def test_gradients_reach_the_projections_only(llm: FrozenLLM) -> None:
    rec = make_rec(llm)
    items = rec.soft_items()
    rec.soft_users(torch.tensor([[0, 0, 0, 1, 2, 3]]), items).square().sum().backward()
    assert all(parameter.grad is None for part in (rec.cf, rec.alignment) for parameter in part.parameters())
    create_again = make_rec(llm)
    for name, value in create_again.projection.state_dict().items():
        torch.testing.assert_close(value, rec.projection.state_dict()[name])
    assert not any(
        parameter.requires_grad for part in (rec.cf, rec.alignment) for parameter in part.parameters()
    )
