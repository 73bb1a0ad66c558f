"""Training of stage 1: the alignment networks, and a copy of the sentence encoder where it is tuned too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from allmrec import metrics, seeds
from allmrec.config import Stage1Config, fingerprint
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import CFModel
from allmrec.models.text_encoder import TextEncoder
from allmrec.training.batches import SequenceBatches
from allmrec.training.checkpoint import Checkpointer
from allmrec.training.item_texts import catalogue_texts, embed_catalogue
from allmrec.training.loader import Snapshot
from allmrec.training.loop import Training, fit
from allmrec.training.losses import info_nce
from allmrec.training.stage1.objective import Stage1Objective
from allmrec.training.torch_settings import (
    THREADS_FOR_SMALL_MATRICES,
    seeded_initial_weights,
    torch_threads,
    training_device,
)
from allmrec.training.work import Work
from allmrec.weights import check_frozen, hash_parameters

BETAS = (0.9, 0.98)
"""Adam's."""
ADAMW_WEIGHT_DECAY = 0.1
MAX_EVALUATED_ITEMS = 2000


@dataclass(frozen=True)
class Stage1Result:
    """What stage 1 gives to the bundle."""

    networks: AlignmentNetworks
    """Trained, in eval mode, on the CPU."""
    text_embeddings: np.ndarray
    """Q [I+1, S] float32, encoded again where the encoder was tuned; row 0 is zeros."""
    encoder_folder: Path | None
    """Where the tuned encoder lies; None where it was not tuned."""
    figures: dict[str, float]
    """steps, loss, seconds, each loss over the trained items, and retrieval of e_i by q_i."""


def train_stage1(work: Work, cf: CFModel, encoder: TextEncoder, text_embeddings: np.ndarray) -> Stage1Result:
    """Train the alignment networks, and a copy of `encoder` where `stage1.text_encoder` is `finetuned`.

    `text_embeddings` Q [I+1, S] float32 are the untuned encoder's. Checkpoints lie in
    `work.folder/checkpoints`, from which a training that was killed goes on; the tuned encoder is written to
    `work.folder/text_encoder`.
    Raises InputError where no user has two interactions, NotFrozenError where the CF model changed.
    """
    snapshot = work.snapshot
    config = work.config
    settings = config.stage1
    tuned_folder = work.folder / "text_encoder"
    cf_hash = hash_parameters(cf)
    inputs = fingerprint(
        part="stage1",
        settings=settings,
        seed=config.seed,
        snapshot=snapshot.manifest,
        cf=cf_hash,
        text_encoder=encoder.content_hash,
    )
    checkpointer = Checkpointer(work.folder / "checkpoints", config.training.checkpoint_every, inputs)
    with torch_threads(THREADS_FOR_SMALL_MATRICES):
        with seeded_initial_weights(config.seed, "stage1"):
            networks = AlignmentNetworks(cf.width, text_embeddings.shape[1], settings)
        tuned = copy.deepcopy(encoder) if settings.text_encoder == "finetuned" else None
        training = _training(networks, cf, tuned, text_embeddings, work)
        history = fit(training, checkpointer, work.report)
        check_frozen(cf, cf_hash, "cf")
        for module in (networks, cf):
            module.to("cpu").eval()
        networks.requires_grad_(False)
        if tuned is not None:
            work.report("stage1: encoding the catalogue again with the tuned encoder")
            text_embeddings = _encoded_again(tuned, tuned_folder, snapshot)
        evaluated = _evaluated(networks, cf, torch.from_numpy(text_embeddings), settings, config.seed)
    work.report("stage1: " + ", ".join(f"{name} {value:.4f}" for name, value in evaluated.items()))
    figures = {"steps": float(history.step), "loss": history.recent_loss, "seconds": history.seconds}
    encoder_folder = tuned_folder if tuned is not None else None
    return Stage1Result(networks, text_embeddings, encoder_folder, figures | evaluated)


