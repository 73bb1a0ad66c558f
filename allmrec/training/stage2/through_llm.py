"""The part of stage 2 that goes through the LLM: training on `LLMObjective`, stopped early on its loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from allmrec import seeds
from allmrec.config import Config, Stage2Config
from allmrec.reporting import Report
from allmrec.training.checkpoint import Checkpointer, copied_weights
from allmrec.training.group import ALONE, Group
from allmrec.training.loop import Evaluation, History, Training, fit, fit_elsewhere
from allmrec.training.stage2.llm_objective import LLMObjective, UserBatch
from allmrec.training.stage2.training_examples import Examples


def train_through_llm(
    objective: LLMObjective,
    train: Examples,
    early_stopping: Examples,
    config: Config,
    checkpointer: Checkpointer,
    report: Report,
    launch: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Train the objective's projections in place and return figures.

    It ends after its last step, or earlier where the loss of the early-stopping users no longer falls.
    Where that loss never fell below the start's, the projections stay as they were (but for the listwise
    temperature, whose start is set first). Without `stage2.patience` it takes all steps, and the last weights
    are the result. Figures: steps, examples, llm_seconds, loss, and the
    early-stopping users' loss, title, listwise and Hit@1 before and after (absent where nobody was held back
    for early stopping). With `launch` several processes train, each on a `llm_training` of its own.
    """
    settings = config.stage2
    projection = objective.rec.projection
    evaluated = _evaluated(early_stopping, settings)
    choices = objective.choice_scores(early_stopping, evaluated) if evaluated else None
    if objective.is_listwise:
        first_users = range(min(settings.evaluation_users, len(train)))
        objective.start_temperature(choices or objective.choice_scores(train, first_users))
    start = copied_weights({"projection": projection})["projection"]
    before = objective.figures(choices) if choices else {}
    training = llm_training(objective, train, early_stopping, config, report)
    if before:
        report(
            f"stage2: through the LLM, {training.total_steps} steps of {settings.batch_size} users; "
            f"before: loss {before['loss']:.4f} Hit@1 {before['Hit@1']:.4f}"
        )
    if launch is None:
        history = fit(training, checkpointer, report)
    else:
        history = fit_elsewhere(training, checkpointer, report, launch)
    after = history.best or {}
    if settings.patience is not None and before and not after.get("loss", math.inf) < before["loss"]:
        projection.load_state_dict(start)
        after = before
        report(
            "stage2: the LLM's loss on the early-stopping users never fell below the start's, "
            "so the start is kept"
        )
    return _figures(history, settings.batch_size, before, after)


def llm_training(
    objective: LLMObjective,
    train: Examples,
    early_stopping: Examples,
    config: Config,
    report: Report,
    group: Group = ALONE,
) -> Training[UserBatch]:
    """Return the training of the objective's projections; `report` is told where it takes fewer steps."""
    settings = config.stage2
    projection = objective.rec.projection
    evaluated = _evaluated(early_stopping, settings)
    evaluation = Evaluation(
        lambda: objective.figures(objective.choice_scores(early_stopping, evaluated)),
        "loss",
        settings.evaluate_every,
        settings.patience,
        higher_is_better=False,
    )
    return Training(
        "stage2",
        {"projection": projection},
        torch.optim.Adam(projection.parameters(), lr=settings.learning_rate, betas=(0.9, settings.beta2)),
        lambda epoch: _batches(objective, train, epoch, config),
        lambda batch: objective.loss(train, batch, group),
        total_steps=_num_steps(objective, len(train), report),
        seed=config.seed,
        evaluation=evaluation if evaluated else None,
        clip_norm=settings.clip_norm,
    )


def _evaluated(early_stopping: Examples, settings: Stage2Config) -> range:
    """Return the rows of the early-stopping users that evaluations are about."""
    return range(min(settings.evaluation_users, len(early_stopping)))


def _num_steps(objective: LLMObjective, num_users: int, report: Report) -> int:
    """Return the number of steps: all epochs, or, on a CPU, what `stage2.max_examples` allows."""
    settings = objective.settings
    steps = settings.epochs * math.ceil(num_users / settings.batch_size)
    if objective.llm.device.type != "cpu" or settings.max_examples is None:
        return steps
    if steps * settings.batch_size <= settings.max_examples:
        return steps
    steps = math.ceil(settings.max_examples / settings.batch_size)
    report(
        f"stage2: {steps * settings.batch_size} examples through the LLM on a CPU (stage2.max_examples), "
        f"not {settings.epochs} epochs of {num_users}"
    )
    return steps


def _batches(objective: LLMObjective, examples: Examples, epoch: int, config: Config) -> Iterator[UserBatch]:
    """Yield one epoch's users in seeded order, with the epoch's own candidates."""
    order = seeds.generator(config.seed, "stage2", "order", epoch).permutation(len(examples)).tolist()
    batch_size = config.stage2.batch_size
    for start in range(0, len(order), batch_size):
        yield objective.batch(examples, order[start : start + batch_size], epoch)


def _figures(
    history: History, batch_size: int, before: dict[str, float], after: dict[str, float]
) -> dict[str, float]:
    return {
        "steps": float(history.step),
        "examples": float(history.step * batch_size),
        "llm_seconds": history.seconds,
        "loss": history.recent_loss,
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": after[name] for name in before},
    }
