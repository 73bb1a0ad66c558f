"""A-LLMRec's parts put together; composition only.

The parts are the frozen CF model and alignment networks, the text embeddings, and the projections into the
LLM.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from allmrec import seeds
from allmrec.config import Stage2Config
from allmrec.llm.frozen import FrozenLLM
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf.base import CFModel
from allmrec.models.projection import Projection, item_input_width

POOLED_USERS = 256
"""Users whose histories' soft tokens lie side by side at a time; each user's sum is by itself."""


class ALLMRec(nn.Module):
    """From histories and items to soft tokens.

    | part | what |
    |---|---|
    | cf | E and x_u; frozen |
    | alignment | e_i and q_i; frozen after stage 1 |
    | projection | F_U, F_I: what stage 2 trains |
    | text_embeddings | Q, [I+1, S] float32, row 0 zeros |
    | known | [I+1] bool: items the CF model was trained on; those added since may lie beyond its catalogue |
    """

    text_embeddings: Tensor
    known: Tensor

    def __init__(
        self,
        cf: CFModel,
        alignment: AlignmentNetworks,
        projection: Projection,
        text_embeddings: Tensor,
        known: Tensor,
        settings: Stage2Config,
    ) -> None:
        super().__init__()
        self.cf = cf
        self.alignment = alignment
        self.projection = projection
        self.settings = settings
        self.register_buffer("text_embeddings", text_embeddings, persistent=False)
        self.register_buffer("known", known, persistent=False)
        self.cf.eval().requires_grad_(False)
        self.alignment.eval().requires_grad_(False)
        self.projection.eval()

    @classmethod
    def create(
        cls,
        cf: CFModel,
        alignment: AlignmentNetworks,
        text_embeddings: Tensor,
        known: Tensor,
        llm: FrozenLLM,
        settings: Stage2Config,
        seed: int = 0,
    ) -> ALLMRec:
        """Return one with fresh projections for `llm`, weights drawn from `seed`.

        The projections' item statistics are taken from the catalogue.
        """
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seeds.derive(seed, "stage2", "initial weights"))
            joint_width = alignment.text_projector(text_embeddings[:1]).shape[1]
            projection = Projection(
                cf.width,
                item_input_width(settings, cf.width, joint_width),
                llm.width,
                llm.token_norm,
                settings,
            )
        rec = cls(cf, alignment, projection, text_embeddings, known, settings)
        if settings.item_input != "joint":  # the paper's e_i goes in as it is
            rec.projection.set_item_statistics(*(values[1:] for values in rec._raw_item_inputs()))
        return rec

    @torch.no_grad()
    def joint(self) -> tuple[Tensor, Tensor]:
        """Return (e, q), each [I+1, J]: e_i of every item (meaningless where not `known`) and q_i.

        Row 0 is padding and zeros.
        """
        e = self.alignment.item_encoder(self.cf_items())
        q = self.alignment.text_projector(self.text_embeddings)
        e[0] = 0.0
        q[0] = 0.0
        return e, q

    @torch.no_grad()
    def item_inputs(self) -> Tensor:
        """Return what F_I reads by `stage2.item_input`, [I+1, K].

        It is standardised, but for `joint`, the paper's; e_i is 0 where the item is unknown.
        """
        return self.projection.standardised(*self._raw_item_inputs())

    @torch.no_grad()
    def text_soft_items(self) -> Tensor:
        """Return O_i of all items as if the CF model knew none of them, [I+1, H]: q_i in place of e_i.

        A-LLMRec (SBERT) of the paper; of [e_i; q_i] the first half is absent.
        """
        nobody = torch.zeros_like(self.known)
        return self.soft_items(inputs=self.projection.standardised(*self._raw_item_inputs(nobody)))

    def soft_items(self, idx: Tensor | None = None, inputs: Tensor | None = None) -> Tensor:
        """Return O_i = F_I(...): [N, H] of the items `idx` [N], or [I+1, H] of all; zeros for item 0.

        `inputs` are `item_inputs()` where the caller has them already (the training loop).
        """
        inputs = self.item_inputs() if inputs is None else inputs
        idx = torch.arange(len(inputs), device=inputs.device) if idx is None else idx
        return self.projection.items(inputs[idx]) * (idx > 0)[:, None]

    @torch.no_grad()
    def user_inputs(self, histories_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x_u [B, D], known [B] bool: the CF model knows something of the history)."""
        return self.cf.user_representation(histories_BL), (self.cf.visible(histories_BL) > 0).any(dim=1)

    def user_tokens(self, x_BD: Tensor, known_B: Tensor, rows_BL: Tensor, tokens_NH: Tensor) -> Tensor:
        """Return O_u [B, H].

        `tokens_NH` holds the soft tokens of the histories' items, `rows_BL` their rows there (int64; 0:
        padding).
        """
        if self.settings.user_input == "cf":
            return self.projection.users(x_BD, known_B, None)
        real_B1 = (rows_BL > 0).sum(dim=1, keepdim=True)
        # Of all users at once [B, L, H] would be gigabytes.
        blocks = [
            (tokens_NH[rows] * (rows > 0)[..., None]).sum(dim=1) for rows in rows_BL.split(POOLED_USERS)
        ]
        return self.projection.users(x_BD, known_B, torch.cat(blocks) / real_B1.clamp(min=1))

    def soft_users(self, histories_BL: Tensor, soft_items: Tensor) -> Tensor:
        """Return O_u [B, H] of histories (item_idx, left-padded with 0).

        `soft_items` [I+1, H] are those of all items.
        """
        return self.user_tokens(*self.user_inputs(histories_BL), histories_BL, soft_items)

    def cf_items(self) -> Tensor:
        """Return E [I+1, D], zeros for items beyond the CF model's catalogue."""
        matrix = self.cf.item_matrix().detach()
        return nn.functional.pad(matrix, (0, 0, 0, len(self.known) - len(matrix)))

    @torch.no_grad()
    def _raw_item_inputs(self, known_I: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return F_I's inputs before standardisation and which of them are present, both [I+1, K].

        `known_I` [I+1] bool says which items have an e_i; by default those that the CF model knows.
        """
        known_N1 = (self.known if known_I is None else known_I)[:, None]
        real_N1 = torch.arange(len(self.known), device=self.known.device)[:, None] > 0
        if self.settings.item_input == "cf":
            cf_items = self.cf_items()
            return cf_items, known_N1.expand_as(cf_items)
        e, q = self.joint()
        if self.settings.item_input == "random":
            drawn = seeds.generator(0, "random joint embedding").standard_normal(q.shape, dtype=np.float32)
            return torch.from_numpy(drawn).to(q.device), real_N1.expand_as(q)
        if self.settings.item_input == "joint_and_text":
            return torch.cat([e, q], dim=1), torch.cat([known_N1.expand_as(e), real_N1.expand_as(q)], dim=1)
        values = q if self.settings.item_input == "text" else e.where(known_N1, q)
        return values, real_N1.expand_as(values)
