"""Stage 1 of A-LLMRec (KDD'24, §4.1): one space for what users did with an item and what its text says. The CF model stays frozen.

    L = L_matching + α·L_item-recon + β·L_text-recon + γ·L_rec

For every sequence: x_u of all items but the last, the last item as the positive, one uniformly sampled negative; both enter the matching
and reconstruction terms, as in the authors' code. `positions: all` does so at every position (A-LLMRec_all). All terms are means over the
batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from allmrec import metrics, seeds
from allmrec.config import Config, Stage1Config
from allmrec.errors import InputError
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import CFModel
from allmrec.models.text_encoder import TextEncoder, item_text
from allmrec.training.cf import fingerprint
from allmrec.training.checkpoint import Checkpointer
from allmrec.training.loader import Snapshot
from allmrec.training.loop import SMALL_MATRICES, fit, torch_threads, training_device
from allmrec.training.losses import info_nce, matching_mse, recommendation_loss
from allmrec.training.negatives import never_had
from allmrec.weights import check_frozen, hash_parameters

BETAS = (0.9, 0.98)
ADAMW_WEIGHT_DECAY = 0.1
MOST_JUDGED_ITEMS = 2000


@dataclass(frozen=True)
class Stage1Result:
    """The trained networks (eval mode, on the CPU), the texts' embeddings [I+1, S] float32 (encoded again where the encoder was tuned), the
    tuned encoder's folder (None: frozen), and figures: each loss over the trained items, and retrieval of e_i by q_i.
    """

    networks: AlignmentNetworks
    text_embeddings: np.ndarray
    encoder_folder: Path | None
    figures: dict[str, float]


class Pairs(NamedTuple):
    """What one step learns from: N user states, and the item_idx of their next items and of as many sampled ones."""

    x_ND: Tensor
    positives_N: Tensor
    negatives_N: Tensor


def train_stage1(
    snapshot: Snapshot,
    cf: CFModel,
    encoder: TextEncoder,
    text_embeddings: np.ndarray,
    config: Config,
    work: Path,
    report: Callable[[str], None],
) -> Stage1Result:
    """Train the alignment networks (and a copy of the sentence encoder where `stage1.text_encoder` is `finetuned`).

    `text_embeddings` [I+1, S] float32 are the untuned encoder's, row 0 zeros. Checkpoints lie in `work/checkpoints`; the tuned encoder is
    written to `work/text_encoder`. Raises InputError where no user has two interactions, NotFrozenError where the CF model changed.
    """
    settings = config.stage1
    steps_per_epoch = snapshot.num_batches(settings.batch_size, min_length=2)
    if steps_per_epoch == 0:
        raise InputError(
            f"{snapshot.folder}/sequences: no user has two interactions, expected some to align items on; give more interactions"
        )
    device = training_device()
    cf.to(device)
    hash_before = hash_parameters(cf)
    with torch_threads(SMALL_MATRICES):
        networks = _new_networks(cf.width, text_embeddings.shape[1], settings, config.seed).to(device)
        modules: dict[str, nn.Module] = {"networks": networks}
        texts: Callable[[Tensor], Tensor] = _frozen_texts(text_embeddings, device)
        tuned = copy.deepcopy(encoder) if settings.text_encoder == "finetuned" else None
        if tuned is not None:
            modules["text_encoder"] = tuned.model.to(device)
            texts = _tuned_texts(tuned, _catalogue_texts(snapshot))
        objective = Objective(networks, cf, texts, settings)
        history = fit(
            "stage1",
            modules,
            _optimizer(modules, settings),
            lambda epoch: _batches(snapshot, settings, config.seed, epoch, device),
            objective.loss,
            total_steps=settings.epochs * steps_per_epoch,
            seed=config.seed,
            checkpointer=Checkpointer(
                work / "checkpoints",
                config.training.checkpoint_every,
                fingerprint(snapshot, config, "stage1", hash_before, encoder.content_hash),
            ),
            report=report,
        )
        check_frozen(cf, hash_before, "cf")
        for module in (networks, cf):
            module.to("cpu").eval()
        networks.requires_grad_(False)
        encoder_folder = None
        if tuned is not None:
            encoder_folder = work / "text_encoder"
            text_embeddings = _encoded_again(tuned, encoder_folder, snapshot, report)
        figures = {"steps": float(history.step), "loss": history.recent_loss, "seconds": history.seconds}
        figures.update(_judged(networks, cf, torch.from_numpy(text_embeddings), settings, config.seed))
    report(
        "stage1: "
        + ", ".join(
            f"{name} {value:.4f}" for name, value in figures.items() if name not in ("steps", "seconds")
        )
    )
    return Stage1Result(networks, text_embeddings, encoder_folder, figures)


class Objective:
    """L_stage-1 of a batch of sequences; `texts(idx_N)` gives Q_i [N, S], with gradients where the encoder is tuned."""

    def __init__(
        self,
        networks: AlignmentNetworks,
        cf: CFModel,
        texts: Callable[[Tensor], Tensor],
        settings: Stage1Config,
    ) -> None:
        self.networks, self.cf, self.texts, self.settings = networks, cf, texts, settings
        self.known_items_K = cf.known.nonzero().squeeze(1)
        with torch.no_grad():
            self.E = cf.item_matrix().detach().clone()

    def loss(self, sequences_BL: Tensor) -> Tensor:
        """The weighted sum as a scalar; sequences [B, L] int64 with at least two items each."""
        pairs = self.pairs(sequences_BL)
        items_M, places_N2 = torch.unique(
            torch.cat([pairs.positives_N, pairs.negatives_N]), return_inverse=True
        )
        # An item met twice is encoded once (the sentence encoder is the cost); `places` repeats it in the means.
        terms = self.terms(self.E[items_M], self.texts(items_M), places_N2, pairs.x_ND)
        return torch.stack(list(terms.values())).sum()

    def terms(self, E_MD: Tensor, Q_MS: Tensor, places: Tensor, x_ND: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms that are switched on; `places` [2N] says which row the N positives and the N negatives are."""
        settings, networks = self.settings, self.networks
        e_MJ, q_MJ = networks.item_encoder(E_MD), networks.text_projector(Q_MS)
        decoded_MD = networks.item_decoder(e_MJ)
        positive_ND, negative_ND = decoded_MD[places].chunk(2)
        terms = {
            "item_reconstruction": settings.item_reconstruction
            * nn.functional.mse_loss(decoded_MD[places], E_MD[places]),
            "text_reconstruction": settings.text_reconstruction
            * nn.functional.mse_loss(networks.text_decoder(q_MJ)[places], Q_MS[places]),
            "recommendation": settings.recommendation * recommendation_loss(x_ND, positive_ND, negative_ND),
        }
        if settings.matching == "mse":
            terms["matching"] = matching_mse(e_MJ[places], q_MJ[places])
        elif settings.matching == "infonce":
            centre = networks.centre
            terms["matching"] = info_nce(
                e_MJ - centre, q_MJ - centre, Q_MS, settings.temperature, settings.filter_threshold
            )
        return terms

    def pairs(self, sequences_BL: Tensor) -> Pairs:
        """Return the states, next items and sampled negatives of the last position, or of all."""
        inputs_BL = sequences_BL[:, :-1]
        with torch.no_grad():
            if self.settings.positions == "last":
                x_ND, positives_N, histories_NL = (
                    self.cf.user_representation(inputs_BL),
                    sequences_BL[:, -1],
                    sequences_BL,
                )
            else:
                real_BL = inputs_BL > 0
                x_ND = self.cf.position_representations(inputs_BL)[real_BL]
                positives_N, histories_NL = (
                    sequences_BL[:, 1:][real_BL],
                    sequences_BL[real_BL.nonzero(as_tuple=True)[0]],
                )
        return Pairs(x_ND, positives_N, never_had(histories_NL, self.known_items_K))


