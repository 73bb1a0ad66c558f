"""The choice of e-mails' slots, and the reasons of all items, in Spark's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.config import PublishConfig
from allmrec.night.item_table import ItemTable, item_table
from allmrec.ranking.slot_filling import EMPTY, Filled, Pools, fill, numbered_titles, title_pairs
from allmrec.ranking.slot_reasons import NOTHING, Likeness, likeness, reasons

CHUNK_USERS = 256
"""Users whose slots are filled at once: 20 items and a history of 50 each take some 50 MB."""
REASON = ("because_item_id", "because_title", "reason")
CHOICE = T.StructType(
    [
        T.StructField("places", T.ArrayType(T.IntegerType())),
        T.StructField("over_cap", T.BooleanType()),
        T.StructField("near_duplicates", T.BooleanType()),
        T.StructField("shown", T.IntegerType()),
        T.StructField("bought", T.ArrayType(T.BooleanType())),
        *(T.StructField(name, T.ArrayType(T.StringType())) for name in REASON),
    ]
)
"""What is chosen for a user: the attributes of `Filled`, places without empty ones.

`Pools.bought` and `REASON` are arrays over the user's items."""


def chooser(bundle_id: str, settings: PublishConfig) -> Callable[..., Column]:
    """Return the function of columns that chooses each user's slots, of type `CHOICE`.

    Its arguments are arrays over a user's items by rank: id, title, score, `Pools.shown`, whether the list is
    a popular one, whether the item is of a category that was bought lately; then arrays over the user's
    history, oldest first: item id, whether it was bought lately; then for each column of `publish.max_per` an
    array of the items' values as texts. A score counts at most as much as those before it, because the places
    decide where a re-ranker chose them. The bundle was shipped before.
    """

    @F.pandas_udf(CHOICE)  # type: ignore[call-overload]
    def choose(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        table = item_table(bundle_id)
        for columns in batches:
            starts = range(0, len(columns[0]), CHUNK_USERS)
            chunks = ([column.iloc[start : start + CHUNK_USERS] for column in columns] for start in starts)
            found = [chosen(table, chunk, settings) for chunk in chunks]
            yield pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=CHOICE.names)

    return choose


def chosen(table: ItemTable, columns: Sequence[pd.Series], settings: PublishConfig) -> pd.DataFrame:
    """Return rows of `CHOICE` of some users; `columns` are the arguments of the function of `chooser`."""
    ids, titles, scores, shown, is_popular, is_bought_kind, history, is_recent, *groups = columns
    sizes_B = ids.map(len).to_numpy(dtype=np.int64)
    lengths_B = history.map(len).to_numpy(dtype=np.int64)
    numbers_N, forms = numbered_titles(list(_flat(titles)))
    vectors_BCS = _padded(table.text_vectors(_flat(ids)), sizes_B)
    likenesses = likenesses_of(table, ids, history, vectors_BCS)
    recent_BL = _padded(_flat(is_recent).astype(bool), lengths_B)
    is_near_BCL = (likenesses.text > settings.duplicate_above) | likenesses.same
    bought_BC = _padded(_flat(is_bought_kind).astype(bool), sizes_B)
    bought_BC = bought_BC | (is_near_BCL & recent_BL[:, None, :]).any(axis=2)
    pools = Pools(
        sizes=sizes_B,
        relevance=np.minimum.accumulate(_padded(_flat(scores).astype(np.float64), sizes_B), axis=1),
        vectors=vectors_BCS,
        titles=_padded(numbers_N, sizes_B),
        pairs=_padded(title_pairs(forms)[numbers_N], sizes_B),
        shown=_padded(_flat(shown).astype(np.int64), sizes_B),
        bought=bought_BC,
        groups={
            name: _padded(_numbered(_flat(values)), sizes_B)
            for name, values in zip(settings.max_per, groups, strict=True)
        },
    )
    filled = fill(pools, settings.email_slots, settings.diversity, settings.duplicate_above, settings.max_per)
    found = reasons_of(table, ids, is_popular, history, likenesses)
    return as_rows(filled).assign(bought=_as_lists(bought_BC, sizes_B), **found)


