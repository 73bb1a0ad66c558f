"""Rows of multi-item scoring: a prompt with a tree of answers. Many rows a pass.

Answers with a common beginning share its tokens: the answers of a request form a tree (a trie) below the
prompt's last token. Every token of the tree sees the prompt, its ancestors and itself, and its position is
its depth. Each answer is therefore read exactly as if it alone followed the prompt. The last token of an
answer is only predicted, so that it is no input.

The tree's tokens are in preorder: a token's descendants are the columns from its own to the end of its
subtree. One number a token therefore decides which tokens see it, and the mask [T, T] is made from it on the
device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from allmrec.llm.tokens import USER, Prompt

Array = TypeVar("Array")
"""np.ndarray in a packed batch, Tensor on the LLM's device (`on_device`)."""

ROW_TOKENS = 384
"""Maximal number of tree tokens per row.

Longer rows pay for attention between answers that cannot see each other, shorter rows repeat the prompt.
"""
ONLY_PREDICTED = -1
"""The column of a token that is predicted but not an input of the row."""


@dataclass(frozen=True)
class Request:
    """One prompt and the answers to score after it.

    Answers are not empty and may repeat.
    """

    prompt: Prompt
    answers: list[list[int]]

    @property
    def num_positions(self) -> int:
        """Positions that the LLM needs for prompt and longest answer.

        The answer's last token is only predicted and needs none.
        """
        return len(self.prompt.token_ids) + max(map(len, self.answers)) - 1


@dataclass
class Row:
    """A prompt with the tree of some of its answers.

    A column is a token's index in the row. An edge leads from the column that predicts a token to that token.
    """

    request: int
    """Index of the request."""
    prompt: Prompt
    token_ids: list[int] = field(default_factory=list)
    """Tokens of the prompt, then of the tree."""
    parents: list[int] = field(default_factory=list)
    """Per token of the tree: its parent's column."""
    positions: list[int] = field(default_factory=list)
    """Per token: its depth."""
    edge_columns: list[int] = field(default_factory=list)
    """Per edge: the column that predicts."""
    edge_tokens: list[int] = field(default_factory=list)
    """Per edge: the predicted token."""
    answers: list[tuple[int, list[int]]] = field(default_factory=list)
    """(index among the request's answers, its edges), one per answer."""

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt.token_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens of the row: the prompt's and the tree's."""
        return len(self.token_ids)


@dataclass(frozen=True)
class PackedBatch(Generic[Array]):
    """Arrays (int64) of a forward pass over B rows, T tokens.

    The batch has K soft tokens, E edges from M predicting columns, and A answers of at most P edges.

    | field | shape |
    |---|---|
    | token_ids, positions | [B, T], 0 in padding and at soft tokens |
    | ends | [B, T]: the column after the last one that sees this one (`seen`) |
    | soft_rows, soft_columns | [K]: places of soft tokens, the users' first |
    | soft_items | [K]: their owners (item_idx or `USER`) |
    | soft_requests | [K]: the request of each soft token |
    | source_rows, source_columns | [M]: hidden states that predict a token |
    | edge_sources, edge_tokens | [E]: the predicting one of M and the predicted token, sorted by source |
    | answer_edges | [A, P]: edges of an answer, E in padding |
    | answer_requests, answer_indices | [A]: the answer's request and its index there |
    """

    token_ids: Array
    positions: Array
    ends: Array
    soft_rows: Array
    soft_columns: Array
    soft_items: Array
    soft_requests: Array
    source_rows: Array
    source_columns: Array
    edge_sources: Array
    edge_tokens: Array
    answer_edges: Array
    answer_requests: Array
    answer_indices: Array


def pack(requests: Sequence[Request], token_budget: int) -> list[PackedBatch[np.ndarray]]:
    """Return the passes that score all answers within `token_budget` tokens."""
    rows = [row for index, request in enumerate(requests) for row in request_rows(index, request)]
    return [pack_rows(group) for group in group_rows(rows, token_budget)]


def request_rows(index: int, request: Request, row_tokens: int | None = None) -> Iterator[Row]:
    """Yield the rows of a request, of at most `row_tokens` tree tokens.

    `index` is the request's. The default is ROW_TOKENS, or the length of a longer prompt, because reading a
    long prompt twice costs more than the padding of a long row. Answers are taken in the order of their
    tokens, so that common beginnings are neighbours.
    """
    row_tokens = row_tokens or max(ROW_TOKENS, len(request.prompt.token_ids))
    row = _prompt_row(index, request.prompt)
    path: list[tuple[int, int]] = []
    previous: list[int] = []
    for number in sorted(range(len(request.answers)), key=lambda number: request.answers[number]):
        answer = request.answers[number]
        if row.answers and row.num_tokens - row.num_prompt_tokens + len(answer) - 1 > row_tokens:
            yield row
            row = _prompt_row(index, request.prompt)
            path = []
            previous = []
        del path[_num_shared(answer, previous) :]
        _extend(row, path, answer)
        row.answers.append((number, [edge for edge, _ in path]))
        previous = answer
    yield row


def group_rows(rows: Sequence[Row], token_budget: int) -> list[list[Row]]:
    """Group rows of similar length, with rows × longest row within `token_budget`.

    A row that is longer than the budget is a group of its own.
    """
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (row.num_tokens, row.request)):
        if groups and row.num_tokens * (len(groups[-1]) + 1) <= token_budget:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def pack_rows(rows: Sequence[Row]) -> PackedBatch[np.ndarray]:
    """Return the arrays of one forward pass over `rows`."""
    num_tokens = max(row.num_tokens for row in rows)
    edges = [
        (index, column, token)
        for index, row in enumerate(rows)
        for column, token in zip(row.edge_columns, row.edge_tokens, strict=True)
    ]
    edge_rows, edge_columns, edge_tokens = np.array(edges, dtype=np.int64).T
    sources, edge_sources = np.unique(edge_rows * num_tokens + edge_columns, return_inverse=True)
    by_source = np.argsort(edge_sources, kind="stable")
    token_ids, positions, ends = _token_arrays(rows, num_tokens)
    soft_rows, soft_columns, soft_items, soft_requests = _soft_token_arrays(rows)
    return PackedBatch(
        token_ids=token_ids,
        positions=positions,
        ends=ends,
        soft_rows=soft_rows,
        soft_columns=soft_columns,
        soft_items=soft_items,
        soft_requests=soft_requests,
        source_rows=sources // num_tokens,
        source_columns=sources % num_tokens,
        edge_sources=edge_sources[by_source],
        edge_tokens=edge_tokens[by_source],
        answer_edges=_answer_edges(rows, by_source),
        answer_requests=np.array([row.request for row in rows for _ in row.answers], dtype=np.int64),
        answer_indices=np.array([number for row in rows for number, _ in row.answers], dtype=np.int64),
    )


def _prompt_row(index: int, prompt: Prompt) -> Row:
    """Return a row with the prompt alone."""
    return Row(index, prompt, token_ids=list(prompt.token_ids), positions=list(range(len(prompt.token_ids))))


def _num_shared(answer: Sequence[int], previous: Sequence[int]) -> int:
    """Return how many first tokens two answers have in common."""
    shared = 0
    while shared < min(len(answer), len(previous)) and answer[shared] == previous[shared]:
        shared += 1
    return shared


def _extend(row: Row, path: list[tuple[int, int]], answer: list[int]) -> None:
    """Add the rest of `answer`, after `path`, to the row.

    `path` has (edge, column or ONLY_PREDICTED) of the answer's tokens that are in the tree already.
    """
    for depth in range(len(path), len(answer)):
        column = row.num_prompt_tokens - 1
        if depth:
            edge, column = path[-1]
            if column == ONLY_PREDICTED:  # a token that another one follows becomes an input
                column = _add_column(row, path, answer[depth - 1])
                path[-1] = (edge, column)
        row.edge_columns.append(column)
        row.edge_tokens.append(answer[depth])
        path.append((len(row.edge_columns) - 1, ONLY_PREDICTED))


def _add_column(row: Row, path: list[tuple[int, int]], token: int) -> int:
    """Make the last token of `path` an input. Return its column."""
    row.parents.append(path[-2][1] if len(path) > 1 else row.num_prompt_tokens - 1)
    row.positions.append(row.num_prompt_tokens + len(path) - 1)
    row.token_ids.append(token)
    return row.num_tokens - 1


def _token_arrays(rows: Sequence[Row], num_tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return token_ids, positions and ends of a `PackedBatch`; padding sees only itself."""
    token_ids = np.zeros((len(rows), num_tokens), dtype=np.int64)
    positions = np.zeros((len(rows), num_tokens), dtype=np.int64)
    ends = np.tile(np.arange(1, num_tokens + 1, dtype=np.int64), (len(rows), 1))
    for index, row in enumerate(rows):
        token_ids[index, : row.num_tokens] = row.token_ids
        positions[index, : row.num_tokens] = row.positions
        ends[index, : row.num_tokens] = _ends(row)
    return token_ids, positions, ends


