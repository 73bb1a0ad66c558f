"""The k-core is the largest part of a log in which everybody has enough: by example and for any small log."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from allmrec.data.importers.kcore import k_core

Rows = list[tuple[str, str]]
SCHEMA = "user_id string, item_id string"


def plain_k_core(rows: Rows, k: int) -> Rows:
    """Drop the rows of one user or item with fewer than `k` at a time, until there is none."""
    while True:
        counts = Counter(end for user, item in rows for end in (("user", user), ("item", item)))
        few = next((end for end, count in counts.items() if count < k), None)
        if few is None:
            return sorted(rows)
        rows = [(user, item) for user, item in rows if few not in (("user", user), ("item", item))]


def test_the_k_core_drops_until_nothing_falls_below(spark: SparkSession) -> None:
    core = [(user, item) for user in ("u", "v") for item in ("a", "b")]
    # w leans on c, c on x, x on nothing: a chain that falls one after the other.
    chain = [("w", "a"), ("w", "c"), ("x", "c")]
    frame = spark.createDataFrame(core + chain, SCHEMA)
    assert sorted(map(tuple, k_core(frame, 2).collect())) == sorted(core)
    assert k_core(frame, 9).isEmpty()
    assert k_core(frame, 0).count() == len(core + chain)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    # Few users and items, so that most examples have a core; equal rows count as often as they are there.
    rows=st.lists(st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcd")), min_size=1, max_size=20),
    k=st.integers(2, 4),
)
def test_the_k_core_is_that_of_plain_python(spark: SparkSession, rows: Rows, k: int) -> None:
    core = k_core(spark.createDataFrame(rows, SCHEMA), k)
    assert sorted(map(tuple, core.collect())) == plain_k_core(rows, k)