def _training(
    networks: AlignmentNetworks,
    cf: CFModel,
    tuned: TextEncoder | None,
    text_embeddings: np.ndarray,
    work: Work,
) -> Training[Tensor]:
    """Return the training of `networks` and, where there is one, of `tuned`; modules move to its device.

    `text_embeddings` Q [I+1, S] float32 are used where no encoder is tuned. Raises InputError where no user
    has two interactions.
    """
    snapshot = work.snapshot
    config = work.config
    settings = config.stage1
    device = training_device()
    batches = SequenceBatches(snapshot, settings.batch_size, config.seed, device, "to align items on")
    modules: dict[str, nn.Module] = {"networks": networks.to(device)}
    if tuned is None:
        texts = _frozen_texts(text_embeddings, device)
    else:
        modules["text_encoder"] = tuned.model.to(device)
        texts = _tuned_texts(tuned, catalogue_texts(snapshot.items()))
    return Training(
        "stage1",
        modules,
        _optimizer(modules, settings),
        batches,
        Stage1Objective(networks, cf.to(device), texts, settings).loss,
        total_steps=settings.epochs * batches.steps_per_epoch,
        seed=config.seed,
    )


def _frozen_texts(text_embeddings: np.ndarray, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function from item_idx [N] int64 to rows [N, S] of `text_embeddings` [I+1, S] float32."""
    Q_IS = torch.from_numpy(np.ascontiguousarray(text_embeddings, dtype=np.float32)).to(device)
    return lambda idx_N: Q_IS[idx_N]


def _tuned_texts(encoder: TextEncoder, texts: list[str]) -> Callable[[Tensor], Tensor]:
    """Return the function from item_idx [N] int64 to embeddings [N, S] of their texts, with gradients."""
    return lambda idx_N: encoder.embed([texts[idx - 1] for idx in idx_N.tolist()])


def _optimizer(modules: dict[str, nn.Module], settings: Stage1Config) -> torch.optim.Optimizer:
    parameters = [
        parameter
        for module in modules.values()
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=settings.learning_rate, betas=BETAS, weight_decay=ADAMW_WEIGHT_DECAY
        )
    return torch.optim.Adam(parameters, lr=settings.learning_rate, betas=BETAS)


def _encoded_again(tuned: TextEncoder, folder: Path, snapshot: Snapshot) -> np.ndarray:
    """Save the tuned encoder, load it as scoring will, and return the embeddings [I+1, S] float32."""
    tuned.save(folder)
    return embed_catalogue(TextEncoder.load(tuned.config, tuned.cache, folder), snapshot.items())


@torch.no_grad()
def _evaluated(
    networks: AlignmentNetworks, cf: CFModel, Q_IS: Tensor, settings: Stage1Config, seed: int
) -> dict[str, float]:
    """Return each loss over the trained items, unweighted, and how often q_i finds its own e_i by cosine.

    `Q_IS` [I+1, S] float32 are the text embeddings of all items; where many are trained, a seeded sample of
    them is evaluated.
    """
    trained = cf.known.nonzero().squeeze(1).numpy()
    # "judged" is a key of the seed: another word would draw other items.
    idx_N = np.sort(seeds.generator(seed, "stage1", "judged").permutation(trained)[:MAX_EVALUATED_ITEMS])
    E_ND = cf.item_matrix()[idx_N]
    Q_NS = Q_IS[idx_N]
    e_NJ = networks.item_encoder(E_ND)
    q_NJ = networks.text_projector(Q_NS)
    figures = {
        "matching_mse": float(nn.functional.mse_loss(e_NJ, q_NJ)),
        "item_reconstruction": float(nn.functional.mse_loss(networks.item_decoder(e_NJ), E_ND)),
        "text_reconstruction": float(nn.functional.mse_loss(networks.text_decoder(q_NJ), Q_NS)),
    }
    if settings.matching == "infonce":
        centred = e_NJ - networks.centre, q_NJ - networks.centre
        figures["matching_infonce"] = float(
            info_nce(*centred, Q_NS, settings.temperature, settings.filter_threshold)
        )
    cosines_NN = (
        nn.functional.normalize(q_NJ - q_NJ.mean(0), dim=1)
        @ nn.functional.normalize(e_NJ - e_NJ.mean(0), dim=1).T
    )
    ranks_N = metrics.ranks_of_target(cosines_NN.numpy(), np.arange(len(idx_N)))
    figures["retrieval_hit@10"] = metrics.mean(metrics.hit(ranks_N, 10))
    return figures
