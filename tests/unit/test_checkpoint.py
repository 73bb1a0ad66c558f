from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from allmrec.errors import InputError
from allmrec.reporting import Report
from allmrec.training.checkpoint import Checkpointer
from allmrec.training.loop import Evaluation, History, Training, fit


class Killed(Exception):
    """Stands for the process being ended from outside."""


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def batches(epoch: int) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(epoch + 10)
    for _ in range(5):
        yield torch.randn(4, 3, generator=random)


def train(
    folder: Path,
    fail_at: int | None = None,
    every: int = 3,
    total_steps: int = 23,
    patience: int | None = None,
    report: Report | None = None,
) -> tuple[History, nn.Module]:
    model = network()

    def loss(batch: Tensor) -> Tensor:
        if fail_at is not None and len(seen) == fail_at:
            raise Killed
        seen.append(1)
        return nn.functional.mse_loss(model(batch).squeeze(1), batch.sum(dim=1))

    def measure() -> dict[str, float]:
        fixed = torch.ones(2, 3)
        return {"error": float(nn.functional.mse_loss(model(fixed).squeeze(1), fixed.sum(dim=1)))}

    seen: list[int] = []
    training = Training(
        "test",
        {"model": model},
        torch.optim.Adam(model.parameters(), lr=0.05, betas=(0.9, 0.98)),
        batches,
        loss,
        total_steps=total_steps,
        seed=4,
        evaluation=Evaluation(measure, "error", every_steps=4, patience=patience, higher_is_better=False),
    )
    return fit(training, Checkpointer(folder, every), report or Report()), model


def test_a_killed_training_resumes_with_the_losses_of_one_that_was_not_killed(tmp_path: Path) -> None:
    whole, model = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", fail_at=13)
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["step_000000012"]
    resumed, resumed_model = train(tmp_path / "killed")
    assert resumed.losses == pytest.approx(whole.losses, abs=1e-5)
    assert len(whole.losses) == 23
    assert resumed.evaluations == [pytest.approx(figures, abs=1e-5) for figures in whole.evaluations]
    for left, right in zip(model.state_dict().values(), resumed_model.state_dict().values(), strict=True):
        assert torch.allclose(left, right, atol=1e-6)


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first, model = train(tmp_path)
    again, same = train(tmp_path, fail_at=0)
    assert again.losses == first.losses
    assert all(
        torch.equal(left, right)
        for left, right in zip(model.state_dict().values(), same.state_dict().values(), strict=True)
    )


def test_the_best_weights_are_restored_and_training_stops_when_nothing_improves(tmp_path: Path) -> None:
    history, model = train(tmp_path, total_steps=400, patience=3)
    assert history.stopped_early
    assert history.step < 400
    assert history.best is not None
    assert history.best["error"] == min(figures["error"] for figures in history.evaluations)
    fixed = torch.ones(2, 3)
    assert float(nn.functional.mse_loss(model(fixed).squeeze(1), fixed.sum(dim=1)).detach()) == pytest.approx(
        history.best["error"], abs=1e-6
    )


def test_without_patience_the_last_weights_are_the_result(tmp_path: Path) -> None:
    history, model = train(tmp_path, total_steps=100, patience=None)
    errors = [figures["error"] for figures in history.evaluations]
    assert errors[-1] > min(errors)
    fixed = torch.ones(2, 3)
    last = float(nn.functional.mse_loss(model(fixed).squeeze(1), fixed.sum(dim=1)).detach())
    assert last == pytest.approx(errors[-1], abs=1e-6)
    assert history.best == history.evaluations[-1]


def test_a_training_does_not_touch_the_global_random_state(tmp_path: Path) -> None:
    network()
    expected = torch.random.get_rng_state()
    train(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), expected)


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    Checkpointer(tmp_path, 1, "old settings").save(7, {"model": model}, optimizer, {})
    assert Checkpointer(tmp_path, 1, "new settings").restore({"model": model}, optimizer) is None
    restored = Checkpointer(tmp_path, 1, "old settings").restore({"model": model}, optimizer)
    assert restored is not None
    assert restored.step == 7


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    train(tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "optimizer.safetensors").write_bytes(b"not tensors")
    model = network()
    assert Checkpointer(tmp_path, 1).restore({"model": model}, torch.optim.Adam(model.parameters())) is None


def test_checkpoints_hold_safetensors_and_json_only(tmp_path: Path) -> None:
    train(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    assert json.loads((folder / "state.json").read_text())["step"] == 23


def fit_five_steps(
    folder: Path, batches_of: Callable[[int], Iterator[Tensor]], factor: float = 1.0
) -> History:
    model = network()
    training = Training(
        "test",
        {"model": model},
        torch.optim.Adam(model.parameters()),
        batches_of,
        lambda batch: model(batch).sum() * factor,
        total_steps=5,
        seed=1,
    )
    return fit(training, Checkpointer(folder, 5), Report())


def test_a_loss_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="test: the loss became nan at step 1"):
        fit_five_steps(tmp_path, batches, factor=float("nan"))


def test_an_empty_epoch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="had no batches"):
        fit_five_steps(tmp_path, lambda epoch: iter(()))


def test_a_training_says_one_line_and_where_it_went_on_another(tmp_path: Path) -> None:
    lines: list[str] = []
    train(tmp_path, report=Report(lines.append))
    assert len(lines) == 1
    assert re.fullmatch(
        r"test: done after 23 steps in \d+ s, loss \d+\.\d{4}, best error \d+\.\d{4}", lines[0]
    )
    train(tmp_path, report=Report(lines.append))
    assert lines[1] == "test: was finished at step 23/23"
    assert len(lines) == 2


def test_progress_is_shown_after_every_step_with_the_loss_and_the_newest_figures(tmp_path: Path) -> None:
    lines: list[str] = []
    history, _ = train(tmp_path, report=Report(lines.append, every_seconds=0))
    steps = [line for line in lines if " / 23 steps, loss " in line]
    assert [int(line.split()[1]) for line in steps] == list(range(1, 23))
    assert "error" not in steps[2]
    assert f"error {history.evaluations[0]['error']:.4f}" in steps[3]
    assert f"error {history.evaluations[0]['error']:.4f}" in steps[6]
    assert steps[-1].endswith("left")
