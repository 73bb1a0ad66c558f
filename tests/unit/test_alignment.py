from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from snapshot_fixture import chain_snapshot
from transformers import BertConfig, BertModel, BertTokenizer

from allmrec.config import Config, Stage1Config, TextEncoderConfig
from allmrec.item_text import item_text
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import CFModel
from allmrec.models.text_encoder import TextEncoder
from allmrec.reporting import Report
from allmrec.training.cf import train_cf
from allmrec.training.item_texts import embed_catalogue
from allmrec.training.loader import Snapshot
from allmrec.training.stage1 import Stage1Objective, Stage1Result, train_stage1
from allmrec.training.work import Work
from allmrec.weights import hash_parameters

CF = {
    "width": 16,
    "item_init": "random",
    "num_negatives": 8,
    "batch_size": 16,
    "epochs": 10,
    "learning_rate": 0.01,
}


def settings(**stage1: object) -> Config:
    stage1 = {"epochs": 3, "learning_rate": 1e-3, "width": 8, "batch_size": 16, **stage1}
    return Config.model_validate(
        {"cf": CF, "stage1": stage1, "training": {"num_threads": 1, "checkpoint_every": 4}}
    )


class Parts:
    """A snapshot, a trained CF model and a tiny random sentence encoder."""

    def __init__(self, folder: Path) -> None:
        self.snapshot = Snapshot(chain_snapshot(folder / "s", num_users=60))
        self.cf: CFModel = train_cf(Work(self.snapshot, settings(), folder / "cf", Report()), {})[0]
        self.encoder = TextEncoder.load(
            TextEncoderConfig(model=str(tiny_encoder(folder / "sbert"))), folder / "cache"
        )
        self.text_embeddings = embed_catalogue(self.encoder, self.snapshot.items())

    def train(self, work: Path, **stage1: object) -> Stage1Result:
        own = Work(self.snapshot, settings(**stage1), work, Report())
        return train_stage1(own, self.cf, self.encoder, self.text_embeddings)


