"""The decision of a training whether the LLM is worth its cost (`allmrec.ranking.decision`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from allmrec import metrics
from allmrec.bundle import Bundle
from allmrec.config import Config
from allmrec.evaluation.comparison import paired
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.prompt import PromptLayout
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.decision import TITLES, WITHOUT_LLM, ComparedOrder, Decision, cheapest_unbeaten
from allmrec.ranking.served import AmongRead, CalibratedRanker, log_softmax
from allmrec.training.blend import fit_blend, halves_of, without_llm

NUM_RESAMPLES = 1000
"""Bootstrap samples of every comparison."""


def decide(
    read: CandidateLists, targets: Sequence[str], bundle: Bundle, llm: FrozenLLM, config: Config
) -> Decision:
    """Return whether the order with the LLM is worth it, on lists that the LLM has read."""
    parts = config.training.blend_parts
    return compared_crosswise(read, targets, parts, _tokens_per_user(read, bundle, llm), config.seed)


def compared_crosswise(
    read: CandidateLists, targets: Sequence[str], parts: Sequence[str], tokens_per_user: float, seed: int
) -> Decision:
    """Return the decision between the blends without and with the LLM.

    Each half of the users is ordered by weights that were fitted on the other half.
    """
    columns_B, half_B = read.columns_of(targets), halves_of(read.users, seed)
    found: dict[str, list[np.ndarray]] = {WITHOUT_LLM: [], TITLES: []}
    for half in (0, 1):
        these, others = np.flatnonzero(half_B == half), np.flatnonzero(half_B != half)
        fitted_on, other_targets = read.take(others), [targets[row] for row in others.tolist()]
        without, _ = fit_blend(fitted_on, other_targets, without_llm(parts), seed=seed)
        with_llm, _ = fit_blend(fitted_on, other_targets, parts, without, seed)
        lists = read.take(these)
        for name, ranker in ((WITHOUT_LLM, without), (TITLES, AmongRead(with_llm, without))):
            found[name].append(_values(ranker, lists, columns_B[these]))
    values = {name: np.concatenate(by_half) for name, by_half in found.items()}
    return _decision(values, {WITHOUT_LLM: 0.0, TITLES: tokens_per_user}, seed)


def _values(ranker: CalibratedRanker, lists: CandidateLists, columns_B: np.ndarray) -> np.ndarray:
    """Return NDCG@10 and the log-likelihood of each user's item, [B, 2] float64; `columns_B` [B] int64."""
    scores_BC = ranker.scores(lists)
    logprobs_BC = log_softmax(scores_BC / ranker.temperature)
    ndcg_B = metrics.ndcg(metrics.ranks_of_target(scores_BC, columns_B), 10)
    return np.column_stack([ndcg_B, logprobs_BC[np.arange(len(lists)), columns_B]])


def _decision(values: Mapping[str, np.ndarray], tokens: Mapping[str, float], seed: int) -> Decision:
    """Return the decision between orders by their `_values` [N, 2] of the same users, cheapest first."""
    first_N2 = next(iter(values.values()))
    if not len(first_N2):
        return Decision(WITHOUT_LLM, (), 0)
    beats = {
        (one, other)
        for one, ones_N2 in values.items()
        for other, others_N2 in values.items()
        if one != other
        and paired(others_N2[:, 1], ones_N2[:, 1], NUM_RESAMPLES, seed).verdict == "better"
        and ones_N2[:, 0].mean() >= others_N2[:, 0].mean()
    }
    compared = []
    for name, values_N2 in values.items():
        against = paired(first_N2[:, 1], values_N2[:, 1], NUM_RESAMPLES, seed)
        ndcg = float(values_N2[:, 0].mean())
        compared.append(ComparedOrder(name, tokens[name], ndcg, against.second, against.low, against.high))
    return Decision(cheapest_unbeaten(list(values), beats), tuple(compared), len(first_N2))


def _tokens_per_user(read: CandidateLists, bundle: Bundle, llm: FrozenLLM) -> float:
    """Return how many tokens the LLM reads of a user: the prompt, and the candidates' titles."""
    if not len(read):
        return 0.0
    index, lengths = bundle.index, np.diff(bundle.titles.offsets)
    candidates = read.ids[~np.isnan(read.part("llm"))]
    layout = PromptLayout.of(bundle.config.prompt, llm)
    histories = [[index[item] for item in history if item in index] for history in read.histories]
    prompts = sum(len(layout.prompt(history, [], bundle.titles).token_ids) for history in histories)
    return (prompts + sum(int(lengths[index[item]]) for item in candidates)) / len(read)
