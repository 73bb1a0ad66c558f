"""The training losses as plain functions. All are means over the batch and return a scalar; none keeps state.

Sources: SASRec (Kang & McAuley 2018, equation 6); A-LLMRec (KDD 2024, sections 4.1 and 4.2, equations 1 to
5); InfoNCE (van den Oord et al. 2018), with a semantic filter; ListNet's top-one likelihood (Cao et al. 2007)
for the listwise loss.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

ROBUST_POWER = 0.05
"""Exponent of an item's share in the weights of `robust_loss`, as in DROS."""


def bce_loss(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Binary cross-entropy with one negative per positive (SASRec's equation 6).

    It is −mean[log σ(s⁺) + log(1 − σ(s⁻))].

    | input | shape |
    |---|---|
    | positive_scores, negative_scores | [N] float, N > 0 |
    """
    return nn.functional.softplus(-positive_scores).mean() + nn.functional.softplus(negative_scores).mean()


def bpr_loss(positive_scores_N: Tensor, negative_scores_NM: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al. 2009): −mean log σ(s⁺ − s⁻).

    | input | shape |
    |---|---|
    | positive_scores_N | [N] float, N > 0 |
    | negative_scores_NM | [N, M] float, M > 0 |
    """
    return nn.functional.softplus(negative_scores_NM - positive_scores_N[:, None]).mean()


def labels_loss(positive_scores_N: Tensor, negative_scores_NM: Tensor) -> Tensor:
    """Binary cross-entropy of a positive and M negatives.

    NCF (He et al. 2017, equation 7): −mean[log σ(s⁺) + Σ_m log(1 − σ(s⁻_m))].

    | input | shape |
    |---|---|
    | positive_scores_N | [N] float, N > 0 |
    | negative_scores_NM | [N, M] float, M > 0 |
    """
    negatives_N = nn.functional.softplus(negative_scores_NM).sum(dim=1)
    return (nn.functional.softplus(-positive_scores_N) + negatives_N).mean()


def sampled_softmax_loss(
    positive_scores_N: Tensor, negative_scores_NM: Tensor, accidental_NM: Tensor
) -> Tensor:
    """Softmax cross-entropy of the positive among M sampled negatives.

    It is −mean[s⁺ − log(exp s⁺ + Σ_m exp s⁻_m)].

    The negatives are drawn uniformly, so log Q is the same constant for each of them and is left out:
    subtracting it from the negatives alone would only shift the positive's margin (for popularity sampling it
    would be needed).

    | input | shape |
    |---|---|
    | positive_scores_N | [N] float, N > 0 |
    | negative_scores_NM | [N, M] float, negatives shared by the batch |
    | accidental_NM | [N, M] bool, true where the negative is that row's positive: it is left out |
    """
    left_out = nn.functional.pad(accidental_NM, (1, 0))  # column 0 is the positive
    logits = torch.cat([positive_scores_N[:, None], negative_scores_NM], dim=1).masked_fill_(
        left_out, float("-inf")
    )
    return nn.functional.cross_entropy(
        logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    )


def robust_loss(scores_NK: Tensor, is_next_NK: Tensor, counts_K: Tensor) -> Tensor:
    """Distributionally robust regression of scores to 1 and 0.

    DROS (Yang et al. 2023) with β = 1: mean[log(Σ_j exp(w_j f_j²) − exp(w_y f_y²) + exp(w_y (f_y − 1)²))].
    The weight is w_j = p_j^.05 with the share p_j of item j in all counts + 1.

    | input | shape |
    |---|---|
    | scores_NK | [N, K] float, the scores f of all K items, N > 0 |
    | is_next_NK | [N, K] bool, true at the item y of each row |
    | counts_K | [K] int64, interactions of every item |
    """
    shares_K = (counts_K + 1).to(scores_NK) / (counts_K + 1).sum()
    errors_NK = (scores_NK - is_next_NK.to(scores_NK)).square()
    return (shares_K**ROBUST_POWER * errors_NK).logsumexp(dim=1).mean()


def mse_of_both(found_2NK: Tensor, expected_2NK: Tensor) -> Tensor:
    """The mean squared error of the positives plus that of the negatives (A-LLMRec's equations 1 to 3).

    Each is a mean over N and the width K. The equations sum over items; what is a mean follows the authors'
    code, where the two means are added.

    | input | shape |
    |---|---|
    | found_2NK, expected_2NK | [2N, K] float: rows of N positives, then of N negatives |
    """
    return 2.0 * nn.functional.mse_loss(found_2NK, expected_2NK)


def info_nce(e_BJ: Tensor, q_BJ: Tensor, Q_BS: Tensor, temperature: float, threshold: float) -> Tensor:
    """InfoNCE with a semantic filter.

    It is −mean_i[log exp(s_ii/τ) / (exp(s_ii/τ) + Σ_j exp(s_ij/τ))] with s_ij = cos(e_i, q_j).

    The anchor is e_i, the positive q_i. The sum runs over the other items j of the batch, without those whose
    text is more similar to text i than θ (cosine): they would be false negatives. The same item twice in a
    batch has similarity 1, so it is left out for every θ < 1. An anchor without negatives contributes 0.

    | input | shape |
    |---|---|
    | e_BJ, q_BJ | [B, J] float: joint embeddings |
    | Q_BS | [B, S] float: text embeddings, no gradient flows into them |
    | temperature | τ > 0 |
    | threshold | θ in [−1, 1]; 1: no filter |
    """
    logits_BB = nn.functional.normalize(e_BJ, dim=1) @ nn.functional.normalize(q_BJ, dim=1).T / temperature
    texts_BS = nn.functional.normalize(Q_BS.detach().float(), dim=1)
    filtered_BB = texts_BS @ texts_BS.T > threshold
    filtered_BB.fill_diagonal_(False)
    target_B = torch.arange(len(e_BJ), device=e_BJ.device)
    return nn.functional.cross_entropy(logits_BB.masked_fill(filtered_BB, float("-inf")), target_B)


def recommendation_loss(
    x_BD: Tensor, positive_BD: Tensor, negative_BD: Tensor, score: Literal["dot", "mean"] = "dot"
) -> Tensor:
    """L_rec of stage 1 (A-LLMRec's equation 4).

    It is `bce_loss` of x_u · f_dec(f_enc(E_i)), for the next item and for the sampled negative. With `mean`
    the scores are divided by D, as in the authors' code.

    | input | shape |
    |---|---|
    | x_BD | [B, D] float: user representations |
    | positive_BD, negative_BD | [B, D] float: decoded CF embeddings of the next item and of the negative |
    """
    reduced = torch.sum if score == "dot" else torch.mean
    return bce_loss(reduced(x_BD * positive_BD, dim=1), reduced(x_BD * negative_BD, dim=1))


def listwise_loss(scores_BC: Tensor, target_B: Tensor, log_temperature: Tensor) -> Tensor:
    """Softmax cross-entropy over each user's candidates.

    It is −mean_b log softmax(s_b / exp(log_temperature))[target_b].

    | input | shape |
    |---|---|
    | scores_BC | [B, C] float; −inf marks padding (never the target) |
    | target_B | [B] int64, the true candidate's column |
    | log_temperature | scalar, usually a learnable parameter |
    """
    padding_BC = torch.isneginf(scores_BC)
    # Padding is zeroed before the division: −inf / T has a NaN gradient in T.
    logits_BC = (scores_BC.masked_fill(padding_BC, 0.0) / log_temperature.exp()).masked_fill(
        padding_BC, float("-inf")
    )
    return nn.functional.cross_entropy(logits_BC, target_B)
