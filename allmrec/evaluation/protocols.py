"""The items that a held-out item is ranked among, by protocol.

    retrieved   the list of a night right before the event: available items, with `candidates.exclude_seen`
    without those the user had before; a target outside of the list is a miss catalogue   all available items,
    with `evaluation.exclude_seen` without those the user had before; a target outside of them is a miss
    uniform     the target, and items drawn uniformly from those new to the user popular     the target, and
    items drawn by popularity from those new to the user

Users get the lists of the first protocol, which therefore decides. Random negatives are easy, and show other
differences. Rankers that can score all items rank whole catalogues; the others re-rank the retrieved list
there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from allmrec.bundle import Bundle
from allmrec.config import Config
from allmrec.evaluation.negatives import lists_with_target
from allmrec.evaluation.ranks import (
    ranks_in_catalogue,
    ranks_of_candidates,
    require_finite_lists,
    target_ranks,
)
from allmrec.parts import PARTS
from allmrec.ranking import ties
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.decision import resolved
from allmrec.ranking.rankers import Ranker, entries, rankers
from allmrec.ranking.rerankers import served_places
from allmrec.ranking.served import CalibratedRanker, ServedOrder, probabilities
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.scoring.text_vectors import text_vectors

PROTOCOLS = ("retrieved", "catalogue", "uniform", "popular")
"""In the order of a report."""
WITHOUT_SAMPLES = ("retrieved", "catalogue")
"""Protocols for every evaluated user; the others are for `evaluation.num_sampled_users`."""
NUM_STORED = 20
"""Number of best items of the catalogue that are stored beside the target."""
MAX_SCORES = 4_000_000
"""Maximal users × items that are scored at a time."""
COLUMNS = [
    *("protocol", "user_id", "target", "candidates", "model", "ranks", "target_rank"),
    *("num_ranked", "scores", "probabilities"),
]


Spent = Callable[[str, float, int], None]
"""A receiver of a part of the work on retrieved lists (`lists`, `llm`), its seconds and its users."""


def ranked(
    users: pd.DataFrame,
    retriever: Retriever,
    scorer: Scorer,
    config: Config,
    spent: Spent,
) -> Iterator[pd.DataFrame]:
    """Yield the rows of `evaluation_predictions` (COLUMNS, is_sampled) of all protocols.

    `users` has user_id, history, target, seen_before (items before the target's event) and place, from 1: the
    first `evaluation.num_sampled_users` get sampled items. `retriever` has the available items.
    """
    settings = config.evaluation
    last = settings.num_sampled_users or users["place"].max()
    users = users.assign(
        is_sampled=users["place"] <= last,
        history=[cut(history, settings.max_history) for history in users["history"]],
    )
    for protocol in settings.protocols:
        chosen = users if protocol in WITHOUT_SAMPLES else users[users["is_sampled"]]
        chosen = chosen.reset_index(drop=True)
        if len(chosen):
            for rows in predictions(protocol, chosen, retriever, scorer, config, spent):
                yield rows.assign(is_sampled=chosen["is_sampled"])


def cut(history: Sequence[str], max_history: int | None) -> Sequence[str]:
    """Return the newest `max_history` items of a history; None: all."""
    return history if max_history is None else history[max(len(history) - max_history, 0) :]


def predictions(
    protocol: str,
    users: pd.DataFrame,
    retriever: Retriever,
    scorer: Scorer,
    config: Config,
    spent: Spent = lambda part, seconds, num_users: None,
) -> Iterator[pd.DataFrame]:
    """Yield the rows (COLUMNS) of one protocol, a frame per ranker.

    `users` has user_id, history, target, seen_before and is_sampled. `target_rank` is null if the target is
    not among the candidates, or an LLM that writes one title writes another; `num_ranked` is the number of
    ranked candidates. `scores` are null for a catalogue; `probabilities` if the ranker has none for the user.
    """
    table = rankers(scorer.bundle.blends, resolved(config.scoring, scorer.bundle.decision))
    if protocol == "catalogue":
        known = entries()
        able = {name: ranker for name, ranker in table.items() if known[name].scores_catalogue}
        size = max(1, MAX_SCORES // len(retriever.assortment.items))
        for start in range(0, len(users), size):
            piece = users.iloc[start : start + size]
            yield from _in_catalogue(piece, able, retriever, scorer, config)
        return
    started = time.perf_counter()
    lists = _lists(protocol, users, retriever, config)
    retrieved = time.perf_counter()
    # The LLM reads all sampled items, as in published figures.
    lists = scorer.score(lists, read_all=protocol != "retrieved")
    if protocol == "retrieved":
        spent("lists", retrieved - started, len(users))
        spent("llm", time.perf_counter() - retrieved, int(lists.use_llm.sum()))
    rows = users[["user_id", "target"]].assign(protocol=protocol, candidates=lists.listed(lists.ids))
    for name, ranker in table.items():
        ordered = _ordered(ranker, lists, scorer.bundle, config.seed)
        ranks = ordered.ranks
        found = target_ranks(rows["candidates"].tolist(), ranks, rows["target"].tolist())
        if name in PARTS and PARTS[name].reads_llm and config.scoring.mode != "rank":
            # The LLM writes one title and ranks no other: the title is the target's, or a miss.
            columns_B = lists.columns_of(rows["target"].tolist())
            said_BC = np.isfinite(lists.part(name))
            found = [
                1 if column >= 0 and said_C[column] else None
                for column, said_C in zip(columns_B.tolist(), said_BC, strict=True)
            ]
        probabilities_BC = None
        if protocol == "retrieved" and entries()[name].is_calibrated:
            temperatures_B = ordered.temperatures
            if temperatures_B is None:
                temperatures_B = np.full(len(lists), cast(CalibratedRanker, ranker).temperature)
            recall = cast(ServedOrder, table["served"]).recall
            probabilities_BC = probabilities(ordered.scores, temperatures_B, recall)
        yield rows.assign(
            model=name,
            ranks=ranks,
            target_rank=pd.array(found, dtype="Int32"),
            num_ranked=lists.counts.astype(np.int32),
            scores=lists.listed(ordered.scores),
            probabilities=None if probabilities_BC is None else lists.listed(probabilities_BC),
        )[COLUMNS]


class Ordered(NamedTuple):
    """The lists of B users with up to C candidates, as a ranker orders them."""

    scores: np.ndarray
    """[B, C] float64, −inf beyond a user's candidates."""
    ranks: list[list[int]]
    """The rank of every candidate, from 1, by user."""
    temperatures: np.ndarray | None
    """[B] float64 of the served order; None: the ranker has one for all users."""


def _ordered(ranker: Ranker, lists: CandidateLists, bundle: Bundle, seed: int) -> Ordered:
    """Return the lists as a ranker orders them, and as a night places those of the served order.

    Raises ValueError where a candidate's score is not finite.
    """
    if isinstance(ranker, ServedOrder):
        order = ranker.order(lists)
        require_finite_lists(order.scores, lists)
        places_BC = served_places(lists, order, ranker.rerankers, partial(text_vectors, bundle), seed)
        return Ordered(order.scores, lists.listed(places_BC), order.temperatures)
    scores_BC = ranker.scores(lists)
    return Ordered(scores_BC, ranks_of_candidates(scores_BC, lists, seed), None)


def _lists(protocol: str, users: pd.DataFrame, retriever: Retriever, config: Config) -> CandidateLists:
    """Return the candidates of every user, and the users of the LLM."""
    names = users["user_id"].tolist()
    histories = users["history"].tolist()
    targets = users["target"].tolist()
    seen_before = users["seen_before"].tolist()
    if protocol == "retrieved":
        lists = retriever.retrieve(names, histories, seen_before)
        # A list without the target is a miss in any order. The LLM orders it only for users whose whole lists
        # count.
        return replace(lists, use_llm=(lists.columns_of(targets) >= 0) | users["is_sampled"].to_numpy(bool))
    lists = lists_with_target(
        names,
        histories,
        targets,
        seen_before,
        retriever,
        config.evaluation.num_negatives,
        config.seed,
        by_popularity=protocol == "popular",
    )
    return lists.asking_llm(True)


def _in_catalogue(
    users: pd.DataFrame, table: Mapping[str, Ranker], retriever: Retriever, scorer: Scorer, config: Config
) -> Iterator[pd.DataFrame]:
    """Yield a frame per ranker: target's rank, and the best others."""
    names = users["user_id"].tolist()
    targets = users["target"].tolist()
    lists = retriever.score_all(names, users["history"].tolist())
    lists = scorer.fill_catalogue(lists)
    ids = lists.ids[0]
    index = retriever.bundle.index
    columns_B = np.array([index[target] - 1 for target in targets], dtype=np.int64)
    hidden_BI = np.ones(lists.ids.shape, dtype=bool)
    hidden_BI[:, retriever.assortment.items - 1] = False
    if config.evaluation.exclude_seen:
        rows, items = retriever.encoder.indexed(users["seen_before"].tolist())
        hidden_BI[rows, items - 1] = True
    missed_B = hidden_BI[np.arange(len(users)), columns_B]
    # Hidden items must not change the z-scores of the others.
    lists = lists.with_parts({name: np.where(hidden_BI, np.nan, part) for name, part in lists.parts.items()})
    draws_I = ties.item_draws(ids, config.seed)
    rows = users[["user_id", "target"]].assign(protocol="catalogue")
    for name, ranker in table.items():
        ranks_B, best = ranks_in_catalogue(
            ranker.scores(lists), hidden_BI, columns_B, names, draws_I, config.seed, NUM_STORED
        )
        candidates = []
        places = []
        for target, rank, top, is_missed in zip(targets, ranks_B.tolist(), best, missed_B, strict=True):
            # The target's place is taken, so that the others are around it.
            around = [place + (place >= rank and not is_missed) for place in range(1, len(top) + 1)]
            candidates.append([*([] if is_missed else [target]), *ids[top]])
            places.append([*([] if is_missed else [rank]), *around])
        found = pd.array(ranks_B, dtype="Int32")
        found[missed_B] = pd.NA
        yield rows.assign(
            model=name,
            candidates=candidates,
            ranks=places,
            target_rank=found,
            num_ranked=(~hidden_BI).sum(axis=1).astype(np.int32),
            scores=None,
            probabilities=None,
        )[COLUMNS]
