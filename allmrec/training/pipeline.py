"""The training of a bundle on a snapshot, without Spark: all trainers of `TRAINERS`."""

from __future__ import annotations

from collections.abc import Mapping

from allmrec.bundle import Bundle, State
from allmrec.cache import cache_folder
from allmrec.errors import ConfigError
from allmrec.llm.frozen import FrozenLLM
from allmrec.models.text_encoder import TextEncoder
from allmrec.training.item_texts import embed_catalogue
from allmrec.training.trainers import TRAINERS, FrozenModels, training_order
from allmrec.training.work import Work


def train_bundle(work: Work) -> tuple[Bundle, dict[str, float]]:
    """Train every part on a snapshot and return the bundle (not saved yet) and its figures.

    With `work.launch` several processes train the parts that have a `Trainer.share`.

    Checkpoints lie in `work.folder`: called again after a kill, with the same snapshot and settings, the
    training goes on from them. Figures are named by their part: `cf_…`, `stage1_…`, `stage2_…`, `blend_…`.
    Raises InputError where no user has two interactions, SetupError where a model or petastorm cannot be
    loaded, ConfigError where several processes are asked for and there is no `launch`.
    """
    config = work.config
    report = work.report
    if work.launch is None and config.training.processes > 1:
        raise ConfigError(
            f"training.processes: {config.training.processes}, but Spark starts them, and here is none; "
            "expected 1"
        )
    items = work.snapshot.items()
    with report.part("llm", f"load the frozen LLM {config.llm.model}"):
        llm = FrozenLLM.load(config.llm, cache_folder(config.cache), report)
    with report.part("texts", f"embed {len(items):,} titles and descriptions"):
        encoder = TextEncoder.load(config.text_encoder, cache_folder(config.cache))
        text_embeddings = embed_catalogue(encoder, items)
    return train_states(work, FrozenModels(llm, encoder, items, text_embeddings), {})


def train_states(
    work: Work, models: FrozenModels, trained: Mapping[str, State]
) -> tuple[Bundle, dict[str, float]]:
    """Train all states that `trained` lacks; otherwise as `train_bundle`."""
    states = dict(trained)
    figures: dict[str, float] = {}
    for name in training_order():
        if name not in states:
            states[name], found = TRAINERS[name].train(work.part(name), models, states)
            figures |= found
    return models.assembled(work, states), figures