def as_rows(filled: Filled) -> pd.DataFrame:
    """Return the slots as columns of `CHOICE`."""
    places = [own[own != EMPTY] for own in filled.places.astype(np.int32)]
    return pd.DataFrame(
        {
            "places": pd.Series(places, dtype=object),
            "over_cap": filled.over_cap,
            "near_duplicates": filled.near_duplicates,
            "shown": filled.shown.astype(np.int32),
        }
    )


def likenesses_of(table: ItemTable, ids: pd.Series, history: pd.Series, vectors_BCS: np.ndarray) -> Likeness:
    """Return the likenesses of items to history; `vectors_BCS` are the texts' vectors of the items."""
    sizes_B = ids.map(len).to_numpy(dtype=np.int64)
    lengths_B = history.map(len).to_numpy(dtype=np.int64)
    own_N = _flat(ids).astype(object)
    known_M = _flat(history).astype(object)
    ids_BC = _padded(own_N, sizes_B)
    history_BL = _padded(known_M, lengths_B)
    is_item_BL = np.arange(history_BL.shape[1]) < lengths_B[:, None]
    return Likeness(
        text=likeness(vectors_BCS, _padded(table.text_vectors(known_M), lengths_B)),
        cf=likeness(_padded(table.cf_vectors(own_N), sizes_B), _padded(table.cf_vectors(known_M), lengths_B)),
        same=(ids_BC[:, :, None] == history_BL[:, None, :]) & is_item_BL[:, None, :],
    )


def reasons_of(
    table: ItemTable, ids: pd.Series, is_popular: pd.Series, history: pd.Series, likenesses: Likeness
) -> dict[str, pd.Series]:
    """Return the columns `REASON` of `CHOICE`."""
    sizes_B = ids.map(len).to_numpy(dtype=np.int64)
    lengths_B = history.map(len).to_numpy(dtype=np.int64)
    known_M = _flat(history).astype(object)
    of_items = reasons(
        likenesses,
        _padded(_flat(is_popular).astype(bool), sizes_B),
        _padded(table.is_new(_flat(ids)), sizes_B),
    )
    columns_BC = (
        _taken(_padded(known_M, lengths_B), of_items.places),
        _taken(_padded(table.titles(known_M), lengths_B), of_items.places),
        of_items.texts,
    )
    return {name: _as_lists(values_BC, sizes_B) for name, values_BC in zip(REASON, columns_BC, strict=True)}


def _as_lists(values_BC: np.ndarray, sizes_B: np.ndarray) -> pd.Series:
    """Return the values of every user's items as lists, [B]."""
    lists = [row[:size].tolist() for row, size in zip(values_BC, sizes_B, strict=True)]
    return pd.Series(lists, dtype=object)


def _taken(values_BL: np.ndarray, places_BC: np.ndarray) -> np.ndarray:
    """Return the values at places, [B, C] object; None at `NOTHING`."""
    values_BK = np.concatenate([values_BL, np.full((len(values_BL), 1), None)], axis=1)
    return np.take_along_axis(
        values_BK, np.where(places_BC == NOTHING, values_BL.shape[1], places_BC), axis=1
    )


def _flat(lists: pd.Series) -> np.ndarray:
    """Return the elements of all lists, [N]."""
    return np.concatenate(list(lists)) if len(lists) else np.empty(0)


def _padded(values: np.ndarray, sizes_B: np.ndarray) -> np.ndarray:
    """Return the values [N, …] of lists of these sizes as [B, C, …], zeros beyond a list's end."""
    width = int(sizes_B.max(initial=0))
    padded = np.zeros((len(sizes_B), width, *values.shape[1:]), dtype=values.dtype)
    padded[np.arange(width) < sizes_B[:, None]] = values
    return padded


def _numbered(values_N: np.ndarray) -> np.ndarray:
    """Return a number for every value, [N] int64; each missing one has its own."""
    numbers_N, _ = pd.factorize(values_N)
    return np.where(numbers_N < 0, len(numbers_N) + np.arange(len(numbers_N)), numbers_N)
