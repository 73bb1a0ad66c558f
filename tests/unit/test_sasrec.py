from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from snapshot_fixture import chain_snapshot, write_snapshot

from allmrec.config import Config
from allmrec.errors import InputError
from allmrec.models.cf import CFModel, build_cf_model
from allmrec.models.item_features import principal_components, standardised
from allmrec.reporting import Report
from allmrec.training.cf import INITIAL_STD, evaluate_full_ranking, train_cf
from allmrec.training.loader import Snapshot
from allmrec.training.work import Work

SMALL = {
    "width": 16,
    "item_init": "random",
    "num_negatives": 8,
    "batch_size": 16,
    "epochs": 12,
    "learning_rate": 0.01,
    "patience": 3,
}


def settings(checkpoint_every: int = 7, sasrec: dict[str, object] | None = None, **cf: object) -> Config:
    return Config.model_validate({
        "cf": {**SMALL, **cf, "sasrec": sasrec or {}},
        "training": {"checkpoint_every": checkpoint_every, "num_threads": 1},
    })  # fmt: skip


@pytest.fixture(params=["pre_norm", "authors"])
def model(request: pytest.FixtureRequest) -> CFModel:
    torch.manual_seed(2)
    return build_cf_model(settings(sasrec={"network": request.param}).cf, num_items=9, max_history=6).eval()


def test_padding_never_changes_a_representation(model: CFModel) -> None:
    short = torch.tensor([[3, 5, 7]])
    padded = torch.tensor([[0, 0, 0, 3, 5, 7], [1, 2, 3, 4, 5, 6]])
    assert torch.allclose(
        model.user_representation(short)[0], model.user_representation(padded)[0], atol=1e-6
    )
    states = model.position_representations(padded)
    assert states.shape == (2, 6, 16)
    assert not states[0, :3].any()
    assert torch.allclose(states[:, -1], model.user_representation(padded), atol=1e-6)
    assert torch.allclose(states[0, 3:], model.position_representations(short)[0], atol=1e-6)


def test_attention_is_causal(model: CFModel) -> None:
    states = [model.position_representations(torch.tensor([[1, 2, 3, last]]))[0] for last in (4, 9)]
    assert torch.allclose(states[0][:3], states[1][:3], atol=1e-6)
    assert not torch.allclose(states[0][3], states[1][3], atol=1e-3)


def test_the_order_of_the_history_matters(model: CFModel) -> None:
    one, other = model.user_representation(torch.tensor([[1, 2, 3], [2, 1, 3]]))
    assert not torch.allclose(one, other, atol=1e-4)


def test_the_newest_items_of_a_long_history_count(model: CFModel) -> None:
    long = torch.tensor([[8, 9, 1, 2, 3, 4, 5, 6]])
    assert torch.allclose(model.user_representation(long), model.user_representation(long[:, 2:]), atol=1e-6)
    assert model.position_representations(long).shape == (1, 8, 16)


def test_an_empty_history_is_the_zero_vector(model: CFModel) -> None:
    assert not model.user_representation(torch.zeros(2, 6, dtype=torch.int64)).any()


def test_unknown_items_are_invisible(model: CFModel) -> None:
    known = model.known.clone()
    known[4] = False
    model.set_known(known)
    plain = model.user_representation(torch.tensor([[0, 0, 1, 2]]))
    assert torch.allclose(model.user_representation(torch.tensor([[1, 4, 2, 4]])), plain, atol=1e-6)
    assert torch.allclose(model.user_representation(torch.tensor([[1, 2, 55, 4]])), plain, atol=1e-6)
    assert not model.position_representations(torch.tensor([[1, 2, 55, 4]]))[0, 2:].any()
    assert model.score(torch.tensor([[1, 2]]), torch.tensor([[4, 77, 0]])).tolist() == [[0, 0, 0]]


def test_scores_are_the_dot_products_with_the_item_matrix(model: CFModel) -> None:
    histories, candidates = torch.tensor([[1, 2], [0, 5]]), torch.tensor([[3, 4, 5], [9, 1, 2]])
    matrix = model.item_matrix()
    assert matrix.shape == (10, 16)
    assert not matrix[0].any()
    expected = (model.user_representation(histories)[:, None] * matrix[candidates]).sum(-1)
    assert torch.allclose(model.score(histories, candidates), expected, atol=1e-6)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"cf\.sasrec\.num_heads: 3, expected a divisor of cf.width"):
        build_cf_model(settings(sasrec={"num_heads": 3}).cf, 5, 5)


