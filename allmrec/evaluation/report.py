"""Figures of every ranker under every protocol, with bootstrap intervals and numbers of users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from allmrec import metrics
from allmrec.config import EvaluationConfig
from allmrec.evaluation.comparison import Comparison, paired
from allmrec.evaluation.condition import condition_and_group
from allmrec.evaluation.condition import in_words as condition_in_words
from allmrec.evaluation.protocols import PROTOCOLS, RERANKERS
from allmrec.evaluation.scenarios import SCENARIOS, scenario_rows, warm_cold
from allmrec.ranking.rankers import RANKER_NAMES

LABELS = {
    "popularity": "popularity",
    "text": "text similarity",
    "cf": "CF model",
    "alignment": "projections alone",
    "blend": "blend without LLM",
    "llm": "A-LLMRec",
    "llm_floor": "floor of A-LLMRec",
    "with_llm": "blend with LLM",
    "served": "served order",
    "retrieval": "retrieval's recall",
}
"""Ranker → its name in a report; a ranker that is not here is called by its own name."""

COST = "s per 1,000 users"
"""Metric: seconds of one worker for the lists of 1,000 users, retrieval included."""
NUM_BINS = 10
"""Bins of popularity and of probability."""
LINES_BY_POPULARITY = ("popularity", "text", "cf", "blend", "served")
"""Rankers that are shown by the popularity of the target."""
COLUMNS = ["protocol", "scenario", "model", "metric", "value", "low", "high", "n"]
HEADLINE = "NDCG@10"
"""What comparisons are made by."""
SHOWN = {
    "retrieved": ("Hit@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10"),
    "catalogue": ("HR@10", "Recall@20", "HR@100", "NDCG@10", "NDCG@100"),
    "uniform": ("Hit@1", "HR@5", "HR@10", "NDCG@10", "MRR"),
    "popular": ("Hit@1", "HR@5", "HR@10", "NDCG@10", "MRR"),
}
"""Metrics of the text report, by protocol; `evaluation_results` has all."""
SHOWN_OF_LISTS = {
    "retrieved": ("coverage@10", "novelty@10", "popularity@10", "diversity@10", "calibration error", COST),
    "catalogue": ("coverage@10", "novelty@10", "popularity@10", "diversity@10", "AUC per user"),
    "uniform": ("AUC", "AUC per user"),
    "popular": ("AUC", "AUC per user"),
}
"""The same of whole lists (`allmrec.evaluation.list_figures`)."""
TITLES = {
    "retrieved": "own retrieved list",
    "catalogue": "whole catalogue",
    "uniform": "uniform negatives",
    "popular": "popular negatives",
}
IN_WORDS = {
    "all": "all users",
    "found": "the order alone: users whose next item was retrieved",
    "warm": "users whose next item is warm",
    "middle": "users whose next item is middle",
    "cold": "users whose next item is cold",
    "lists": "whole lists of the sampled users",
}
"""Group of users → who they are."""


def results(ranks: pd.DataFrame, items: pd.DataFrame, settings: EvaluationConfig, seed: int) -> pd.DataFrame:
    """Return one row per protocol, scenario, model and metric: value, low, high (95 % interval), n (users).

    `ranks` has protocol, model, user_id, target and target_rank (null: not among the candidates), the same
    users for every model of a protocol; `items` has item_id and num_interactions (in training). The same
    resamples serve all models. Without users, value, low and high are NaN.
    """
    classes = warm_cold(items["num_interactions"].to_numpy(), settings.tail_share)
    class_of_item = dict(zip(items["item_id"], classes, strict=True))
    rows = []
    for protocol, by_model in by_protocol(ranks):
        targets = next(iter(by_model.values()))["target"]
        target_classes = targets.map(class_of_item).fillna("cold").to_numpy(dtype=object)
        ranks_UM = np.stack([target_ranks_of(of_model) for of_model in by_model.values()], axis=1)
        for scenario in SCENARIOS:
            if scenario == "found" and protocol != "retrieved":
                continue
            users = scenario_rows(target_classes, ranks_UM[:, 0], scenario)
            ranks_uM = ranks_UM[users]
            figures = list(_figures(ranks_uM, list(by_model), settings.bootstrap_samples, seed))
            if protocol == "retrieved":
                figures.append(_recall(ranks_uM[:, 0], settings.bootstrap_samples, seed))
            rows += [(protocol, scenario, *row) for row in figures]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"n": "int64"})


def by_protocol(ranks: pd.DataFrame) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    """Yield every protocol with the rows of each of its models, sorted by user.

    What cannot score a whole catalogue is there with its order of the retrieved list.
    """
    there = set(ranks["protocol"])
    for protocol in PROTOCOLS:
        if protocol not in there:
            continue
        of_protocol = ranks[ranks["protocol"] == protocol]
        if protocol == "catalogue":
            reranked = (ranks["protocol"] == "retrieved") & ranks["model"].isin(RERANKERS)
            of_protocol = pd.concat([of_protocol, ranks[reranked]])
        yield (
            protocol,
            {
                name: of_protocol[of_protocol["model"] == name].sort_values("user_id", ignore_index=True)
                for name in RANKER_NAMES
                if name in set(of_protocol["model"])
            },
        )


def target_ranks_of(of_model: pd.DataFrame, column: str = "target_rank") -> np.ndarray:
    """Return the target's ranks, [N] float64, infinity where it is not among the candidates."""
    return of_model[column].astype("Float64").fillna(np.inf).to_numpy(dtype=np.float64)


