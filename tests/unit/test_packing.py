"""Packing: the tree of answers, the budget, and what may see what."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allmrec.llm.on_device import seen
from allmrec.llm.packing import PackedBatch, Request, group_rows, pack, pack_rows, request_rows
from allmrec.llm.prompt import USER, Prompt


def request(prompt_tokens: int, answers: list[list[int]]) -> Request:
    return Request(Prompt(list(range(100, 100 + prompt_tokens))), answers)


def allowed(batch: PackedBatch[np.ndarray]) -> np.ndarray:
    return seen(torch.from_numpy(batch.ends)).numpy()


def test_common_beginnings_are_read_once_and_last_tokens_never() -> None:
    [row] = request_rows(0, request(3, [[1, 2, 9], [1, 2, 3, 9], [1, 2, 9], [4, 9], [9]]))
    assert row.token_ids == [100, 101, 102, 1, 2, 3, 4]
    assert row.positions == [0, 1, 2, 3, 4, 5, 3]
    assert sorted(number for number, _ in row.answers) == [0, 1, 2, 3, 4]
    # The terminator is predicted after 2, 3, 4 and the prompt.
    assert sorted(row.edge_tokens) == [1, 2, 3, 4, 9, 9, 9, 9]


def test_an_answer_that_another_one_goes_on_from_is_scored_and_read() -> None:
    [row] = request_rows(0, request(1, [[5], [5, 6], [5, 6, 7]]))
    assert row.token_ids == [100, 5, 6]
    [batch] = pack([request(1, [[5], [5, 6], [5, 6, 7]])], 100)
    assert (batch.answer_edges < len(batch.edge_tokens)).sum(axis=1).tolist() == [1, 2, 3]


def test_a_token_sees_the_prompt_its_ancestors_and_itself_only() -> None:
    batch = pack_rows(
        [*request_rows(0, request(2, [[1, 2, 9], [1, 3, 9], [4, 9]])), *request_rows(1, request(1, [[7, 8]]))]
    )
    columns = batch.token_ids[0].tolist()
    assert columns == [100, 101, 1, 2, 3, 4]
    sees = [sorted(np.flatnonzero(row).tolist()) for row in allowed(batch)[0]]
    assert sees == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 5]]
    assert [np.flatnonzero(row).tolist() for row in allowed(batch)[1]] == [[0], [0, 1], [2], [3], [4], [5]]


def test_every_answer_is_scored_once_and_batches_keep_the_budget() -> None:
    random = np.random.default_rng(0)
    requests = [
        request(
            int(random.integers(1, 50)),
            [random.integers(0, 9, random.integers(1, 8)).tolist() for _ in range(25)],
        )
        for _ in range(30)
    ]
    for budget in (1, 300, 2000):
        batches = pack(requests, budget)
        found = sorted(
            (int(r), int(a))
            for batch in batches
            for r, a in zip(batch.answer_requests, batch.answer_indices, strict=True)
        )
        assert found == [(r, a) for r in range(30) for a in range(25)]
        assert all(batch.token_ids.size <= budget or len(batch.token_ids) == 1 for batch in batches)


def test_a_large_request_becomes_several_rows_of_bounded_length() -> None:
    answers = [[a, b, 9] for a in range(40) for b in range(40)]
    rows = list(request_rows(0, request(4, answers), row_tokens=100))
    assert len(rows) > 10
    assert all(row.num_tokens <= 104 for row in rows)
    assert sum(len(row.answers) for row in rows) == 1600
    assert (
        max(len(group) for group in group_rows(rows, 1000)) <= 1000 // max(row.num_tokens for row in rows) + 1
    )


def test_soft_tokens_keep_their_owner_in_every_row_of_a_request() -> None:
    prompt = Prompt([1, 0, 2, 0], [1, 3], [7, USER])
    batch = pack_rows(list(request_rows(3, Request(prompt, [[a, 9] for a in range(12)]), row_tokens=5)))
    assert len(batch.token_ids) == 3
    assert batch.soft_columns.tolist() == [3] * 3 + [1] * 3
    assert batch.soft_items.tolist() == [USER] * 3 + [7] * 3
    assert set(batch.soft_requests.tolist()) == {3}
    assert batch.soft_rows.tolist() == [0, 1, 2] * 2


TOKENS = st.integers(0, 5)
REQUESTS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.lists(TOKENS, min_size=1, max_size=6), min_size=1, max_size=12)),
    min_size=1,
    max_size=5,
)


def read_answer(batch: PackedBatch[np.ndarray], answer: int) -> list[int]:
    """Return the tokens that a packed answer is scored by, in the order of their depth."""
    edges = [edge for edge in batch.answer_edges[answer].tolist() if edge < len(batch.edge_tokens)]
    sources = batch.edge_sources[edges]
    depths = batch.positions[batch.source_rows[sources], batch.source_columns[sources]]
    assert sorted(depths.tolist()) == depths.tolist()
    return batch.edge_tokens[edges].tolist()


def seen_tokens(batch: PackedBatch[np.ndarray], row: int, column: int) -> list[int]:
    """Return the tokens that a token of a row may see, in the order of their positions."""
    columns = np.flatnonzero(allowed(batch)[row, column])
    return batch.token_ids[row, columns[np.argsort(batch.positions[row, columns], kind="stable")]].tolist()


@settings(deadline=None, max_examples=60)
@given(REQUESTS, st.sampled_from([1, 20, 60, 1000]))
def test_every_answer_is_read_as_if_it_alone_followed_its_prompt(
    sizes: list[tuple[int, list[list[int]]]], budget: int
) -> None:
    requests = [request(prompt_tokens, answers) for prompt_tokens, answers in sizes]
    scored = set()
    for batch in pack(requests, budget):
        assert batch.token_ids.size <= budget or len(batch.token_ids) == 1
        for answer in range(len(batch.answer_requests)):
            index, number = int(batch.answer_requests[answer]), int(batch.answer_indices[answer])
            expected = requests[index].answers[number]
            scored.add((index, number))
            assert read_answer(batch, answer) == expected
            for depth, edge in enumerate(batch.answer_edges[answer, : len(expected)].tolist()):
                source = int(batch.edge_sources[edge])
                row, column = int(batch.source_rows[source]), int(batch.source_columns[source])
                before = [*requests[index].prompt.token_ids, *expected[:depth]]
                assert seen_tokens(batch, row, column) == before
                assert batch.positions[row, column] == len(before) - 1
    everything = {(index, number) for index, one in enumerate(requests) for number in range(len(one.answers))}
    assert scored == everything


def test_a_long_prompt_is_read_once_where_its_answers_are_no_longer_than_it() -> None:
    answers = [[number, *range(1000, 1019), number] for number in range(25)]  # 500 tokens that are read
    [row] = request_rows(0, request(600, answers))
    assert row.num_tokens == 1100
    assert len(row.answers) == 25
    assert len(list(request_rows(0, request(100, answers)))) == 2
