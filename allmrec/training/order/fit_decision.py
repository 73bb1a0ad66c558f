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
from allmrec.parts import BLEND_WITH_LLM, BLEND_WITHOUT_LLM
from allmrec.ranking import ties
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.decision import ComparedOrder, Decision, cheapest_unbeaten
from allmrec.ranking.served import AmongRead
from allmrec.training.order.fit_blend import fit_blend, halves_of, without_llm

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

    Each half of the users is ordered by weights that were fitted on the other half, equal scores as
    `allmrec.ranking.ties` does.
    """
    columns_B = read.columns_of(targets)
    half_B = halves_of(read.users, seed)
    ranks: dict[str, list[np.ndarray]] = {BLEND_WITHOUT_LLM: [], BLEND_WITH_LLM: []}
    for half in (0, 1):
        these = np.flatnonzero(half_B == half)
        others = np.flatnonzero(half_B != half)
        fitted_on = read.take(others)
        other_targets = [targets[row] for row in others.tolist()]
        without, _ = fit_blend(fitted_on, other_targets, without_llm(parts), seed=seed)
        with_llm, _ = fit_blend(fitted_on, other_targets, parts, without, seed)
        lists = read.take(these)
        orders = ((BLEND_WITHOUT_LLM, without), (BLEND_WITH_LLM, AmongRead(with_llm, without)))
        for name, ranker in orders:
            ranks_BC = ties.ranks(ranker.scores(lists), lists, seed)
            ranks[name].append(ranks_BC[np.arange(len(these)), columns_B[these]])
    ndcg = {name: metrics.ndcg(np.concatenate(by_half), 10) for name, by_half in ranks.items()}
    return _decision(ndcg, {BLEND_WITHOUT_LLM: 0.0, BLEND_WITH_LLM: tokens_per_user}, seed)


def _decision(ndcg: Mapping[str, np.ndarray], tokens: Mapping[str, float], seed: int) -> Decision:
    """Return the decision between orders by their NDCG@10 of the same users, cheapest first."""
    first_N = next(iter(ndcg.values()))
    if not len(first_N):
        return Decision(BLEND_WITHOUT_LLM, (), 0)
    against = {name: paired(first_N, values_N, NUM_RESAMPLES, seed) for name, values_N in ndcg.items()}
    beats = {
        (one, other)
        for one, ones_N in ndcg.items()
        for other, others_N in ndcg.items()
        if one != other and paired(others_N, ones_N, NUM_RESAMPLES, seed).verdict == "better"
    }
    compared = tuple(
        ComparedOrder(name, tokens[name], against[name].second, against[name].low, against[name].high)
        for name in ndcg
    )
    return Decision(cheapest_unbeaten(list(ndcg), beats), compared, len(first_N))


def _tokens_per_user(read: CandidateLists, bundle: Bundle, llm: FrozenLLM) -> float:
    """Return how many tokens the LLM reads of a user: the prompt, and the candidates' titles."""
    if not len(read):
        return 0.0
    index = bundle.index
    lengths = np.diff(bundle.titles.offsets)
    candidates = read.ids[~np.isnan(read.part("llm"))]
    layout = PromptLayout.of(bundle.config.prompt, llm)
    histories = [[index[item] for item in history if item in index] for history in read.histories]
    prompts = sum(len(layout.prompt(history, [], bundle.titles).token_ids) for history in histories)
    return (prompts + sum(int(lengths[index[item]]) for item in candidates)) / len(read)
