"""The stage-2 networks F_U and F_I: from user and item vectors into the LLM's token space.

Source: A-LLMRec, KDD 2024, section 4.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from allmrec.config import Stage2Config

USER_DROPOUT = 0.5
"""Dropout on x_u in training, where the history is pooled into the user's token beside it: CF user vectors
are overfit.
"""


def item_input_width(settings: Stage2Config, cf_width: int, joint_width: int) -> int:
    """Return K, the width of what F_I reads."""
    widths = {"joint_and_text": 2 * joint_width, "cf": cf_width}
    return widths.get(settings.item_input, joint_width)


class Projection(nn.Module):
    """The two-layer MLPs F_U: R^D → R^H and F_I: R^K → R^H.

    Each is linear → LayerNorm → LeakyReLU (F_U) or GELU (F_I) → linear, hidden width H, Xavier-normal
    weights.

    It also holds what belongs to them: the standardisation of their inputs, the norm of the LLM's token
    embeddings, the weight γ of the pooled history, and the learnable log-temperatures of the warm start and
    of the listwise loss. A new one learns `token_norm` and the statistics; one that is loaded has them among
    its weights.
    """

    item_mean: Tensor
    item_std: Tensor
    user_mean: Tensor
    user_std: Tensor
    token_norm: Tensor

    def __init__(
        self, cf_width: int, item_input_width: int, llm_width: int, token_norm: float, settings: Stage2Config
    ) -> None:
        super().__init__()
        self.settings = settings
        self.llm_width = llm_width
        self.user_projector = _mlp(cf_width, llm_width, nn.LeakyReLU())
        self.item_projector = _mlp(item_input_width, llm_width, nn.GELU())
        self.history_weight = nn.Parameter(torch.ones(()))
        self.log_temperature_cosine = nn.Parameter(torch.tensor(math.log(0.1)))
        self.log_temperature_listwise = nn.Parameter(torch.zeros(()))
        self.register_buffer("item_mean", torch.zeros(item_input_width))
        self.register_buffer("item_std", torch.ones(item_input_width))
        self.register_buffer("user_mean", torch.zeros(cf_width))
        self.register_buffer("user_std", torch.ones(cf_width))
        self.register_buffer("token_norm", torch.tensor(float(token_norm)))
        self._num_droppable = item_input_width // 2 if settings.item_input == "joint_and_text" else 0

    def set_item_statistics(self, inputs_NK: Tensor, present_NK: Tensor) -> None:
        """Take mean and standard deviation of each column over the rows where it is present, both [N, K].

        e_i is present in items that the CF model knows, q_i in all.
        """
        _set_statistics(self.item_mean, self.item_std, inputs_NK, present_NK)

    def set_user_statistics(self, x_BD: Tensor) -> None:
        """Take mean and standard deviation of user representations x_u [B, D]."""
        _set_statistics(self.user_mean, self.user_std, x_BD, torch.ones_like(x_BD, dtype=torch.bool))

    def standardised(self, inputs_NK: Tensor, present_NK: Tensor) -> Tensor:
        """Return standardised item inputs [N, K], 0 where absent."""
        return ((inputs_NK - self.item_mean) / self.item_std).where(present_NK, 0.0)

    def items(self, inputs_NK: Tensor) -> Tensor:
        """F_I: soft tokens [N, H] of standardised inputs.

        In training, e_i is dropped for `unknown_dropout` of the items ([e_i; q_i] only).
        """
        if self.training and self._num_droppable and self.settings.unknown_dropout:
            kept_N1 = torch.rand(len(inputs_NK), 1, device=inputs_NK.device) >= self.settings.unknown_dropout
            e = inputs_NK[:, : self._num_droppable]
            q = inputs_NK[:, self._num_droppable :]
            inputs_NK = torch.cat([e * kept_N1, q], dim=1)
        return self._scaled(self.item_projector(inputs_NK))

    def users(self, x_BD: Tensor, known_B: Tensor, pooled_BH: Tensor | None) -> Tensor:
        """Return the soft tokens O_u [B, H]: F_U(x_u), plus γ · `pooled_BH` where that is given.

        `known_B` (bool) is false where the CF model knows nothing of the history: x_u is then the mean user
        (0 after standardisation).
        """
        if pooled_BH is None:
            return self._scaled(self.user_projector(x_BD))
        standard = ((x_BD - self.user_mean) / self.user_std).where(known_B[:, None], 0.0)
        # F_U's output has a norm of about √H at the start; the pooled tokens are brought to that scale.
        scale = math.sqrt(self.llm_width) / self.token_norm if self.settings.scale_soft_tokens else 1.0
        dropped = nn.functional.dropout(standard, USER_DROPOUT, self.training)
        return self._scaled(self.user_projector(dropped) + self.history_weight * scale * pooled_BH)

    def _scaled(self, tokens: Tensor) -> Tensor:
        return (
            self.token_norm * nn.functional.normalize(tokens, dim=-1)
            if self.settings.scale_soft_tokens
            else tokens
        )


def _mlp(width_in: int, width_out: int, activation: nn.Module) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(width_in, width_out), nn.LayerNorm(width_out), activation, nn.Linear(width_out, width_out)
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
    return layers


def _set_statistics(mean: Tensor, std: Tensor, values_NK: Tensor, present_NK: Tensor) -> None:
    with torch.no_grad():
        count = present_NK.sum(dim=0).clamp(min=1)
        mean.copy_(values_NK.where(present_NK, 0.0).sum(dim=0) / count)
        deviation = ((values_NK - mean) ** 2).where(present_NK, 0.0).sum(dim=0).div(count).sqrt()
        std.copy_(deviation.where(deviation > 1e-6, 1.0))
