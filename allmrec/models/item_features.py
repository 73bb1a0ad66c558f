"""What is known of every item before anybody interacted with it: features by name.

    text    the sentence encoder's embedding Q of title and description
    states  the frozen LLM's own states of the title

The CF model starts from one of them (`cf.item_init`), so that an item with little history stands near the
items that read like it, and moves away from there as far as its interactions say.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ItemFeatures = Mapping[str, Tensor]
"""Name → [I+1, K] float32; row 0 (padding) is zeros."""


def standardised(features_IK: Tensor) -> Tensor:
    """Return the features with mean 0 and standard deviation 1 of every column over the items, row 0 zeros.

    A few columns of an LLM's states are a hundred times as large as the others (Sun et al. 2024, "Massive
    activations in large language models"), and would be all that principal components see.
    """
    real_NK = features_IK[1:]
    scaled_IK = torch.zeros_like(features_IK)
    scaled_IK[1:] = (real_NK - real_NK.mean(dim=0)) / real_NK.std(dim=0, correction=0).clamp(min=1e-6)
    return scaled_IK


def principal_components(features_IK: Tensor, width: int, std: float) -> Tensor:
    """Return the first `width` principal components of the items, [I+1, C] float32, row 0 zeros.

    C is smaller than `width` where the features have a lower rank. All are scaled by one number, so that the
    standard deviation of the entries is `std` and the components keep their proportions. Signs are fixed: the
    largest loading of each is positive. `features_IK` is [I+1, K] float.
    """
    real_NK = features_IK[1:].double()
    centred_NK = real_NK - real_NK.mean(dim=0)
    # K × K instead of a decomposition of all items: K is hundreds, the items may be millions.
    variances_K, loadings_KK = torch.linalg.eigh(centred_NK.T @ centred_NK)
    best_C = variances_K.argsort(descending=True)[:width]
    best_C = best_C[variances_K[best_C] > 1e-9 * max(1.0, float(variances_K.max()))]
    components_IC = features_IK.new_zeros(len(features_IK), len(best_C), dtype=torch.float32)
    if len(best_C):
        loadings_KC = loadings_KK[:, best_C]
        largest_1C = loadings_KC.abs().argmax(dim=0, keepdim=True)
        components_NC = centred_NK @ (loadings_KC * loadings_KC.gather(0, largest_1C).sign())
        components_IC[1:] = (components_NC * (std / components_NC.square().mean().sqrt())).float()
    return components_IC
