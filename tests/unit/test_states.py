"""A trained part of one's own: a class and a line in each table, and a bundle has it like any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from allmrec.bundle import (
    STATES,
    Bundle,
    FittedOrder,
    NewItems,
    State,
    Stored,
    TitleState,
    extend_bundle,
    load_bundle,
    save_bundle,
    transferred_bundle,
)
from allmrec.bundle.contents import FLOATS
from allmrec.bundle.folder import checksums
from allmrec.bundle.states.state import grown
from allmrec.config import Config, load
from allmrec.errors import BundleError
from allmrec.reporting import Report
from allmrec.training.loader import Snapshot
from allmrec.training.pipeline import train_bundle
from allmrec.training.trainers import TRAINERS, FrozenModels, States, Trainer, training_order
from allmrec.training.work import Work
from tests.unit.snapshot_fixture import group_snapshot
from tests.unit.tiny_bundle import tiny_bundle, tiny_encoder, tiny_llm

SETTINGS = (
    "training.num_threads=1",
    "cf.width=8",
    "cf.epochs=1",
    "cf.num_negatives=8",
    "stage1.width=6",
    "stage1.epochs=1",
    "stage2.warm_start_steps=2",
    "stage2.max_examples=4",
    "stage2.evaluation_users=4",
    "stage2.num_candidates=5",
    "prompt.history_items=3",
    "sequences.max_history=8",
    "llm.dtype=float32",
    "llm.device=cpu",
)
FINISHED = {"purpose": "serving", "trained_before": "2026-01-05"}


@dataclass(frozen=True)
class Recency(State):
    """How many users had each item last."""

    name = "recency"
    files = ("recency.txt",)

    counts: Tensor
    """Float32 [I+1]."""

    def item_tensors(self) -> dict[str, Tensor]:
        return {"recency": self.counts}

    def save(self, folder: Path) -> None:
        (folder / "recency.txt").write_text(f"{self.counts.sum():.0f}")

    @classmethod
    def load(cls, stored: Stored) -> Recency | None:
        if not (stored.folder / "recency.txt").exists():
            return None
        return cls(stored.tensor("recency", FLOATS, stored.num_rows))

    def extended(self, new: NewItems) -> Recency:
        return Recency(grown(self.counts, new.num_rows))

    def transferred(self, new: NewItems) -> Recency:
        return Recency(torch.zeros(new.num_rows))


def train_recency(work: Work, models: FrozenModels, states: States) -> tuple[State, dict[str, float]]:
    last = work.snapshot.train_targets("last")["held_back"].to_numpy(dtype="int64")
    counts = torch.bincount(torch.from_numpy(last), minlength=work.snapshot.num_items + 1).float()
    return Recency(counts), {"recency_users": float(len(last)), "recency_states": float(len(states))}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("states")


@pytest.fixture
def with_recency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATES, Recency.name, Recency)
    monkeypatch.setitem(TRAINERS, Recency.name, Trainer(train_recency, needs=("cf",)))


def config_of(root: Path) -> Config:
    return load([], [*SETTINGS, f"llm.model={root / 'llm0'}", f"cache.folder={root / 'cache'}"])


@pytest.mark.usefixtures("with_recency")
def test_a_state_of_ones_own_is_trained_saved_loaded_extended_and_transferred(
    root: Path, tmp_path: Path
) -> None:
    llm, encoder = tiny_llm(root), tiny_encoder(root)
    snapshot = Snapshot(group_snapshot(tmp_path / "snapshot", 60))
    trained, figures = train_bundle(Work(snapshot, config_of(root), tmp_path / "work", Report()))
    counts = trained.state(Recency).counts
    assert counts.sum() == figures["recency_users"] > 0
    assert figures["recency_states"] >= 1
    loaded = load_bundle(tmp_path / save_bundle(tmp_path, trained, FINISHED), llm)
    assert list(loaded.states) == list(STATES)
    assert torch.equal(loaded.state(Recency).counts, counts)
    items = snapshot.items()[["item_id", "title", "description"]]
    new = pd.DataFrame({"item_id": ["new"], "title": ["a new tent"], "description": [""]})
    child = extend_bundle(loaded, pd.concat([items, new]), encoder, llm, tmp_path / "children")
    assert torch.equal(child.state(Recency).counts, grown(counts, loaded.num_items + 2))
    other = transferred_bundle(loaded, new, encoder, llm, tmp_path / "children")
    assert other.state(Recency).counts.tolist() == [0, 0]


def test_a_bundle_that_is_older_than_a_state_lacks_it_and_so_do_its_children(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = tiny_bundle(root)
    saved = tmp_path / save_bundle(tmp_path, fresh, FINISHED)
    monkeypatch.setitem(STATES, Recency.name, Recency)
    old = load_bundle(saved, tiny_llm(root))
    items = old.items.assign(description="")
    items.loc[0, "title"] = "another title"
    child = extend_bundle(old, items, tiny_encoder(root), tiny_llm(root), tmp_path / "children")
    assert child.bundle_id != old.bundle_id
    for bundle in (old, child):
        with pytest.raises(KeyError):
            bundle.state(Recency)


@pytest.mark.usefixtures("with_recency")
def test_a_tensor_of_ones_own_is_checked_as_all_are(root: Path, tmp_path: Path) -> None:
    fresh = tiny_bundle(root)
    wrong = fresh.with_state(Recency(torch.full((fresh.num_items + 1,), float("nan"))))
    saved = tmp_path / save_bundle(tmp_path, wrong, FINISHED)
    with pytest.raises(BundleError, match=r"items\.safetensors: recency holds NaN"):
        load_bundle(saved, None)


def test_a_bundle_whose_prompt_subtracts_no_prior_is_saved_and_loaded_without_priors(
    root: Path, tmp_path: Path
) -> None:
    fresh = tiny_bundle(root)
    prompt = fresh.config.prompt.model_copy(update={"subtract_prior": False})
    config = fresh.config.model_copy(update={"prompt": prompt})
    without = replace(fresh, config=config).with_state(TitleState(fresh.titles, None))
    assert load_bundle(tmp_path / save_bundle(tmp_path, without, FINISHED), None).priors is None
    wrong = fresh.with_state(TitleState(fresh.titles, None))
    with pytest.raises(BundleError, match="priors"):
        load_bundle(tmp_path / save_bundle(tmp_path, wrong, FINISHED), None)


def test_the_files_of_a_bundle_are_its_own_and_those_of_its_states(root: Path, tmp_path: Path) -> None:
    fresh: Bundle = tiny_bundle(root)
    found = checksums(tmp_path / save_bundle(tmp_path, fresh, FINISHED))
    named = {file for kind in STATES.values() for file in kind.files} - {"text_encoder"}
    assert set(found) == named | {"config.json", "items.parquet", "items.safetensors"}


def test_every_state_has_a_trainer_and_the_order_is_fitted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(TRAINERS) == set(STATES)
    assert training_order() == ["cf", "stage1", "titles", "stage2", "links", "order"]
    monkeypatch.setitem(TRAINERS, "recency", Trainer(train_recency, needs=("cf",)))
    monkeypatch.setitem(TRAINERS, "cf", replace(TRAINERS["cf"], needs=("titles",)))
    order = training_order()
    assert order.index("titles") < order.index("cf") < order.index("recency")
    assert order[-1] == FittedOrder.name
    monkeypatch.setitem(TRAINERS, "recency", Trainer(train_recency, needs=("nothing",)))
    with pytest.raises(ValueError, match="need what is not trained before them"):
        training_order()