def _frozen_texts(text_embeddings: np.ndarray, device: torch.device) -> Callable[[Tensor], Tensor]:
    Q = torch.from_numpy(np.ascontiguousarray(text_embeddings, dtype=np.float32)).to(device)
    return lambda idx_N: Q[idx_N]


def _tuned_texts(encoder: TextEncoder, texts: list[str]) -> Callable[[Tensor], Tensor]:
    return lambda idx_N: encoder.embed([texts[idx - 1] for idx in idx_N.tolist()])


def _catalogue_texts(snapshot: Snapshot) -> list[str]:
    items = snapshot.items()
    return [
        item_text(title, description)
        for title, description in zip(items["title"], items["description"], strict=True)
    ]


def _new_networks(cf_width: int, text_width: int, settings: Stage1Config, seed: int) -> AlignmentNetworks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "stage1", "initial weights"))
        return AlignmentNetworks(cf_width, text_width, settings)


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


def _batches(
    snapshot: Snapshot, settings: Stage1Config, seed: int, epoch: int, device: torch.device
) -> Iterator[Tensor]:
    for batch in snapshot.epoch(settings.batch_size, seed, epoch, columns=("item_idx",), min_length=2):
        yield torch.from_numpy(batch["item_idx"].astype(np.int64)).to(device)


def _encoded_again(
    tuned: TextEncoder, folder: Path, snapshot: Snapshot, report: Callable[[str], None]
) -> np.ndarray:
    """Save the tuned encoder, load it as scoring will, and encode the catalogue with it."""
    tuned.save(folder)
    report("stage1: encoding the catalogue again with the tuned encoder")
    found = TextEncoder.load(tuned.config, tuned.cache, folder).encode(_catalogue_texts(snapshot))
    return np.vstack([np.zeros((1, found.shape[1]), np.float32), found])


@torch.no_grad()
def _judged(
    networks: AlignmentNetworks, cf: CFModel, Q: Tensor, settings: Stage1Config, seed: int
) -> dict[str, float]:
    """Each loss over the trained items (a seeded sample where there are many), unweighted, and how often q_i finds its own e_i by
    cosine."""
    known = cf.known.nonzero().squeeze(1).numpy()
    chosen = np.sort(seeds.generator(seed, "stage1", "judged").permutation(known)[:MOST_JUDGED_ITEMS])
    E_N, Q_N = cf.item_matrix()[chosen], Q[chosen]
    e_N, q_N = networks.item_encoder(E_N), networks.text_projector(Q_N)
    found = {
        "matching_mse": float(nn.functional.mse_loss(e_N, q_N)),
        "item_reconstruction": float(nn.functional.mse_loss(networks.item_decoder(e_N), E_N)),
        "text_reconstruction": float(nn.functional.mse_loss(networks.text_decoder(q_N), Q_N)),
    }
    if settings.matching == "infonce":
        e_q = e_N - networks.centre, q_N - networks.centre
        found["matching_infonce"] = float(
            info_nce(*e_q, Q_N, settings.temperature, settings.filter_threshold)
        )
    cosines = (
        nn.functional.normalize(q_N - q_N.mean(0), dim=1)
        @ nn.functional.normalize(e_N - e_N.mean(0), dim=1).T
    )
    ranks = metrics.ranks_of_target(cosines.numpy(), np.arange(len(chosen)))
    found["retrieval_hit@10"] = metrics.mean(metrics.hit(ranks, 10))
    return found
