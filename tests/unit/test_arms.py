"""Arms of an experiment: their shares, their stability, and the settings that are refused."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.stats import chisquare

from allmrec.config import load
from allmrec.errors import ConfigError
from allmrec.ranking.arms import arms_of

USERS = [f"user-{number:06d}" for number in range(100_000)]
SHARES = {"control": 0.1, "without_llm": 0.45, "served": 0.45}


def moves(before: dict[str, float], after: dict[str, float]) -> Counter[tuple[str, str]]:
    """How many of 20,000 users go from one arm to another."""
    users = USERS[:20_000]
    pairs = zip(arms_of(users, before, 3), arms_of(users, after, 3), strict=True)
    return Counter((one, other) for one, other in pairs if one != other)


def test_arms_of_100_000_users_have_their_shares_by_chi_square() -> None:
    for seed in (0, 1):
        counts = Counter(arms_of(USERS, SHARES, seed))
        expected = [share * len(USERS) for share in SHARES.values()]
        assert chisquare([counts[name] for name in SHARES], expected).pvalue > 0.001


def test_a_seed_draws_users_anew_and_independently_of_another() -> None:
    users = USERS[:20_000]
    pairs = Counter(zip(arms_of(users, SHARES, 0), arms_of(users, SHARES, 1), strict=True))
    expected = {(a, b): SHARES[a] * SHARES[b] * len(users) for a in SHARES for b in SHARES}
    assert chisquare([pairs[pair] for pair in expected], list(expected.values())).pvalue > 0.001


def test_the_arm_of_a_user_depends_on_no_other_user_and_no_order() -> None:
    users = USERS[:500]
    together = list(arms_of(users, SHARES, 0))
    assert together == [arms_of([user], SHARES, 0)[0] for user in users]
    turned = dict(reversed(SHARES.items()))
    assert together == list(arms_of(users, turned, 0))
    assert list(arms_of([], SHARES, 0)) == []


def test_arms_are_the_same_on_every_machine_and_night() -> None:
    assert list(arms_of(["a", "b", "c", "ü", "10"], SHARES, 0)) == [
        "without_llm",
        "served",
        "served",
        "control",
        "without_llm",
    ]


def test_a_growing_arm_takes_no_more_users_than_its_growth_and_the_others_exchange_none() -> None:
    found = moves(SHARES, {"control": 0.2, "without_llm": 0.4, "served": 0.4})
    assert {other for _, other in found} == {"control"}
    assert found.total() == pytest.approx(2_000, rel=0.1)


def test_an_arm_that_others_join_keeps_its_users() -> None:
    found = moves({"served": 1.0}, {"served": 0.5, "cf": 0.5})
    assert set(found) == {("served", "cf")}
    assert found.total() == pytest.approx(10_000, rel=0.05)


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        ("{control: 0.1, served: 0.8}", r"publish\.arms: shares of 0\.9 together, expected 1"),
        ("{control: 0.1, llm: 0.9}", r"publish\.arms\.llm: unknown arm, expected some of control, served"),
        ("{control: 1.1}", r"publish\.arms\.control: 1\.1, expected a number from 0 to 1"),
    ],
)
def test_unknown_arms_and_shares_that_are_not_all_users_are_refused(arms: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load([], [f"publish.arms={arms}"])


def test_three_shares_may_sum_to_one_but_for_rounding() -> None:
    arms = load([], ["publish.arms={control: 0.1, without_llm: 0.45, served: 0.45}"]).publish.arms
    assert arms == SHARES
