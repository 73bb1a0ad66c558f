"""Every backbone keeps the contract of CF models; a new one is a class with its section and one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from snapshot_fixture import chain_snapshot, write_snapshot
from torch import Tensor, nn

from allmrec.config import CFConfig, Config, Section, load
from allmrec.config.sections.section import Count
from allmrec.models.cf import BACKBONES, Backbone, Catalogue, CFModel, build_cf_model
from allmrec.reporting import Report
from allmrec.training.cf import OBJECTIVES, train_cf
from allmrec.training.loader import Snapshot
from allmrec.training.work import Work

NUM_ITEMS, MAX_HISTORY, WIDTH = 9, 6, 16


class GRU4RecConfig(Section):
    num_layers: Count = 1
    """Layers of gated recurrent units."""


class CFWithGRU4Rec(CFConfig):
    gru4rec: GRU4RecConfig = GRU4RecConfig()  # the one line


class GRU4Rec(CFModel):
    """A recurrent network over item embeddings (Hidasi et al., 2016), as small as it can be."""

    def __init__(self, num_items: int, width: int, num_layers: int, dropout: float) -> None:
        super().__init__(num_items, width)
        self.items = nn.Embedding(num_items + 1, width, padding_idx=0)
        self.cells = nn.ModuleList(nn.GRUCell(width, width) for _ in range(num_layers))
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> GRU4Rec:
        assert isinstance(settings, CFWithGRU4Rec)
        return cls(catalogue.num_items, settings.width, settings.gru4rec.num_layers, settings.dropout)

    def with_items(self, matrix: Tensor) -> GRU4Rec:
        other = GRU4Rec(len(matrix) - 1, self.width, len(self.cells), self.dropout.p)
        other.cells.load_state_dict(self.cells.state_dict())
        other.items = nn.Embedding.from_pretrained(matrix.detach().clone(), padding_idx=0)
        return other.train(self.training)

    @torch.no_grad()
    def start_from(self, vectors_IC: Tensor) -> None:
        self.items.weight[:, : vectors_IC.shape[1]] = vectors_IC

    def item_matrix(self) -> Tensor:
        return self.items.weight

    def position_representations(self, histories_BL: Tensor) -> Tensor:
        is_real_BL1 = (self.visible(histories_BL) > 0).unsqueeze(-1)
        return self._states(histories_BL) * is_real_BL1

    def user_representation(self, histories_BL: Tensor) -> Tensor:
        return self._states(histories_BL)[:, -1]

    def _states(self, histories_BL: Tensor) -> Tensor:
        items_BL = self.visible(histories_BL)
        states_BLD = self.dropout(self.items(items_BL))
        for cell in self.cells:
            state_BD = states_BLD.new_zeros(len(items_BL), self.width)
            states = []
            for column in range(items_BL.shape[1]):
                state_BD = cell(states_BLD[:, column], state_BD).where(
                    items_BL[:, column, None] > 0, state_BD
                )
                states.append(state_BD)
            states_BLD = torch.stack(states, dim=1)
        return states_BLD


@pytest.fixture(params=[*BACKBONES, "gru4rec"])
def cf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CFConfig:
    """The settings of a backbone, the throw-away one among them."""
    monkeypatch.setitem(BACKBONES, "gru4rec", Backbone(GRU4Rec.of))
    return CFWithGRU4Rec.model_validate(
        {
            "model": request.param,
            "width": WIDTH,
            "item_init": "random",
            "num_negatives": 8,
            "batch_size": 16,
            "epochs": 30,
            "learning_rate": 0.01,
            "dropout": 0.2,
        }
    )


@pytest.fixture
def model(cf: CFConfig) -> CFModel:
    torch.manual_seed(2)
    return build_cf_model(cf, NUM_ITEMS, MAX_HISTORY).eval()


def test_every_section_of_cf_has_a_backbone_whose_name_can_be_set() -> None:
    assert list(BACKBONES) == CFConfig.backbones()
    for name in BACKBONES:
        assert load([], [f"cf.model={name}"]).cf.model == name


def test_the_settings_of_a_backbone_alone_have_other_names_than_the_shared_ones(cf: CFConfig) -> None:
    own = type(getattr(cf, cf.model)).model_fields
    assert not own.keys() & CFConfig.model_fields.keys()
    assert own.keys() <= cf.decisive().keys()


def test_the_settings_of_other_backbones_decide_nothing() -> None:
    one, other = ({"gru4rec": {"num_layers": layers}} for layers in (1, 2))
    sasrec = CFWithGRU4Rec.model_validate(one)
    assert sasrec.decisive() == CFWithGRU4Rec.model_validate(other).decisive() == CFConfig().decisive()
    chosen = [CFWithGRU4Rec.model_validate({"model": "gru4rec", **own}) for own in (one, other)]
    assert chosen[0].decisive() != chosen[1].decisive()


def test_a_backbone_learns_by_a_loss_that_there_is(cf: CFConfig) -> None:
    assert BACKBONES[cf.model].objective in OBJECTIVES


def test_item_vectors_start_where_they_are_told_to(model: CFModel) -> None:
    vectors_IC = torch.arange(3.0 * (NUM_ITEMS + 1)).view(-1, 3)
    vectors_IC[0] = 0
    drawn_ID = model.item_matrix().detach().clone()
    model.start_from(vectors_IC)
    assert torch.allclose(model.item_matrix()[:, :3], vectors_IC)
    assert torch.equal(model.item_matrix()[:, 3:], drawn_ID[:, 3:])


def test_item_vectors_learn_and_padding_has_none(model: CFModel) -> None:
    matrix = model.item_matrix()
    assert matrix.shape == (NUM_ITEMS + 1, WIDTH)
    assert not matrix[0].any()
    matrix[1:].sum().backward()
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_states_ignore_padding_and_unknown_items(model: CFModel) -> None:
    known = model.known.clone()
    known[4] = False
    model.set_known(known)
    plain, padded = torch.tensor([[3, 5, 7]]), torch.tensor([[0, 0, 3, 4, 5, NUM_ITEMS + 9, 7]])
    expected = model.position_representations(plain)[0]
    found = model.position_representations(padded)[0]
    assert torch.allclose(found[[2, 4, 6]], expected, atol=1e-6)
    assert not found[[0, 1, 3, 5]].any()
    assert torch.allclose(model.user_representation(padded), expected[-1:], atol=1e-6)
    assert not model.user_representation(torch.tensor([[0, 4]])).any()


def test_states_know_the_past_and_not_the_future(model: CFModel) -> None:
    states = [model.position_representations(torch.tensor([[1, 2, 3, last]]))[0] for last in (4, 9)]
    assert torch.allclose(states[0][:3], states[1][:3], atol=1e-6)
    assert not torch.allclose(states[0][3], states[1][3], atol=1e-4)


def test_the_network_reads_other_items_as_its_own(model: CFModel) -> None:
    histories = torch.tensor([[0, 3, 5, 7], [0, 0, 2, 9]])
    order = [0, *range(NUM_ITEMS, 0, -1)]
    other = model.with_items(model.item_matrix()[[*order, 4, 4]])
    renamed = torch.where(histories > 0, NUM_ITEMS + 1 - histories, 0)
    assert other.num_items == NUM_ITEMS + 2
    assert bool(other.known[1:].all())
    assert torch.equal(other.user_representation(renamed), model.user_representation(histories))


def test_stored_weights_give_the_same_scores(cf: CFConfig, model: CFModel) -> None:
    again = build_cf_model(cf, NUM_ITEMS, MAX_HISTORY).eval()
    again.load_state_dict(model.state_dict())
    pair = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6]])
    assert torch.equal(again.score(*pair), model.score(*pair))


def test_the_training_teaches_it_what_follows_what(cf: CFConfig, tmp_path: Path) -> None:
    snapshot = Snapshot(chain_snapshot(tmp_path / "s", num_users=120))
    config = Config().model_copy(update={"cf": cf})
    model, figures = train_cf(Work(snapshot, config, tmp_path / "work", Report()), {})
    assert figures["Hit@1"] > 0.7
    assert not model.training


def test_the_training_starts_item_vectors_from_features(cf: CFConfig, tmp_path: Path) -> None:
    snapshot = Snapshot(write_snapshot(tmp_path / "s", {"a": [1, 2], "b": [2, 3, 1]}, ["x", "y", "z", "new"]))
    texts = torch.tensor([[0.0, 0.0], [3.0, 1.0], [-3.0, 1.0], [3.0, -1.0], [2.9, 1.0]])
    start = cf.model_copy(update={"item_init": "text", "epochs": 1, "learning_rate": 1e-9})
    config = Config().model_copy(update={"cf": start})
    items = train_cf(Work(snapshot, config, tmp_path / "work", Report()), {"text": texts})[0].item_matrix()
    assert (items[1, :2] - items[4, :2]).norm() < 0.1 * (items[1, :2] - items[2, :2]).norm()