def tiny_encoder(folder: Path) -> Path:
    """Save a BERT of two layers × 16 with random weights as a sentence-transformers folder."""
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] title : thing number of the kind red blue green".split() + list(
        "0123456789"
    )
    bert = folder / "bert"
    bert.mkdir(parents=True)
    (bert / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(bert)
    BertTokenizer(vocab=str(bert / "vocab.txt"), do_lower_case=True).save_pretrained(bert)
    layer = Transformer(str(bert), max_seq_length=32)
    SentenceTransformer(modules=[layer, Pooling(16)]).save_pretrained(
        str(folder / "model"), create_model_card=False
    )
    return folder / "model"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(tmp_path_factory.mktemp("parts"))


@pytest.mark.parametrize("networks", ["plain", "deep"])
def test_every_network_maps_between_its_spaces(networks: str) -> None:
    config = Stage1Config.model_validate({"networks": networks})
    alignment = AlignmentNetworks(64, 384, config)
    e, q = alignment.item_encoder(torch.randn(5, 64)), alignment.text_projector(torch.randn(5, 384))
    assert e.shape == q.shape == (5, 128)
    assert alignment.item_decoder(e).shape == (5, 64)
    assert alignment.text_decoder(q).shape == (5, 384)


def test_plain_networks_are_one_layer_and_a_sigmoid_and_deep_ones_have_four_hidden_layers() -> None:
    plain, deep = (
        AlignmentNetworks(64, 384, Stage1Config.model_validate({"networks": kind}))
        for kind in ("plain", "deep")
    )
    assert plain.item_encoder(torch.randn(50, 64)).gt(0).all()
    assert plain.item_encoder(torch.randn(50, 64)).lt(1).all()
    widths = [layer.out_features for layer in deep._item_encoder if isinstance(layer, torch.nn.Linear)]
    assert widths == [512, 384, 256, 192, 128]
    assert deep.item_encoder(torch.randn(50, 64)).lt(0).any()


def test_last_uses_one_position_and_all_uses_every_one(parts: Parts) -> None:
    sequences = torch.tensor([[0, 0, 3, 4, 5], [0, 0, 0, 7, 8]])
    Q = torch.from_numpy(parts.text_embeddings)
    last, every = (
        Stage1Objective(
            AlignmentNetworks(16, 16, config.stage1), parts.cf, lambda idx: Q[idx], config.stage1
        ).pairs(sequences)
        for config in (settings(), settings(positions="all"))
    )
    assert last.positives_N.tolist() == [5, 8]
    assert every.positives_N.tolist() == [4, 5, 8]
    assert torch.allclose(last.x_ND[0], parts.cf.user_representation(torch.tensor([[3, 4]]))[0], atol=1e-5)
    states = parts.cf.position_representations(sequences[:, :-1])
    assert torch.allclose(every.x_ND, torch.stack([states[0, 2], states[0, 3], states[1, 3]]), atol=1e-5)
    assert 0 not in every.negatives_N.tolist()
    assert last.negatives_N[0].item() not in {3, 4, 5}


def test_the_loss_is_the_weighted_sum_of_the_terms_that_are_switched_on(parts: Parts) -> None:
    torch.manual_seed(1)
    networks, Q = AlignmentNetworks(16, 16, settings().stage1), torch.from_numpy(parts.text_embeddings)
    E, rows, x = parts.cf.item_matrix(), torch.tensor([1, 2, 3, 4]), torch.randn(2, 16)

    def terms(**stage1: object) -> dict[str, float]:
        objective = Stage1Objective(networks, parts.cf, lambda idx: Q[idx], settings(**stage1).stage1)
        return {name: term.item() for name, term in objective.terms(E, Q, rows, x).items()}

    plain = terms(matching="mse", item_reconstruction=0.5, text_reconstruction=0.5)
    weighted = terms(matching="mse", item_reconstruction=1.0, text_reconstruction=0.0, recommendation=2.0)
    assert weighted["item_reconstruction"] == pytest.approx(2 * plain["item_reconstruction"])
    assert weighted["text_reconstruction"] == 0
    assert weighted["recommendation"] == pytest.approx(2 * plain["recommendation"])
    e, q = networks.item_encoder(E[rows]), networks.text_projector(Q[rows])
    of_positives, of_negatives = (
        ((e[half] - q[half]) ** 2).mean().item() for half in (slice(2), slice(2, 4))
    )
    assert plain["matching"] == pytest.approx(of_positives + of_negatives, abs=1e-6)
    assert set(terms(matching="none")) == set(plain) - {"matching"}


def test_the_papers_loss_is_the_sum_of_its_equations(parts: Parts) -> None:
    """By NumPy in float64, as the authors' code averages them: α .5, β .2, the score divided by the width."""
    torch.manual_seed(2)
    paper = {"matching": "mse", "item_reconstruction": 0.5, "text_reconstruction": 0.2}
    config = settings(**paper, recommendation_score="mean").stage1
    networks, Q = AlignmentNetworks(16, 16, config), torch.from_numpy(parts.text_embeddings)
    objective = Stage1Objective(networks, parts.cf, lambda idx: Q[idx], config)
    sequences = torch.randint(1, 13, (32, 8))
    torch.manual_seed(3)
    found = objective.loss(sequences).item()
    torch.manual_seed(3)
    pairs = objective.pairs(sequences)
    layers = [
        (one.weight.detach().double().numpy(), one.bias.detach().double().numpy())
        for one in networks.modules()
        if isinstance(one, torch.nn.Linear)
    ]
    (W_eI, b_eI), (W_eT, b_eT), (W_dI, b_dI), (W_dT, b_dT) = layers
    expected = 0.0
    for items, label in ((pairs.positives_N, 1.0), (pairs.negatives_N, 0.0)):
        E, q_text = parts.cf.item_matrix()[items].double().numpy(), Q[items].double().numpy()
        e, q = (1 / (1 + np.exp(-(x @ W.T + b))) for x, W, b in ((E, W_eI, b_eI), (q_text, W_eT, b_eT)))
        score = (pairs.x_ND.double().numpy() * (e @ W_dI.T + b_dI)).mean(axis=1)
        probability = 1 / (1 + np.exp(-score))
        expected += ((e - q) ** 2).mean()
        expected += 0.5 * ((E - (e @ W_dI.T + b_dI)) ** 2).mean()
        expected += 0.2 * ((q_text - (q @ W_dT.T + b_dT)) ** 2).mean()
        expected -= np.log(probability if label else 1 - probability).mean()
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "switches",
    [
        {"matching": "infonce"},
        {"matching": "mse", "text_reconstruction": 0.2},
        {"matching": "none"},
        {
            "matching": "infonce",
            "item_reconstruction": 0.0,
            "text_reconstruction": 0.0,
            "networks": "deep",
            "optimizer": "adamw",
        },
        {"positions": "all", "recommendation": 0.0},
        {"cf_dropout": True},
    ],
    ids=lambda switches: " ".join(map(str, switches.values())),
)
def test_every_switch_trains_and_leaves_the_cf_model_frozen(
    parts: Parts, tmp_path: Path, switches: dict[str, object]
) -> None:
    before = hash_parameters(parts.cf)
    result = parts.train(tmp_path, **switches)
    assert hash_parameters(parts.cf) == before
    assert result.encoder_folder is None
    assert np.array_equal(result.text_embeddings, parts.text_embeddings)
    assert all(np.isfinite(value) for value in result.figures.values())
    assert not result.networks.training


