"""Which soft tokens a batch needs: only those of its users, of their histories and of their candidates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from allmrec.llm.packing import Request
from allmrec.models.a_llmrec import ALLMRec
from allmrec.training.stage2.training_examples import Examples
from allmrec.training.torch_settings import with_dropout


@dataclass(frozen=True)
class BatchTokens:
    """The soft tokens of B users and of the N distinct items that concern them, with gradients."""

    item_idx: Tensor
    """[N] int64: the items, sorted; 0 (padding) is the first."""
    items: Tensor
    """[N, H] float: O_i of these items."""
    users: Tensor
    """[B, H] float: O_u."""

    def rows(self, item_idx: Tensor) -> Tensor:
        """Return the rows in `items` of `item_idx`: int64 of the same shape, all of them among the N."""
        return torch.searchsorted(self.item_idx, item_idx)

    def request(self, request: Request) -> Request:
        """Return the request with rows of `items` in place of item_idx; 0, the user, stays 0."""
        soft_items = torch.tensor(request.prompt.soft_items, dtype=torch.long)
        rows = torch.searchsorted(self.item_idx.cpu(), soft_items).tolist()
        return replace(request, prompt=replace(request.prompt, soft_items=rows))


def batch_tokens(
    rec: ALLMRec, item_inputs_IK: Tensor, examples: Examples, rows_B: Tensor, candidates: Tensor
) -> BatchTokens:
    """Return the soft tokens of some users, of the items in their histories, and of `candidates`.

    In training x_u has the CF model's dropout where `stage2.cf_dropout` says so.

    | input | shape |
    |---|---|
    | item_inputs_IK | [I+1, K] float: `ALLMRec.item_inputs` |
    | rows_B | [B] int64: the users' rows in `examples` |
    | candidates | int64 of any shape: further item_idx |
    """
    histories_BL = examples.histories[rows_B]
    padding = torch.zeros_like(histories_BL[:1, 0])
    item_idx_N, rows = torch.unique(
        torch.cat([padding, histories_BL.flatten(), candidates.flatten()]), return_inverse=True
    )
    items_NH = rec.soft_items(item_idx_N, item_inputs_IK)
    history_rows_BL = rows[1 : 1 + histories_BL.numel()].view_as(histories_BL)
    x_BD = examples.x[rows_B]
    if rec.settings.cf_dropout and rec.projection.training:
        with with_dropout(rec.cf, True):
            x_BD, _ = rec.user_inputs(histories_BL)
    users_BH = rec.user_tokens(x_BD, examples.known[rows_B], history_rows_BL, items_NH)
    return BatchTokens(item_idx_N, items_NH, users_BH)