def _ends(row: Row) -> list[int]:
    """Return for each token the column after its last descendant. All tokens see the prompt."""
    ends = list(range(1, row.num_tokens + 1))
    for column in range(row.num_tokens - 1, row.num_prompt_tokens - 1, -1):
        parent = row.parents[column - row.num_prompt_tokens]
        ends[parent] = max(ends[parent], ends[column])
    return [row.num_tokens] * row.num_prompt_tokens + ends[row.num_prompt_tokens :]


def _soft_token_arrays(rows: Sequence[Row]) -> np.ndarray:
    """Return soft_rows, soft_columns, soft_items, soft_requests of a batch: [4, K] int64."""
    soft = [
        (index, column, item, row.request)
        for index, row in enumerate(rows)
        for column, item in zip(row.prompt.soft_positions, row.prompt.soft_items, strict=True)
    ]
    users_first = sorted(soft, key=lambda token: token[2] != USER)
    return np.array(users_first, dtype=np.int64).reshape(-1, 4).T


def _answer_edges(rows: Sequence[Row], by_source: np.ndarray) -> np.ndarray:
    """Return answer_edges [A, P] int64 of a `PackedBatch`.

    `by_source` [E] int64 sorts the edges of all rows, one row after another, by source.
    """
    num_edges = len(by_source)
    new_index = np.empty_like(by_source)
    new_index[by_source] = np.arange(num_edges)
    first_edges = np.cumsum([0, *(len(row.edge_columns) for row in rows)])[:-1]
    answers = [
        new_index[first + np.asarray(edges)]
        for row, first in zip(rows, first_edges, strict=True)
        for _, edges in row.answers
    ]
    answer_edges = np.full((len(answers), max(map(len, answers))), num_edges, dtype=np.int64)
    for index, edges in enumerate(answers):
        answer_edges[index, : len(edges)] = edges
    return answer_edges
