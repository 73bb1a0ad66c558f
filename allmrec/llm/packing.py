"""Rows of multi-item scoring: one prompt followed by a tree of answers, many rows a forward pass within a token budget.

Answers with a common beginning share its tokens: the answers of a request form a tree (a trie) below the prompt's last token. Every tree token
sees the prompt, its ancestors and itself, and its position is its depth, so each answer is read exactly as if it alone followed the prompt. A
token that only has to be predicted (the last one of an answer) is never an input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from allmrec.llm.prompt import USER, Prompt

ROW_TOKENS = 384
"""Most tree tokens a row: longer rows pay for attention between answers that cannot see each other, shorter ones repeat the prompt."""


@dataclass(frozen=True)
class Request:
    """One prompt and the answers to score after it. Answers are not empty; the same answer may occur several times."""

    prompt: Prompt
    answers: list[list[int]]

    @property
    def num_positions(self) -> int:
        """Positions the LLM needs: the prompt and the longest answer without its last token."""
        return len(self.prompt.token_ids) + max(map(len, self.answers)) - 1


@dataclass
class Row:
    """A prompt with (a part of) its answers' tree. `columns` beyond the prompt have a parent column; an edge is (column that predicts, token)."""

    request: int
    prompt: Prompt
    token_ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    edge_columns: list[int] = field(default_factory=list)
    edge_tokens: list[int] = field(default_factory=list)
    answers: list[tuple[int, list[int]]] = field(default_factory=list)
    """(index among the request's answers, its edges)."""

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt.token_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens of the row: the prompt's and the tree's."""
        return len(self.token_ids)


@dataclass(frozen=True)
class PackedBatch:
    """Arrays of one forward pass: B rows padded to T tokens, S answers with at most L edges, E edges in M predicting columns.

    | field | shape |
    |---|---|
    | token_ids, positions | [B, T] int64, 0 in padding and at soft tokens |
    | allowed | [B, T, T] bool: may a row of the mask see a column (padding sees itself only) |
    | soft_rows, soft_columns, soft_items | [K] int64: where soft tokens go and whose they are (item_idx, `USER`) |
    | soft_requests | [K] int64: the request of each soft token |
    | source_rows, source_columns | [M] int64: hidden states that predict something |
    | edge_sources, edge_tokens | [E] int64: which of the M predicts which token, sorted by source |
    | answer_edges | [S, L] int64: edges of an answer, E where there is none |
    | answer_requests, answer_indices | [S] int64: whose answer it is |
    """

    token_ids: np.ndarray
    positions: np.ndarray
    allowed: np.ndarray
    soft_rows: np.ndarray
    soft_columns: np.ndarray
    soft_items: np.ndarray
    soft_requests: np.ndarray
    source_rows: np.ndarray
    source_columns: np.ndarray
    edge_sources: np.ndarray
    edge_tokens: np.ndarray
    answer_edges: np.ndarray
    answer_requests: np.ndarray
    answer_indices: np.ndarray


def rows_of(index: int, request: Request, row_tokens: int = ROW_TOKENS) -> Iterator[Row]:
    """Yield the rows of a request: its answers in the order of their tokens, so that common beginnings meet, cut at `row_tokens` tree tokens."""
    row = _empty_row(index, request.prompt)
    path: list[tuple[int, int]] = []
    previous: list[int] = []
    for number in sorted(range(len(request.answers)), key=lambda number: request.answers[number]):
        answer = request.answers[number]
        if row.answers and row.num_tokens - row.num_prompt_tokens + len(answer) - 1 > row_tokens:
            yield row
            row, path, previous = _empty_row(index, request.prompt), [], []
        shared = 0
        while shared < min(len(answer), len(previous)) and answer[shared] == previous[shared]:
            shared += 1
        del path[shared:]
        _extend(row, path, answer)
        row.answers.append((number, [edge for edge, _ in path]))
        previous = answer
    yield row


def groups(rows: Sequence[Row], token_budget: int) -> list[list[Row]]:
    """Group rows of like length so that rows × longest row stays within `token_budget` (a longer row goes alone)."""
    grouped: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (row.num_tokens, row.request)):
        if grouped and row.num_tokens * (len(grouped[-1]) + 1) <= token_budget:
            grouped[-1].append(row)
        else:
            grouped.append([row])
    return grouped


def pack(requests: Sequence[Request], token_budget: int) -> list[PackedBatch]:
    """Return the forward passes that score every answer of every request."""
    rows = [row for index, request in enumerate(requests) for row in rows_of(index, request)]
    return [packed(group) for group in groups(rows, token_budget)]


def packed(rows: Sequence[Row]) -> PackedBatch:
    """Return the arrays of one forward pass over `rows`."""
    longest = max(row.num_tokens for row in rows)
    token_ids = np.zeros((len(rows), longest), dtype=np.int64)
    positions = np.zeros((len(rows), longest), dtype=np.int64)
    allowed = np.zeros((len(rows), longest, longest), dtype=bool)
    allowed[:, np.arange(longest), np.arange(longest)] = True
    for place, row in enumerate(rows):
        token_ids[place, : row.num_tokens] = row.token_ids
        positions[place, : row.num_tokens] = row.positions
        _allow(allowed[place], row)
    soft = [
        (place, column, item, row.request)
        for place, row in enumerate(rows)
        for column, item in _soft_tokens(row)
    ]
    soft_rows, soft_columns, soft_items, soft_requests = np.array(soft, dtype=np.int64).reshape(-1, 4).T
    edges = [
        (place, column, token)
        for place, row in enumerate(rows)
        for column, token in zip(row.edge_columns, row.edge_tokens, strict=True)
    ]
    edge_rows, edge_columns, edge_tokens = np.array(edges, dtype=np.int64).T
    keys, edge_sources = np.unique(edge_rows * longest + edge_columns, return_inverse=True)
    order = np.argsort(edge_sources, kind="stable")
    renumbered = np.empty_like(order)
    renumbered[order] = np.arange(len(order))
    answers = [
        (row.request, number, first, own)
        for row, first in zip(rows, _first_edges(rows), strict=True)
        for number, own in row.answers
    ]
    answer_edges = np.full((len(answers), max(len(own) for *_, own in answers)), len(order), dtype=np.int64)
    for place, (_, _, first, own) in enumerate(answers):
        answer_edges[place, : len(own)] = renumbered[first + np.asarray(own)]
    return PackedBatch(
        token_ids, positions, allowed, soft_rows, soft_columns, soft_items, soft_requests, keys // longest, keys % longest,
        edge_sources[order], edge_tokens[order], answer_edges,
        np.array([answer[0] for answer in answers], dtype=np.int64), np.array([answer[1] for answer in answers], dtype=np.int64),
    )  # fmt: skip


def _empty_row(index: int, prompt: Prompt) -> Row:
    return Row(index, prompt, token_ids=list(prompt.token_ids), positions=list(range(len(prompt.token_ids))))


def _extend(row: Row, path: list[tuple[int, int]], answer: list[int]) -> None:
    """Walk on from `path`, the (edge, column or −1) of the tokens already in the tree, to the end of `answer`."""
    for depth in range(len(path), len(answer)):
        column = row.num_prompt_tokens - 1
        if depth:
            edge, column = path[-1]
            if column < 0:  # so far it was only predicted; now something follows it
                column = _add_column(row, path, answer[depth - 1])
                path[-1] = (edge, column)
        row.edge_columns.append(column)
        row.edge_tokens.append(answer[depth])
        path.append((len(row.edge_columns) - 1, -1))


def _add_column(row: Row, path: list[tuple[int, int]], token: int) -> int:
    row.parents.append(path[-2][1] if len(path) > 1 else row.num_prompt_tokens - 1)
    row.positions.append(row.num_prompt_tokens + len(path) - 1)
    row.token_ids.append(token)
    return row.num_tokens - 1


def _allow(allowed_TT: np.ndarray, row: Row) -> None:
    prompt = row.num_prompt_tokens
    allowed_TT[:prompt, :prompt] = np.tri(prompt, dtype=bool)
    for column, parent in enumerate(row.parents, start=prompt):
        allowed_TT[column, : parent + 1] = allowed_TT[parent, : parent + 1]


def _soft_tokens(row: Row) -> Iterator[tuple[int, int]]:
    return zip(row.prompt.soft_positions, row.prompt.soft_items, strict=True)


def _first_edges(rows: Sequence[Row]) -> list[int]:
    return np.cumsum([0, *(len(row.edge_columns) for row in rows[:-1])]).tolist()


__all__ = ["ROW_TOKENS", "USER", "PackedBatch", "Request", "Row", "groups", "pack", "packed", "rows_of"]