@pytest.mark.parametrize("positions", ["last", "all"])
def test_the_frozen_cf_models_dropout_can_stay_on(parts: Parts, positions: str) -> None:
    sequences = torch.tensor([[3, 4, 5, 6], [3, 4, 5, 6]])
    Q = torch.from_numpy(parts.text_embeddings)

    def states(cf_dropout: bool) -> torch.Tensor:
        config = settings(positions=positions, cf_dropout=cf_dropout).stage1
        objective = Stage1Objective(AlignmentNetworks(16, 16, config), parts.cf, lambda idx: Q[idx], config)
        torch.manual_seed(1)
        return objective.pairs(sequences).x_ND

    of_both = states(cf_dropout=True)
    assert not parts.cf.training, "the model is as it was"
    assert torch.equal(of_both, states(cf_dropout=True)), "the seed decides what is dropped"
    one, same = of_both.chunk(2)
    assert not torch.allclose(one, same, atol=0.1)
    one, same = states(cf_dropout=False).chunk(2)
    torch.testing.assert_close(one, same)
    torch.manual_seed(1)
    parts.cf.train()
    expected = parts.cf.position_representations(sequences[:, :-1])
    parts.cf.eval()
    torch.testing.assert_close(of_both, expected[:, -1] if positions == "last" else expected.flatten(0, 1))


def test_matching_brings_text_and_item_together(parts: Parts, tmp_path: Path) -> None:
    before = parts.train(tmp_path / "short", epochs=1, filter_threshold=1.0)
    after = parts.train(tmp_path / "long", epochs=60, learning_rate=5e-3, filter_threshold=1.0)
    assert after.figures["matching_infonce"] < before.figures["matching_infonce"] - 0.3
    with_mse, without = (
        parts.train(tmp_path / kind, epochs=30, matching=kind, learning_rate=5e-3) for kind in ("mse", "none")
    )
    assert with_mse.figures["matching_mse"] < 0.5 * without.figures["matching_mse"]


def test_a_tuned_encoder_is_saved_and_the_catalogue_encoded_again(parts: Parts, tmp_path: Path) -> None:
    before = hash_parameters(parts.encoder.model)
    result = parts.train(tmp_path, text_encoder="finetuned", epochs=2)
    assert hash_parameters(parts.encoder.model) == before, "the encoder handed in stays as it was"
    assert result.encoder_folder == tmp_path / "text_encoder"
    assert not [path for path in result.encoder_folder.rglob("*") if path.suffix in (".bin", ".pkl", ".pt")]
    assert result.text_embeddings.shape == parts.text_embeddings.shape
    assert not result.text_embeddings[0].any()
    assert not np.allclose(result.text_embeddings, parts.text_embeddings, atol=1e-3)
    loaded = TextEncoder.load(parts.encoder.config, tmp_path / "other cache", result.encoder_folder)
    titles = [item_text(title, None) for title in parts.snapshot.items()["title"]]
    assert np.allclose(loaded.encode(titles), result.text_embeddings[1:], atol=1e-5)


def test_a_tuned_encoder_does_not_give_all_texts_the_same_embedding(parts: Parts, tmp_path: Path) -> None:
    """With a gradient into the target of the text reconstruction a sixth of the variance is left here."""
    paper: dict[str, object] = {"matching": "mse", "text_reconstruction": 0.2}
    result = parts.train(tmp_path, text_encoder="finetuned", epochs=40, **paper)
    before, after = (Q[1:].var(axis=0).sum() for Q in (parts.text_embeddings, result.text_embeddings))
    assert after > 0.5 * before


@pytest.mark.parametrize("text_encoder", ["frozen", "finetuned"])
def test_a_killed_stage_1_resumes_to_the_same_weights(
    parts: Parts, tmp_path: Path, text_encoder: str
) -> None:
    whole = parts.train(tmp_path / "whole", text_encoder=text_encoder)

    def killed(line: str) -> None:
        if line.startswith("stage1: 8 / "):
            raise KeyboardInterrupt

    config = settings(text_encoder=text_encoder)
    report = Report(killed, every_seconds=0)
    work = Work(parts.snapshot, config, tmp_path / "killed", report)
    with pytest.raises(KeyboardInterrupt):
        train_stage1(work, parts.cf, parts.encoder, parts.text_embeddings)
    resumed = parts.train(tmp_path / "killed", text_encoder=text_encoder)
    for left, right in zip(whole.networks.parameters(), resumed.networks.parameters(), strict=True):
        assert torch.allclose(left, right, atol=1e-5)
    assert resumed.figures["loss"] == pytest.approx(whole.figures["loss"], abs=1e-5)
