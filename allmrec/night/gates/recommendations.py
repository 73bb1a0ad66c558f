"""The rules on the lists of a night, checked before `recommendations` is written."""

from __future__ import annotations

from pyspark.sql import functions as F

from allmrec.night.gates.registry import Measured, rule, share
from allmrec.night.gates.scored_night import ScoredNight

FAILURES = ("prompt_too_long", "out_of_memory", "non_finite_score", "no_candidate")
"""Fallback reasons that count as failures of the LLM. Deadlines and users without history do not."""


@rule("max_lost_users", advice="run the step again with --force", guards="recommendations")
def lost_users(night: ScoredNight) -> Measured:
    """Number of users with candidates and no list, or with a list and no place in the night."""
    return Measured(night.lists["lost"], "users lost, or there twice")


@rule(
    "max_short_share",
    advice="look at how many items are available, and at candidates.num_candidates",
    guards="recommendations",
)
def short_lists(night: ScoredNight) -> Measured:
    """Share of the lists with fewer than `num_slots` items."""
    short = night.lists["short"]
    num_lists = night.lists["num_lists"]
    words = f"{short:,} of {num_lists:,} users have fewer than {night.num_slots} items"
    return Measured(share(short, num_lists), words)


@rule(
    "max_disordered_lists",
    advice="look at the scores; retrain where the bundle gives NaN",
    guards="recommendations",
)
def disordered_lists(night: ScoredNight) -> Measured:
    """Number of lists with a score that is NaN, a gap in the ranks, or a score that rises with the rank.

    A score may rise where re-rankers placed the items: there `served_places` holds the order.
    """
    return Measured(night.lists["wrong"], "lists that are not in order")


@rule(
    "max_forbidden_items",
    advice="run the night again with --force, so that candidates are retrieved anew",
    guards="recommendations",
)
def forbidden_items(night: ScoredNight) -> Measured:
    """Number of recommendations of unavailable or seen items."""
    pairs = night.rows.select("user_id", "item_id")
    forbidden = pairs.join(night.available, "item_id", "left_anti").count()
    if night.seen is not None:
        both = pairs.join(night.seen, "user_id", "inner")
        forbidden += both.where(F.array_contains("seen_item_ids", F.col("item_id"))).count()
    return Measured(forbidden, "recommendations of unavailable or seen items")


@rule(
    "max_unservable_share",
    advice="look at items.available and at what users have seen",
    guards="recommendations",
)
def unservable_users(night: ScoredNight) -> Measured:
    """Share of the night's users without any candidate."""
    unservable = night.counts["unservable"]
    num_users = night.counts["users_in"]
    return Measured(share(unservable, num_users), f"{unservable:,} of {num_users:,} users are unservable")


@rule(
    "max_fallback_share",
    advice="look at the fallback_reason of the users in question, and at the LLM's memory",
    guards="recommendations",
)
def failures_of_llm(night: ScoredNight) -> Measured:
    """Share of the users given to the LLM whose list it could not order."""
    failed = sum(night.counts.get(f"fallback_{reason}", 0) for reason in FAILURES)
    asked = night.counts.get("scored_llm", 0) + failed
    return Measured(share(failed, asked), f"the LLM failed for {failed:,} of {asked:,} users")


@rule(
    "max_rejected_share",
    advice="look at rejected_rows, by reason: log and catalogue may not belong together",
    guards="recommendations",
)
def rejected_rows(night: ScoredNight) -> Measured:
    """Share of the rows of log and catalogue that were rejected."""
    rejected = night.counts_of_sequences["rejected_rows"]
    num_read = night.counts_of_sequences["good_rows"] + rejected
    words = f"{rejected:,} of {num_read:,} rows of log and catalogue were rejected"
    return Measured(share(rejected, num_read), words)


@rule("max_users_change", advice="look at whether the log is whole", guards="recommendations")
def users_change(night: ScoredNight) -> Measured | None:
    """Change of the number of served users, as a share; None without a published night."""
    if night.last_shape is None:
        return None
    users = night.shape["users"]
    before = night.last_shape["users"]
    return Measured(abs(users / before - 1), f"{users:,.0f} users after {before:,.0f}")


@rule("max_coverage_drop", advice="look at items.available and at the bundle", guards="recommendations")
def coverage_drop(night: ScoredNight) -> Measured | None:
    """Drop of the number of distinct items, as a share; None without a published night."""
    if night.last_shape is None:
        return None
    coverage = night.shape["coverage"]
    before = night.last_shape["coverage"]
    words = f"{coverage:,.0f} different items after {before:,.0f}"
    return Measured(max(0.0, 1 - share(coverage, before)), words)


@rule(
    "max_top1_rise",
    advice="look at the bundle: it may have been trained on too little",
    guards="recommendations",
)
def top1_rise(night: ScoredNight) -> Measured | None:
    """Rise of the share of the most frequent first item; None without a published night."""
    if night.last_shape is None:
        return None
    top1_share = night.shape["top1_share"]
    before = night.last_shape["top1_share"]
    words = f"the most frequent first item has {top1_share:.1%} of the users after {before:.1%}"
    return Measured(max(0.0, top1_share - before), words)