def _figures(
    ranks_UM: np.ndarray, models: list[str], num_samples: int, seed: int
) -> Iterator[tuple[str, str, float, float, float, int]]:
    """Yield (model, metric, value, low, high, n) of ranks [U, M]."""
    columns = [(model, name) for model in models for name in metrics.PER_USER]
    values_UC = np.stack(
        [per_user(ranks_U) for ranks_U in ranks_UM.T for per_user in metrics.PER_USER.values()], axis=1
    )
    low_C, high_C = metrics.bootstrap_intervals(values_UC, num_samples, seed)
    for (model, name), values_U, low, high in zip(columns, values_UC.T, low_C, high_C, strict=True):
        yield model, name, metrics.mean(values_U), float(low), float(high), len(values_U)


def _recall(ranks_U: np.ndarray, num_samples: int, seed: int) -> tuple[str, str, float, float, float, int]:
    """Return the share of users whose target was retrieved, as a row of `_figures`."""
    found_U = np.isfinite(ranks_U).astype(np.float64)
    (low,), (high,) = metrics.bootstrap_intervals(found_U[:, None], num_samples, seed)
    return "retrieval", "recall", metrics.mean(found_U), float(low), float(high), len(found_U)


def comparisons(
    ranks: pd.DataFrame, settings: EvaluationConfig, seed: int
) -> list[tuple[str, str, str, str, Comparison]]:
    """Return (protocol, scenario, metric, ranker, comparison) of the served order against every other ranker.

    Under the protocol `retrieved` all users and those whose target is in the list are looked at.
    """
    found = []
    for protocol, by_model in by_protocol(ranks):
        if "served" not in by_model:
            continue
        served_N = target_ranks_of(by_model["served"])
        for scenario in ("all", "found") if protocol == "retrieved" else ("all",):
            users = np.isfinite(served_N) if scenario == "found" else np.ones(len(served_N), dtype=bool)
            for name, of_model in by_model.items():
                if name == "served":
                    continue
                per_user = metrics.PER_USER[HEADLINE]
                first_N, second_N = per_user(target_ranks_of(of_model)[users]), per_user(served_N[users])
                one = paired(first_N, second_N, settings.bootstrap_samples, seed)
                found.append((protocol, scenario, HEADLINE, name, one))
    return found


@dataclass(frozen=True)
class Lists:
    """The facts about the lists that a reader needs beside the figures."""

    num_candidates: int
    """Candidates of a retrieved list."""
    llm_candidates: int | None
    """Candidates of it that the LLM reads; None: all."""
    catalogue_without_seen: bool
    """Whether the items that a user had are out of the ranked catalogue."""
    num_users: int
    num_seen_before: int
    """Users who had the next item before, where `candidates.exclude_seen` leaves it out."""
    num_unavailable: int
    """Other users whose next item is unavailable at the cut-off."""


def remarks(protocol: str, group: str, lists: Lists) -> list[str]:
    """Return what a reader must know of the figures of a group of users, a sentence or two each."""
    if protocol == "catalogue" and group == "all":
        seen = "left out" if lists.catalogue_without_seen else "ranked too"
        return [
            f"Items that a user had before are {seen}; unavailable items are left out.",
            "A-LLMRec, its floor and the served order re-rank the retrieved list.",
        ]
    if protocol != "retrieved" or group not in ("all", "found"):
        return []
    found = [
        f"End to end: a next item that is not among the {lists.num_candidates} retrieved is a miss.",
        _ceiling(lists),
        "The LLM is asked about every user, however long ago the last event was.",
    ]
    read = "all" if lists.llm_candidates is None else f"the best {lists.llm_candidates} (by the blend)"
    about_llm = (
        f"A-LLMRec orders {read} of the candidates, the others follow in drawn order. "
        "Its floor is the same with those candidates in drawn order too."
    )
    return [*(found if group == "all" else []), about_llm]


