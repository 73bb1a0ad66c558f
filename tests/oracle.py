"""The slow way to read a title, by which multi-item scoring is judged: by itself, without any mask."""

from __future__ import annotations

import torch
from torch import Tensor

from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.packing import Request
from allmrec.llm.prompt import USER


def oracle(
    llm: FrozenLLM, request: Request, index: int, soft_items: Tensor, soft_users: Tensor
) -> list[float]:
    """Score each answer by itself, as embeddings, with the model's own causal mask and positions."""
    scores = []
    for answer in request.answers:
        ids = torch.tensor([request.prompt.token_ids + answer], device=llm.device)
        embeddings = llm.token_embeddings(ids).clone()
        for position, item in zip(request.prompt.soft_positions, request.prompt.soft_items, strict=True):
            embeddings[0, position] = soft_users[index] if item == USER else soft_items[item]
        logprobs = llm.model(inputs_embeds=embeddings).logits[0].float().log_softmax(-1)
        start = len(request.prompt.token_ids)
        scores.append(sum(float(logprobs[start + place - 1, token]) for place, token in enumerate(answer)))
    return scores
