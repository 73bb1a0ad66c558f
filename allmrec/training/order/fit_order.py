"""Fitting what a night retrieves and orders by: weights of retrieval, the blends, whether the LLM is asked.

All are fitted on users whose held-back item no trained part has seen (`held_back_users`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from allmrec.bundle import Bundle, FittedOrder
from allmrec.config import Config
from allmrec.llm.frozen import FrozenLLM
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.reporting import Report
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.training.loader import Snapshot
from allmrec.training.order.fit_blend import fit_blend, without_llm
from allmrec.training.order.fit_decision import decide
from allmrec.training.order.fit_retrieval import fit_retrieval
from allmrec.training.order.held_back import by_item_id, held_back_users
from allmrec.training.work import Work

USERS_WITH_LLM = 64
"""Users that are scored together with the LLM."""
USERS_WITHOUT_LLM = 4096
"""Users that are scored together without it."""


def fit_order(work: Work, bundle: Bundle, llm: FrozenLLM) -> tuple[FittedOrder, dict[str, float]]:
    """Return the order of a bundle that has none yet, and all figures on the users of the fit.

    The weights of retrieval come first, then the blend without the LLM on the lists that are retrieved by
    them, of at most `training.blend_users`; the LLM reads at most `training.blend_llm_users` of these lists.
    """
    snapshot = work.snapshot
    config = work.config
    report = work.report
    search = fit_retrieval(bundle, snapshot, config)
    searching = bundle.with_state(FittedOrder(search))
    lists, targets, recall = blend_lists(searching, snapshot, config)
    parts = config.training.blend_parts
    aligned = _scored(Scorer(searching, None, config), lists, USERS_WITHOUT_LLM, report)
    fitted, figures = fit_blend(aligned, targets, without_llm(parts), seed=config.seed)
    without = replace(fitted, recall=recall)
    num_read = min(len(lists), config.training.blend_llm_users)
    asked = lists.take(np.arange(num_read)).asking_llm(True)
    asking = bundle.with_state(FittedOrder(search, {"without_llm": without}))
    read = _scored(Scorer(asking, llm, config), asked, USERS_WITH_LLM, report)
    # Few users are read by the LLM: the weights with it are shrunk towards those found on all users without
    # it.
    fitted, figures_with_llm = fit_blend(read, targets[:num_read], parts, without, config.seed)
    blends = {"without_llm": without, "with_llm": replace(fitted, recall=recall)}
    decision = decide(read, targets[:num_read], bundle, llm, config)
    report(f"blend: {decision}")
    named = {f"blend_without_llm_{name}": value for name, value in figures.items()}
    named |= {f"blend_with_llm_{name}": value for name, value in figures_with_llm.items()}
    named |= {f"retrieval_weight_{name}": weight for name, weight in search.weights.items()}
    named |= {"blend_recall": recall, "retrieval_num_users": float(search.num_users)}
    return FittedOrder(search, blends, decision), named


def blend_lists(
    bundle: Bundle, snapshot: Snapshot, config: Config
) -> tuple[CandidateLists, list[str], float]:
    """Return the retrieved lists that hold the held-back item, of `held_back_users`; the items; the recall.

    They are the lists that a night right before the held-back event retrieves: without unavailable items, and
    without what the user had before where `candidates.exclude_seen` is set. Retrieval's recall is the share
    of users whose list holds the item; 1 without users. An item that comes again is a miss where seen items
    are left out. Users stand in an order drawn from the seed, so that the first ones are a sample.
    """
    users = by_item_id(held_back_users(snapshot, config), bundle.items["item_id"].tolist())
    names, histories, targets, seen = (users[name].tolist() for name in users.columns)
    lists = Retriever(bundle, snapshot.available_items(), config.candidates).retrieve(names, histories, seen)
    # Only lists that hold the true item say how to order one. Placing it into the others would teach that the
    # true item is the one that retrieval ranks last: on the demo shop all weights then became 0.
    has_target = np.flatnonzero(lists.columns_of(targets) >= 0)
    recall = len(has_target) / len(lists) if len(lists) else 1.0
    return lists.take(has_target), [targets[row] for row in has_target.tolist()], recall


def _scored(scorer: Scorer, lists: CandidateLists, num_together: int, report: Report) -> CandidateLists:
    """Return the lists scored, so many users at a time."""
    pieces = []
    with report.progress("users of the blend", len(lists), "users") as progress:
        progress.update(0)
        for start in range(0, len(lists), num_together):
            rows = np.arange(start, min(start + num_together, len(lists)))
            pieces.append(scorer.score(lists.take(rows)))
            progress.update(start + len(rows))
    return CandidateLists.concatenated(pieces)
