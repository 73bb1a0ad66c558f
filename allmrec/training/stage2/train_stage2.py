"""Stage 2: F_U and F_I learn to speak to the frozen LLM (A-LLMRec, KDD 2024, section 4.2).

A warm start without the LLM comes first. Only the projections change; the LLM, the CF model and stage 1 are
hashed before and after.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import nn

from allmrec.bundle import load_bundle
from allmrec.cache import cache_folder
from allmrec.config import Config, Stage2Config, fingerprint
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.prompt import PromptLayout
from allmrec.models.a_llmrec import ALLMRec
from allmrec.reporting import Report
from allmrec.training.checkpoint import Checkpointer
from allmrec.training.group import Group
from allmrec.training.loader import Snapshot
from allmrec.training.loop import fit
from allmrec.training.stage2.llm_objective import LLMObjective, PromptParts
from allmrec.training.stage2.through_llm import llm_training, train_through_llm
from allmrec.training.stage2.training_examples import Examples
from allmrec.training.stage2.warm_start import cosine_measure, warm_start
from allmrec.training.torch_settings import THREADS_FOR_SMALL_MATRICES, torch_threads
from allmrec.training.work import Work
from allmrec.weights import check_frozen, hash_parameters

MAX_EARLY_STOPPING_USERS = 2000
LLM_CHECKPOINTS = "llm"
"""Folder of the checkpoints of the training through the LLM."""
START = "start"
"""Folder of the bundle that the processes of this training start from."""


def train_stage2(
    work: Work,
    rec: ALLMRec,
    llm: FrozenLLM,
    prompt: PromptParts,
    launch: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Train `rec.projection` in place and return figures.

    Checkpoints lie in `work.folder`; a training that was killed goes on from them. Figures: users, examples
    through the LLM, seconds, the early-stopping users' loss and Hit@1 through the LLM before and after it,
    and theirs by cosine after the warm start. Without stage-2 users the projections stay as they are, which
    is reported. What goes through the LLM is trained by several processes (`train_stage2_share`) where
    `launch` starts them. Raises NotFrozenError where a frozen part changed.
    """
    started = time.monotonic()
    device = rec.known.device
    snapshot = work.snapshot
    config = work.config
    folder = work.folder
    report = work.report
    frozen: dict[str, nn.Module] = {"llm": llm.model, "cf": rec.cf, "stage1": rec.alignment}
    hashes = {name: hash_parameters(module) for name, module in frozen.items()}
    with torch_threads(config.training.num_threads):
        train, early_stopping = _examples(snapshot, rec, llm, config)
        figures = {"users": float(len(train)), "examples": 0.0}
        if len(train):
            inputs = _fingerprint(snapshot, rec, llm, config)
            every = config.training.checkpoint_every
            checkpointer = Checkpointer(folder / "warm_start", every, inputs)
            figures |= _warm_start(rec, train, early_stopping, config, checkpointer, report)
            if prompt.layout.soft_tokens:
                objective = LLMObjective(rec, llm, prompt, config)
                checkpointer = Checkpointer(folder / LLM_CHECKPOINTS, every, inputs)
                figures |= train_through_llm(
                    objective, train, early_stopping, config, checkpointer, report, launch
                )
            else:
                report("stage2: the prompt has no soft tokens, so nothing is trained through the LLM")
        else:
            report(
                "stage2: no user with a history gave up an item, so the projections are not trained; "
                "give more users or training.held_back_share"
            )
        rec.to(device)
    rec.projection.eval()
    for name, module in frozen.items():
        check_frozen(module, hashes[name], name)
    return figures | {"seconds": time.monotonic() - started}


def train_stage2_share(work: Work, group: Group) -> None:
    """Train, as one process of several, the projections of the bundle in `folder/start` through the LLM."""
    snapshot = work.snapshot
    config = work.config
    folder = work.folder
    llm = FrozenLLM.load(config.llm, cache_folder(config.cache))
    [start] = (folder / START).glob("*")
    bundle = load_bundle(start, llm)
    rec = bundle.rec
    prompt = PromptParts(PromptLayout.of(config.prompt, llm), bundle.titles, bundle.priors)
    with torch_threads(config.training.num_threads):
        train, early_stopping = _examples(snapshot, rec, llm, config)
        inputs = _fingerprint(snapshot, rec, llm, config)
        objective = LLMObjective(rec, llm, prompt, config)
        training = llm_training(objective, train, early_stopping, config, Report(), group)
        checkpointer = Checkpointer(folder / LLM_CHECKPOINTS, config.training.checkpoint_every, inputs)
        fit(training, checkpointer, work.report, group)


def _examples(snapshot: Snapshot, rec: ALLMRec, llm: FrozenLLM, config: Config) -> tuple[Examples, Examples]:
    """Return what is learned and what training is stopped by, on the LLM's device, to which `rec` moves."""
    rec.to(llm.device)
    train = Examples.of(_example_rows(snapshot, config.stage2), rec, llm.device)
    early_stopping = Examples.of(
        snapshot.held_back("early_stop"), rec, llm.device, MAX_EARLY_STOPPING_USERS, config.seed
    )
    return train, early_stopping


def _example_rows(snapshot: Snapshot, settings: Stage2Config) -> pd.DataFrame:
    """Return the users and targets that `stage2.examples` names, as rows of `Snapshot.held_back`."""
    if settings.examples == "held_back":
        return snapshot.held_back("stage2")
    return snapshot.train_targets("last" if settings.examples == "last_train_item" else "all")


def _fingerprint(snapshot: Snapshot, rec: ALLMRec, llm: FrozenLLM, config: Config) -> str:
    """Return the fingerprint of all that the trained projections depend on."""
    return fingerprint(
        part="stage2",
        settings=config.stage2,
        prompt=config.prompt,
        seed=config.seed,
        snapshot=snapshot.manifest,
        llm=llm.weight_hash,
        cf=hash_parameters(rec.cf),
        stage1=hash_parameters(rec.alignment),
    )


def _warm_start(
    rec: ALLMRec,
    train: Examples,
    early_stopping: Examples,
    config: Config,
    checkpointer: Checkpointer,
    report: Report,
) -> dict[str, float]:
    """Prepare the projections without the LLM; return how many steps it took and the figures by cosine."""
    figures: dict[str, float] = {}
    if config.stage2.user_input == "cf_and_history":
        rec.projection.set_user_statistics(train.x)
    item_inputs_IK = rec.item_inputs()
    if config.stage2.warm_start_steps:
        with torch_threads(THREADS_FOR_SMALL_MATRICES):
            history = warm_start(rec, item_inputs_IK, train, early_stopping, config, checkpointer, report)
        figures["warm_start_steps"] = float(history.step)
    if len(early_stopping):
        rec.projection.eval()
        with torch.no_grad():
            measured = cosine_measure(rec, item_inputs_IK, early_stopping, config.seed)()
        figures |= {f"cosine_{name}": value for name, value in measured.items()}
    return figures
