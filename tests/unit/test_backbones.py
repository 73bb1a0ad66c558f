"""Every backbone keeps the contract of CF models; a new one is a class with its section and one line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from snapshot_fixture import chain_snapshot, group_snapshot, write_snapshot
from torch import Tensor, nn

from allmrec.bundle import extend_bundle, load_bundle, save_bundle
from allmrec.config import CFConfig, Config, Section, from_stored, load
from allmrec.config.sections.section import Fraction
from allmrec.errors import ConfigError
from allmrec.models.cf import BACKBONES, Backbone, Catalogue, CFModel, build_cf_model
from allmrec.reporting import Report
from allmrec.training.cf import train_cf
from allmrec.training.loader import Snapshot
from allmrec.training.objectives import OBJECTIVES
from allmrec.training.work import Work
from tests.unit.tiny_bundle import tiny_bundle, tiny_catalogue, tiny_encoder, tiny_llm

NUM_ITEMS, MAX_HISTORY, WIDTH = 9, 6, 16


class MarkovConfig(Section):
    memory: Fraction = 0.1
    """Share of the item before in a state."""


class CFWithMarkov(CFConfig):
    markov: MarkovConfig = MarkovConfig()  # the one line


class Markov(CFModel):
    """A linear map of the newest two items, as small as a backbone can be."""

    def __init__(self, num_items: int, width: int, memory: float) -> None:
        super().__init__(num_items, width)
        self.memory = memory
        self.items = nn.Embedding(num_items + 1, width, padding_idx=0)
        self.next = nn.Linear(width, width)

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> Markov:
        assert isinstance(settings, CFWithMarkov)
        return cls(catalogue.num_items, settings.width, settings.markov.memory)

    def with_items(self, matrix: Tensor) -> Markov:
        other = Markov(len(matrix) - 1, self.width, self.memory)
        other.next.load_state_dict(self.next.state_dict())
        other.items = nn.Embedding.from_pretrained(matrix.detach().clone(), padding_idx=0)
        return other.train(self.training)

    @torch.no_grad()
    def start_from(self, vectors_IC: Tensor) -> None:
        self.items.weight[:, : vectors_IC.shape[1]] = vectors_IC

    def item_matrix(self) -> Tensor:
        return self.items.weight

    def position_representations(self, histories_BL: Tensor) -> Tensor:
        items_BL = self.visible(histories_BL)
        before_B = torch.zeros_like(items_BL[:, 0])
        states = []
        for column_B in items_BL.T:
            state_BD = self.next(self.items(column_B) + self.memory * self.items(before_B))
            states.append(state_BD * (column_B > 0)[:, None])
            before_B = column_B.where(column_B > 0, before_B)
        return torch.stack(states, dim=1)

    def user_representation(self, histories_BL: Tensor) -> Tensor:
        columns = torch.arange(1, histories_BL.shape[1] + 1)
        newest_B = (columns * (self.visible(histories_BL) > 0)).argmax(dim=1)
        return self.position_representations(histories_BL)[torch.arange(len(newest_B)), newest_B]


@pytest.fixture(params=[*BACKBONES, "markov"])
def cf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CFConfig:
    """The settings of a backbone, the throw-away one among them."""
    monkeypatch.setitem(BACKBONES, "markov", Backbone(Markov.of))
    return CFWithMarkov.model_validate(
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
    one, other = (CFWithMarkov(markov=MarkovConfig(memory=memory)) for memory in (0.1, 0.2))
    assert one.decisive() == other.decisive() == CFConfig().decisive()
    chosen = [cf.model_copy(update={"model": "markov"}).decisive() for cf in (one, other)]
    assert chosen[0] != chosen[1]


def test_a_backbone_learns_by_an_objective_that_there_is(cf: CFConfig) -> None:
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


def test_a_state_is_the_user_of_the_history_up_to_there(cf: CFConfig, model: CFModel) -> None:
    history = torch.tensor([[0, 3, 5, 3, 7, 9]])
    states = model.position_representations(history)[0]
    # SASRec and MoRec count positions from the newest item: an older state is not that of a shorter history.
    for length in [6] if cf.model in ("sasrec", "morec") else range(1, 7):
        user = model.user_representation(history[:, :length])[0]
        assert torch.allclose(states[length - 1], user, atol=1e-6)


def test_a_history_in_a_batch_of_longer_ones_has_the_same_user(model: CFModel) -> None:
    alone, among = torch.tensor([[2, 6]]), torch.tensor([[0, 0, 0, 2, 6], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])
    users = model.user_representation(among)
    assert torch.allclose(users[0], model.user_representation(alone)[0], atol=1e-6)
    assert not users[2].any()


def test_the_order_of_the_history_matters_to_sequential_backbones_alone(cf: CFConfig, model: CFModel) -> None:
    one, other = model.user_representation(torch.tensor([[1, 2, 3], [1, 3, 2]]))
    is_sequential = BACKBONES[cf.model].objective == "next_item"
    assert torch.allclose(one, other, atol=1e-4 if is_sequential else 1e-6) is not is_sequential


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


def texts_of(snapshot: Snapshot) -> dict[str, Tensor]:
    """Return a direction of its own for the text of every item."""
    return {"text": torch.eye(snapshot.num_items + 1) * (torch.arange(snapshot.num_items + 1) > 0)}


def test_the_training_teaches_it_what_goes_with_what(cf: CFConfig, tmp_path: Path) -> None:
    is_sequential = BACKBONES[cf.model].objective == "next_item"
    planted = chain_snapshot if is_sequential else group_snapshot
    snapshot = Snapshot(planted(tmp_path / "s", num_users=120))
    config = Config().model_copy(update={"cf": cf})
    work = Work(snapshot, config, tmp_path / "work", Report())
    model, figures = train_cf(work, texts_of(snapshot))
    # Of a chain one item comes next, of a group of ten any of those that the user has not.
    assert figures["Hit@1" if is_sequential else "HR@10"] > 0.7
    assert not model.training


def test_a_killed_training_goes_on_to_the_weights_of_an_undisturbed_one(cf: CFConfig, tmp_path: Path) -> None:
    snapshot = Snapshot(chain_snapshot(tmp_path / "s", num_users=40))
    config = load([], ["training.checkpoint_every=4"])
    config = config.model_copy(update={"cf": cf.model_copy(update={"epochs": 5, "patience": None})})
    whole, figures = train_cf(Work(snapshot, config, tmp_path / "whole", Report()), texts_of(snapshot))

    def killed(line: str) -> None:
        if line.startswith("cf: 9 / "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_cf(
            Work(snapshot, config, tmp_path / "killed", Report(killed, every_seconds=0)), texts_of(snapshot)
        )
    lines: list[str] = []
    resumed, again = train_cf(
        Work(snapshot, config, tmp_path / "killed", Report(lines.append)), texts_of(snapshot)
    )
    assert lines[0].startswith("cf: resumes at step 8/")
    assert {**again, "seconds": 0} == {**figures, "seconds": 0}
    assert resumed.state_dict().keys() == whole.state_dict().keys()
    for name, weights in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weights), name


def test_the_training_starts_item_vectors_from_features(cf: CFConfig, tmp_path: Path) -> None:
    if cf.model in ("lightgcn", "ncf"):
        pytest.skip("E is what a network makes of the table that starts from features")
    snapshot = Snapshot(write_snapshot(tmp_path / "s", {"a": [1, 2], "b": [2, 3, 1]}, ["x", "y", "z", "new"]))
    texts = torch.tensor([[0.0, 0.0], [3.0, 1.0], [-3.0, 1.0], [3.0, -1.0], [2.9, 1.0]])
    start = cf.model_copy(update={"item_init": "text", "epochs": 1, "learning_rate": 1e-9})
    config = Config().model_copy(update={"cf": start})
    items = train_cf(Work(snapshot, config, tmp_path / "work", Report()), {"text": texts})[0].item_matrix()
    assert (items[1, :2] - items[4, :2]).norm() < 0.1 * (items[1, :2] - items[2, :2]).norm()


@pytest.mark.parametrize("name", BACKBONES)
def test_a_bundle_of_a_backbone_is_read_and_extended(name: str, tmp_path: Path) -> None:
    fresh = tiny_bundle(tmp_path, cf_model=name)
    llm, histories = tiny_llm(tmp_path), torch.tensor([[0, 0, 3, 1], [5, 31, 2, 30]])
    loaded = load_bundle(tmp_path / save_bundle(tmp_path, fresh, {"purpose": "serving"}), llm)
    items = tiny_catalogue()[["item_id", "title", "description"]]
    items = pd.concat([items, pd.DataFrame({"item_id": ["new"], "title": ["a new tent"]})])
    child = extend_bundle(loaded, items, tiny_encoder(tmp_path), llm, tmp_path / "children")
    expected = fresh.rec.cf.user_representation(histories)
    for other in (loaded, child):
        assert other.config.cf.model == name
        assert torch.equal(other.rec.cf.user_representation(histories), expected)


def test_a_setting_of_another_backbone_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError) as caught:
        load([], ["cf.model=gru4rec", "cf.caser.window=7", "cf.num_blocks=2"])
    assert str(caught.value) == (
        "cf.sasrec.num_blocks: 2, expected its default 1 where cf.model is gru4rec; remove it, or set "
        "cf.model=sasrec; cf.caser.window: 7, expected its default 5 where cf.model is gru4rec; remove it, "
        "or set cf.model=caser"
    )


def test_a_default_of_another_backbone_takes_back_what_a_file_sets(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text("cf:\n  sasrec:\n    num_blocks: 2\n", encoding="utf-8")
    assert load([file]).cf.sasrec.num_blocks == 2
    with pytest.raises(ConfigError, match=r"cf\.sasrec\.num_blocks: 2"):
        load([file], ["cf.model=caser"])
    assert load([file], ["cf.model=caser", "cf.sasrec.num_blocks=1"]).cf.model == "caser"


def test_a_stored_setting_of_another_backbone_is_read_whatever_its_default_is_now() -> None:
    stored = json.loads(Config().model_dump_json())
    stored["cf"]["caser"]["window"] = 9
    assert from_stored(stored).cf.model == "sasrec"


def test_an_unknown_backbone_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=f"expected one of {', '.join(BACKBONES)}$"):
        load([], ["cf.model=gru4rek"])