@pytest.mark.parametrize("network", ["pre_norm", "authors"])
@pytest.mark.parametrize("loss", ["sampled_softmax", "bce"])
def test_training_learns_what_follows_what(tmp_path: Path, loss: str, network: str) -> None:
    snapshot = Snapshot(chain_snapshot(tmp_path / "s", num_users=120))
    lines: list[str] = []
    config = settings(loss=loss, sasrec={"network": network}, epochs=30)
    model, figures = train_cf(Work(snapshot, config, tmp_path / "work", Report(lines.append)), {})
    assert figures["Hit@1"] > 0.7
    assert any("Hit@1" in line and "HR@10" in line and "NDCG@10" in line and "loss" in line for line in lines)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_training_killed_midway_resumes_with_equal_losses(tmp_path: Path) -> None:
    snapshot, config = Snapshot(chain_snapshot(tmp_path / "s")), settings()
    whole, figures = train_cf(Work(snapshot, config, tmp_path / "whole", Report()), {})

    def killed(line: str) -> None:
        if line.startswith("cf: 30 / "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_cf(Work(snapshot, config, tmp_path / "killed", Report(killed, every_seconds=0)), {})
    lines: list[str] = []
    resumed, again = train_cf(Work(snapshot, config, tmp_path / "killed", Report(lines.append)), {})
    assert lines[0].startswith("cf: resumes at step 28/")
    assert {**again, "seconds": 0} == pytest.approx({**figures, "seconds": 0}, abs=1e-5)
    assert torch.allclose(whole.item_matrix(), resumed.item_matrix(), atol=1e-5)


def test_three_items_and_five_users_are_enough(tmp_path: Path) -> None:
    sequences = {"a": [1, 2], "b": [2, 3], "c": [3], "d": [1, 2, 3, 1], "e": [2, 2]}
    lines: list[str] = []
    model, figures = train_cf(
        Work(
            Snapshot(write_snapshot(tmp_path / "s", sequences, ["x", "y", "z"])),
            settings(epochs=60),
            tmp_path / "work",
            Report(lines.append),
        ),
        {},
    )
    assert figures["epochs"] == 20
    assert any("no user is held back for early stopping" in line for line in lines)
    assert torch.isfinite(model.item_matrix()).all()


def test_users_with_one_interaction_each_are_refused(tmp_path: Path) -> None:
    snapshot = Snapshot(write_snapshot(tmp_path / "s", {"a": [1], "b": [2]}, ["x", "y"]))
    with pytest.raises(InputError, match="no user has two interactions"):
        train_cf(Work(snapshot, settings(), tmp_path / "work", Report()), {})


def test_items_without_interactions_are_never_trained(tmp_path: Path) -> None:
    snapshot = Snapshot(write_snapshot(tmp_path / "s", {"a": [1, 2], "b": [2, 3, 1]}, ["x", "y", "z", "new"]))
    models = [
        train_cf(Work(snapshot, settings(epochs=epochs), tmp_path / f"{epochs}", Report()), {})[0]
        for epochs in (1, 5)
    ]
    assert torch.equal(models[0].item_matrix()[4], models[1].item_matrix()[4])
    assert not models[0].known[4]
    assert not torch.equal(models[0].item_matrix()[1], models[1].item_matrix()[1])


def test_full_ranking_leaves_out_what_the_user_had(tmp_path: Path, model: CFModel) -> None:
    snapshot = Snapshot(
        write_snapshot(
            tmp_path / "s", {"a": [1, 2, 3]}, list("abcdefghi"), {"a": (4, "early_stop")}, max_history=6
        )
    )
    users = snapshot.held_back("early_stop")
    scores = model.score(torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6, 7, 8, 9]]))[0]
    rank = 1 + int((scores[1:] > scores[0]).sum())
    with torch.no_grad():
        assert evaluate_full_ranking(model, users)["Hit@1"] == float(rank == 1)
        known = torch.zeros(10, dtype=torch.bool)
        known[1:5] = True
        model.set_known(known)
        assert evaluate_full_ranking(model, users)["Hit@1"] == 1.0


def test_the_network_over_other_items_reads_them_as_it_read_its_own(model: CFModel) -> None:
    histories = torch.tensor([[0, 3, 5, 7], [0, 0, 2, 9]])
    order = [0, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    other = model.with_items(model.item_matrix()[[*order, 4, 4]])
    renamed = torch.where(histories > 0, 10 - histories, 0)
    assert other.num_items == 11
    assert torch.equal(other.user_representation(renamed), model.user_representation(histories))
    assert model.num_items == 9, "the model itself is as it was"


def test_item_embeddings_start_from_the_components_of_their_features(tmp_path: Path) -> None:
    snapshot = Snapshot(write_snapshot(tmp_path / "s", {"a": [1, 2], "b": [2, 3, 1]}, ["x", "y", "z", "new"]))
    texts = torch.tensor([[0.0, 0.0], [3.0, 1.0], [-3.0, 1.0], [3.0, -1.0], [2.9, 1.0]])
    config = settings(item_init="text", epochs=1, learning_rate=1e-9)
    items = train_cf(Work(snapshot, config, tmp_path / "work", Report()), {"text": texts})[0].item_matrix()
    near, far = (items[1, :2] - items[4, :2]).norm(), (items[1, :2] - items[2, :2]).norm()
    assert near < 0.1 * far
    assert items[1:, :2].square().mean().sqrt() == pytest.approx(INITIAL_STD, rel=1e-3)
    assert not items[0].any()
    # Two features give two components; the other columns are drawn, so that the model can still use them.
    assert items[1:, 2:].std() == pytest.approx(0.02, rel=0.5)


def test_principal_components_are_those_of_numpy_up_to_one_scale() -> None:
    features = torch.cat([torch.zeros(1, 6), torch.randn(50, 6, generator=torch.Generator().manual_seed(0))])
    centred = features[1:].numpy() - features[1:].numpy().mean(axis=0)
    left, singular, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    expected = left[:, :3] * singular[:3]
    found = principal_components(features, 3, 0.5)
    assert np.abs(found[1:].numpy()) == pytest.approx(
        np.abs(expected / np.sqrt((expected**2).mean()) * 0.5), abs=1e-5
    )
    assert not found[0].any()


def test_texts_that_are_all_alike_have_no_components() -> None:
    assert principal_components(torch.ones(5, 3), 2, 0.1).shape == (5, 0)


def test_standardised_features_have_columns_of_one_size() -> None:
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [1.0, 900.0, 0.0]
    )
    features[0] = 0.0
    scaled = standardised(features)
    assert scaled[1:].mean(dim=0).numpy() == pytest.approx(np.zeros(3), abs=1e-4)
    assert scaled[1:, :2].std(dim=0, correction=0).numpy() == pytest.approx(np.ones(2), abs=1e-3)
    assert not scaled[0].any()
    assert not scaled[:, 2].any()
