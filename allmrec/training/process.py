"""One of the processes that train a part together: what `torchrun` runs in each of them.

A process reads what the training left in the part's folder: the CF model as it was before training
(`allmrec.training.cf`), or a bundle whose projections are still to be trained (`allmrec.training.trainers`).
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import torch

from allmrec.config import Config
from allmrec.errors import SetupError, UserError
from allmrec.reporting import Report
from allmrec.training.group import joined
from allmrec.training.loader import Snapshot
from allmrec.training.trainers import TRAINERS
from allmrec.training.work import Work

WORDS = "processes"
"""In the part's folder, what processes say to the one that waits for them: `<rank>.txt` the lines of their
reports, empty but for the first, and `<rank>.json` the error by which one ended."""


def train_in_process(part: str, folder: str, snapshot: str, config: str, timeout_seconds: float) -> None:
    """Train this process's share of a part; `config` is JSON. A UserError is told and ends the process."""
    words = Path(folder) / WORDS / os.environ["RANK"]
    try:
        report = _report(words.with_suffix(".txt"))
        with joined(timeout_seconds) as group:
            settings = _on_own_gpu(Config.model_validate_json(config))
            share = TRAINERS[part].share
            if share is None:
                raise ValueError(f"{part} is trained by one process, expected a trainer with a share")
            share(Work(Snapshot(Path(snapshot)), settings, Path(folder), report), group)
    except UserError as error:
        print(f"error: {error}", flush=True)
        if words.parent.is_dir():
            told = {"kind": type(error).__name__, "text": str(error)}
            words.with_suffix(".json").write_text(json.dumps(told), encoding="utf-8")
        os._exit(1)  # at once: what torch waits for at the end of a process may be what hangs


def _report(path: Path) -> Report:
    """Return a report that writes lines to `path` in the first process, and nothing in the others.

    Raises SetupError where the part's folder cannot be written to.
    """
    try:
        lines = path.open("a", encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"training.processes: {socket.gethostname()} cannot write to {path.parent} ({error}), expected "
            "a folder on storage that all machines see; set cache.folder to one"
        ) from error

    def write(line: str) -> None:
        lines.write(f"{line}\n")
        lines.flush()

    return Report(write) if path.stem == "0" else Report()


def _on_own_gpu(config: Config) -> Config:
    """Return the configuration with the LLM on this process's GPU, where there is one and it is left open."""
    if config.llm.device != "auto" or not torch.cuda.is_available():
        return config
    llm = config.llm.model_copy(update={"device": f"cuda:{torch.cuda.current_device()}"})
    return config.model_copy(update={"llm": llm})
