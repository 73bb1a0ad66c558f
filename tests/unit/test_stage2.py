"""Stage 2: examples, the warm start, training through the LLM, what stays frozen, and resuming."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from snapshot_fixture import group_snapshot
from torch import Tensor

from allmrec.config import CFConfig, Config, LLMConfig, Stage1Config, load
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import item_priors
from allmrec.llm.prompt import PromptLayout
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import build_cf_model
from allmrec.reporting import Report
from allmrec.training.checkpoint import copied_weights
from allmrec.training.loader import Snapshot
from allmrec.training.stage2 import PromptParts, train_stage2, warm_start
from allmrec.training.stage2.llm_objective import LLMObjective
from allmrec.training.stage2.soft_tokens import batch_tokens
from allmrec.training.stage2.training_examples import Examples
from allmrec.training.work import Work
from allmrec.weights import hash_parameters
from tests.tiny_models import make_tiny_llm

NUM_ITEMS, LENGTH, GROUPS = 40, 8, 4
SETTINGS = (
    "stage2.warm_start_steps=60",
    "stage2.epochs=1",
    "stage2.max_examples=24",
    "stage2.evaluate_every=3",
    "stage2.evaluation_users=8",
    "stage2.num_candidates=5",
    "training.num_threads=1",
    "training.checkpoint_every=2",
    "prompt.history_items=3",
)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several steps of the warm start in an epoch of 40 users."""
    monkeypatch.setattr(warm_start, "BATCH_USERS", 32)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> FrozenLLM:
    folder = tmp_path_factory.mktemp("llm")
    return FrozenLLM.load(LLMConfig(model=str(make_tiny_llm(folder)), dtype="float32", device="cpu"), folder)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Users who keep to one of four groups of items."""
    return Snapshot(group_snapshot(tmp_path_factory.mktemp("snapshot"), 120, NUM_ITEMS, GROUPS))


def make_rec(llm: FrozenLLM, config: Config) -> ALLMRec:
    """Item embeddings whose groups can be told apart, as a CF model would learn them."""
    torch.manual_seed(0)
    cf = build_cf_model(CFConfig(width=8), NUM_ITEMS, LENGTH)
    group = torch.arange(NUM_ITEMS + 1) % GROUPS
    with torch.no_grad():
        cf.item_matrix()[1:] += torch.eye(GROUPS, 8)[group[1:]]
    texts = torch.randn(NUM_ITEMS + 1, 10) * 0.1 + torch.eye(GROUPS, 10)[group]
    known = torch.arange(NUM_ITEMS + 1) > 0
    return ALLMRec.create(
        cf, AlignmentNetworks(8, 10, Stage1Config(width=6)), texts, known, llm, config.stage2
    )


def prompt_parts(snapshot: Snapshot, llm: FrozenLLM, config: Config) -> PromptParts:
    layout = PromptLayout.of(config.prompt, llm)
    titles = layout.tokenise_titles(snapshot.items()["title"].tolist(), config.prompt.title_tokens)
    priors = item_priors(llm, layout, titles, None, 1024) if config.prompt.layout == "no_list" else None
    return PromptParts(layout, titles, priors)


def trained(
    snapshot: Snapshot, llm: FrozenLLM, work: Path, *settings: str, rec: ALLMRec | None = None
) -> tuple[ALLMRec, dict[str, float], list[str]]:
    config = load([], [*SETTINGS, *settings])
    rec = rec or make_rec(llm, config)
    prompt, lines = prompt_parts(snapshot, llm, config), list[str]()
    return rec, train_stage2(Work(snapshot, config, work, Report(lines.append)), rec, llm, prompt), lines


def test_the_warm_start_learns_and_only_the_projections_change(
    snapshot: Snapshot, llm: FrozenLLM, tmp_path: Path
) -> None:
    frozen = hash_parameters(llm.model)
    rec, figures, lines = trained(snapshot, llm, tmp_path)
    fresh = make_rec(llm, load([], SETTINGS))
    assert hash_parameters(llm.model) == frozen
    assert hash_parameters(rec.cf) == hash_parameters(fresh.cf)
    assert hash_parameters(rec.alignment) == hash_parameters(fresh.alignment)
    assert hash_parameters(rec.projection) != hash_parameters(fresh.projection)
    assert figures["cosine_NDCG@10"] > 0.5
    assert figures["users"] == 80
    assert figures["examples"] == 24
    assert figures["loss_after"] <= figures["loss_before"]
    assert {"Hit@1_before", "Hit@1_after", "seconds"} <= figures.keys()
    assert any("max_examples" in line for line in lines)
    assert len([line for line in lines if line.startswith("stage2 warm start: ")]) == 1


@pytest.mark.parametrize(
    ("layout", "objective"),
    [
        ("paper", "title"),
        ("authors", "title"),
        ("authors prompt.tokenise=whole", "title_and_listwise"),
        ("token_first", "title_and_listwise"),
        ("no_list", "title"),
    ],
)
def test_every_layout_and_objective_trains(
    snapshot: Snapshot, llm: FrozenLLM, tmp_path: Path, layout: str, objective: str
) -> None:
    changes = (
        *f"prompt.layout={layout}".split(),
        f"stage2.objective={objective}",
        "stage2.warm_start_steps=0",
        "stage2.max_examples=120",
    )
    _, figures, _ = trained(
        snapshot,
        llm,
        tmp_path,
        *changes,
        "stage2.learning_rate=0.003",
        "stage2.evaluate_every=10",
        "stage2.patience=9",
    )
    assert figures["examples"] == 80
    assert figures["loss_after"] < figures["loss_before"]


@pytest.fixture(scope="module")
def well_trained(snapshot: Snapshot, llm: FrozenLLM, tmp_path_factory: pytest.TempPathFactory) -> ALLMRec:
    many = (
        "stage2.epochs=9",
        "stage2.max_examples=400",
        "stage2.learning_rate=0.003",
        "stage2.evaluate_every=20",
    )
    return trained(snapshot, llm, tmp_path_factory.mktemp("well"), *many)[0]


TOO_FAST = ("stage2.warm_start_steps=0", "stage2.learning_rate=10.0")


def test_training_that_makes_it_worse_leaves_the_start(
    snapshot: Snapshot, llm: FrozenLLM, tmp_path: Path, well_trained: ALLMRec
) -> None:
    rec = copy.deepcopy(well_trained)
    start = copied_weights({"projection": rec.projection})["projection"]
    _, figures, lines = trained(snapshot, llm, tmp_path, *TOO_FAST, rec=rec)
    assert figures["loss_after"] == figures["loss_before"]
    assert any("the start is kept" in line for line in lines)
    assert {
        name for name, value in rec.projection.state_dict().items() if not torch.equal(value, start[name])
    } <= {"log_temperature_listwise"}


def test_without_patience_all_epochs_are_trained_and_the_last_weights_are_the_result(
    snapshot: Snapshot, llm: FrozenLLM, tmp_path: Path, well_trained: ALLMRec
) -> None:
    whole = ("stage2.patience=null", "stage2.max_examples=null", "stage2.epochs=2")
    _, figures, lines = trained(snapshot, llm, tmp_path, *TOO_FAST, *whole, rec=copy.deepcopy(well_trained))
    assert figures["examples"] == 2 * figures["users"]
    assert figures["loss_after"] > figures["loss_before"]
    assert not any("the start is kept" in line for line in lines)


def test_every_users_last_train_item_is_learned_where_that_is_asked_for(
    snapshot: Snapshot, llm: FrozenLLM, tmp_path: Path
) -> None:
    _, figures, _ = trained(snapshot, llm, tmp_path, "stage2.examples=last_train_item")
    assert figures["users"] == (snapshot.lengths() >= 2).sum() > len(snapshot.held_back("stage2"))
    _, figures, _ = trained(snapshot, llm, tmp_path, "stage2.examples=all_train_items")
    assert figures["users"] == (snapshot.lengths() - 1).sum()


@pytest.mark.parametrize("cf_dropout", [False, True])
def test_a_training_that_was_cut_off_ends_with_the_same_weights(
    snapshot: Snapshot, llm: FrozenLLM, tmp_path: Path, cf_dropout: bool
) -> None:
    own = f"stage2.cf_dropout={cf_dropout}".lower()
    whole, _, _ = trained(snapshot, llm, tmp_path / "whole", own)
    config = load([], [*SETTINGS, own])

    class Killed(Exception):
        pass

    def cut(line: str) -> None:
        if line.startswith("stage2: 3 / "):
            raise Killed

    rec, prompt = make_rec(llm, config), prompt_parts(snapshot, llm, config)
    with pytest.raises(Killed):
        train_stage2(Work(snapshot, config, tmp_path / "cut", Report(cut, every_seconds=0)), rec, llm, prompt)
    resumed, _, lines = trained(snapshot, llm, tmp_path / "cut", own)
    assert any("resumes at step 2" in line for line in lines)
    for name, value in whole.projection.state_dict().items():
        torch.testing.assert_close(resumed.projection.state_dict()[name], value, atol=1e-5, rtol=0)


def test_the_frozen_cf_models_dropout_can_stay_on_where_the_projections_learn(
    snapshot: Snapshot, llm: FrozenLLM
) -> None:
    def tokens(cf_dropout: bool, is_training: bool) -> tuple[ALLMRec, Tensor, Tensor]:
        own = (
            "stage2.user_input=cf",
            "stage2.unknown_dropout=0.0",
            f"stage2.cf_dropout={cf_dropout}".lower(),
        )
        rec = make_rec(llm, load([], [*SETTINGS, *own]))
        rec.projection.train(is_training)
        examples = Examples.of(snapshot.held_back("stage2"), rec, torch.device("cpu"))
        rows = torch.arange(4)
        torch.manual_seed(3)
        users = batch_tokens(rec, rec.item_inputs(), examples, rows, examples.targets[rows]).users
        return rec, examples.histories[rows], users

    rec, histories, dropped = tokens(cf_dropout=True, is_training=True)
    assert not rec.cf.training, "the model is as it was"
    torch.testing.assert_close(dropped, tokens(cf_dropout=True, is_training=True)[2])
    plain = tokens(cf_dropout=False, is_training=True)[2]
    assert not torch.allclose(dropped, plain, atol=0.01)
    torch.testing.assert_close(tokens(cf_dropout=True, is_training=False)[2], plain)
    torch.manual_seed(3)
    x = rec.cf.train().user_representation(histories)
    expected = rec.projection.users(x, torch.ones(4, dtype=torch.bool), None)
    torch.testing.assert_close(dropped, expected, atol=1e-5, rtol=1e-4)


def test_without_stage2_users_nothing_is_trained_and_that_is_said(llm: FrozenLLM, tmp_path: Path) -> None:
    empty = Snapshot(group_snapshot(tmp_path / "snapshot", 0, NUM_ITEMS, GROUPS))
    rec, figures, lines = trained(empty, llm, tmp_path / "work")
    assert figures["users"] == 0
    assert figures["examples"] == 0
    assert hash_parameters(rec.projection) == hash_parameters(make_rec(llm, load([], SETTINGS)).projection)
    assert "not trained" in lines[-1]


def test_candidates_are_a_function_of_user_and_draw_and_never_what_the_user_had(
    snapshot: Snapshot, llm: FrozenLLM
) -> None:
    rows = snapshot.held_back("stage2")
    rec = make_rec(llm, load([], SETTINGS))
    examples, tail = (
        Examples.of(rows, rec, torch.device("cpu")),
        Examples.of(rows.iloc[5:], rec, torch.device("cpu")),
    )
    for row in range(5, 20):
        own = examples.candidates(row, 12, NUM_ITEMS, 1, 0)
        assert own.tolist() == tail.candidates(row - 5, 12, NUM_ITEMS, 1, 0).tolist()
        assert len(set(own.tolist())) == 12
        assert int(examples.targets[row]) in own
        assert not set(own.tolist()) & set(examples.seen[row].tolist())
    assert (
        examples.candidates(0, 12, NUM_ITEMS, 1, 0).tolist()
        != examples.candidates(0, 12, NUM_ITEMS, 1, 1).tolist()
    )
    everything = examples.candidates(0, 1000, NUM_ITEMS, 1, 0)
    assert len(everything) == NUM_ITEMS - len(examples.seen[0])


def test_the_listwise_loss_starts_at_the_temperature_where_it_is_least(
    snapshot: Snapshot, llm: FrozenLLM
) -> None:
    config = load([], SETTINGS)
    rec = make_rec(llm, config)
    prompt = prompt_parts(snapshot, llm, config)
    objective = LLMObjective(rec, llm, PromptParts(prompt.layout, prompt.titles, None), config)
    early_stopping = Examples.of(snapshot.held_back("early_stop"), rec, torch.device("cpu"))
    choices = objective.choice_scores(early_stopping, range(len(early_stopping)))
    objective.start_temperature(choices)
    started = rec.projection.log_temperature_listwise.item()
    losses = []
    for change in (-0.4, 0.0, 0.4):
        rec.projection.log_temperature_listwise.data.fill_(started + change)
        losses.append(objective.figures(choices)["listwise"])
    assert min(losses) == losses[1]