def _ceiling(lists: Lists) -> str:
    """Return how many users have a next item that a list can hold, as a sentence."""
    num_hidden = lists.num_seen_before + lists.num_unavailable
    return (
        f"A list can hold the next item of {lists.num_users - num_hidden:,} of {lists.num_users:,} users: "
        f"{lists.num_seen_before:,} had it before, {lists.num_unavailable:,} want an unavailable item."
    )


def users_in_words(scenario: str) -> str:
    """Return whom a scenario is about, and under which condition."""
    condition, group = condition_and_group(scenario)
    return "; ".join(part for part in (IN_WORDS[group], condition_in_words(condition)) if part)


def place_of(protocol: str, scenario: str) -> str:
    """Return in words what a comparison is about."""
    return TITLES[protocol] + (", order alone" if scenario == "found" else "")


def in_words(metric: str, one: Comparison) -> str:
    """Return a comparison as a phrase: the difference, its interval, n, the verdict, and what 1 % takes."""
    if not one.n:
        return "no users"
    return (
        f"{metric} {one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}], n = {one.n:,}: {one.verdict}"
        f"{_needed(one.num_users_for_small)}"
    )


def _needed(num_users: float) -> str:
    """Return how many users a difference of 1 % takes, as the end of a phrase."""
    return f" (1 % takes some {num_users:,.0f} users)" if np.isfinite(num_users) else ""


def by_popularity(
    ranks: pd.DataFrame, counts: Mapping[str, int]
) -> Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
    """Yield (protocol, popularity [P], ranker → the headline metric [P]) in P bins of equally many users.

    Users are in order of their target's interactions in training, which `counts` has by item; `ranks` are
    those of `results`. Protocols without users are left out.
    """
    for protocol, by_model in by_protocol(ranks):
        targets = next(iter(by_model.values()))["target"]
        popularity_U = targets.map(counts).fillna(0).to_numpy(dtype=float)
        order = np.argsort(popularity_U, kind="stable")
        bins = [part for part in np.array_split(order, NUM_BINS) if len(part)]
        if not bins:
            continue
        lines = {}
        for model in LINES_BY_POPULARITY:
            if model in by_model:
                values_U = metrics.PER_USER[HEADLINE](target_ranks_of(by_model[model]))
                lines[model] = np.array([values_U[part].mean() for part in bins])
        yield protocol, np.array([popularity_U[part].mean() for part in bins]), lines


class Example(NamedTuple):
    """A user whose lists are shown."""

    user_id: str
    had: list[str]
    """The newest item ids of the history, oldest first."""
    came: str
    """The held-out item."""
    lists: dict[str, list[str]]
    """The first five items of the retrieved list, by ranker."""


def examples(lists: pd.DataFrame, histories: Mapping[str, Sequence[str]]) -> Iterator[Example]:
    """Yield the users of `histories` with their lists by the blend and as served, where they have any."""
    retrieved = lists[lists["protocol"] == "retrieved"]
    for user, history in histories.items():
        own = retrieved[retrieved["user_id"] == user].set_index("model")
        if not own.empty:
            by_ranker = {}
            for model in ("blend", "served"):
                order = sorted(zip(own.at[model, "ranks"], own.at[model, "candidates"], strict=True))
                by_ranker[model] = [item for _, item in order[:5]]
            yield Example(user, list(history)[-5:], own["target"].iloc[0], by_ranker)


def of_costs(figures: pd.DataFrame) -> list[tuple[str, float, float]]:
    """Return (ranker, seconds per 1,000 users, headline metric of all users) on retrieved lists."""
    rows = figures[figures["protocol"] == "retrieved"]
    groups = rows["scenario"].map(lambda scenario: condition_and_group(scenario)[1])
    cost = rows[(groups == "lists") & (rows["metric"] == COST)].set_index("model")["value"]
    quality = rows[(groups == "all") & (rows["metric"] == HEADLINE)].set_index("model")["value"]
    return [(model, float(cost[model]), float(quality[model])) for model in quality.index if model in cost]
