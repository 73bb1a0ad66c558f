"""The choice of e-mails' slots, and the reasons of all items, in Spark's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.config import PublishConfig
from allmrec.night.item_table import ItemTable, item_table
from allmrec.night.user_arrays import as_array, as_lists, as_numbers, flat, lengths, padded
from allmrec.ranking.slot_filling import Filled, Pools, fill, numbered_titles, title_pairs
from allmrec.ranking.slot_reasons import NOTHING, Likeness, likeness, reasons
from allmrec.ranking.slot_rules import EMPTY, ShopRules

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


def chooser(bundle_id: str, settings: PublishConfig, floors: Mapping[str, int]) -> Callable[..., Column]:
    """Return the function of columns that chooses each user's slots, of type `CHOICE`.

    Its arguments are arrays over a user's items by rank: id, title, score, `Pools.shown`, whether the list is
    a popular one, whether the item is of a category that was bought lately, the slot of a pinned item,
    whether the item is buried; then arrays over the user's history, oldest first: item id, whether it was
    bought lately; then arrays over the items: for each boost of `floors` (`ShopRules.floors`) whether it
    boosts the item, for each column of `publish.max_per` the value as a text. A score counts at most as much
    as those before it, because the places decide where a re-ranker chose them; so does a missing one of a
    pinned item. The bundle was shipped before.
    """

    @F.pandas_udf(CHOICE)  # type: ignore[call-overload]
    def choose(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        table = item_table(bundle_id)
        for columns in batches:
            starts = range(0, len(columns[0]), CHUNK_USERS)
            chunks = ([column.iloc[start : start + CHUNK_USERS] for column in columns] for start in starts)
            found = [chosen(table, chunk, settings, floors) for chunk in chunks]
            yield pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=CHOICE.names)

    return choose


def chosen(
    table: ItemTable, columns: Sequence[pd.Series], settings: PublishConfig, floors: Mapping[str, int]
) -> pd.DataFrame:
    """Return rows of `CHOICE` of some users; `columns` are the arguments of the function of `chooser`."""
    ids, titles, scores, shown, is_popular, is_bought_kind, pinned, buried = columns[:8]
    history, is_recent, *others = columns[8:]
    sizes_B = lengths(ids)
    numbers_N, forms = numbered_titles(list(flat(titles)))
    vectors_BCS = padded(table.text_vectors(flat(ids)), sizes_B)
    likenesses = likenesses_of(table, ids, history, vectors_BCS)
    bought_BC = as_array(is_bought_kind, bool)
    bought_BC = bought_BC | like_recent(likenesses, as_array(is_recent, bool), settings.duplicate_above)
    pools = Pools(
        sizes=sizes_B,
        relevance=np.nan_to_num(np.fmin.accumulate(as_array(scores, np.float64), axis=1)),
        vectors=vectors_BCS,
        titles=padded(numbers_N, sizes_B),
        pairs=padded(title_pairs(forms)[numbers_N], sizes_B),
        shown=as_array(shown, np.int64),
        bought=bought_BC,
        groups=dict(zip(settings.max_per, map(as_numbers, others[len(floors) :]), strict=True)),
        rules=shop_rules(pinned, buried, others[: len(floors)], floors),
    )
    filled = fill(pools, settings.email_slots, settings.diversity, settings.duplicate_above, settings.max_per)
    found = reasons_of(table, ids, is_popular, history, likenesses)
    return as_rows(filled).assign(bought=as_lists(bought_BC, sizes_B), **found)


def shop_rules(
    pinned: pd.Series, buried: pd.Series, boosted: Sequence[pd.Series], floors: Mapping[str, int]
) -> ShopRules:
    """Return the rules of some users; `boosted` has a column for each boost of `floors`."""
    return ShopRules(
        pinned=as_array(pinned, np.int64),
        buried=as_array(buried, bool),
        boosted={name: as_array(values, bool) for name, values in zip(floors, boosted, strict=True)},
        floors=floors,
    )


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
    sizes_B = lengths(ids)
    lengths_B = lengths(history)
    own_N = flat(ids).astype(object)
    known_M = flat(history).astype(object)
    ids_BC = padded(own_N, sizes_B)
    history_BL = padded(known_M, lengths_B)
    is_item_BL = np.arange(history_BL.shape[1]) < lengths_B[:, None]
    return Likeness(
        text=likeness(vectors_BCS, padded(table.text_vectors(known_M), lengths_B)),
        cf=likeness(padded(table.cf_vectors(own_N), sizes_B), padded(table.cf_vectors(known_M), lengths_B)),
        same=(ids_BC[:, :, None] == history_BL[:, None, :]) & is_item_BL[:, None, :],
    )


def like_recent(likenesses: Likeness, recent_BL: np.ndarray, duplicate_above: float) -> np.ndarray:
    """Return which items are those bought lately, or nearly the same, [B, C] bool."""
    is_near_BCL = (likenesses.text > duplicate_above) | likenesses.same
    return (is_near_BCL & recent_BL[:, None, :]).any(axis=2)


def reasons_of(
    table: ItemTable, ids: pd.Series, is_popular: pd.Series, history: pd.Series, likenesses: Likeness
) -> dict[str, pd.Series]:
    """Return the columns `REASON` of `CHOICE`."""
    sizes_B = lengths(ids)
    lengths_B = lengths(history)
    known_M = flat(history).astype(object)
    of_items = reasons(likenesses, as_array(is_popular, bool), padded(table.is_new(flat(ids)), sizes_B))
    columns_BC = (
        _taken(padded(known_M, lengths_B), of_items.places),
        _taken(padded(table.titles(known_M), lengths_B), of_items.places),
        of_items.texts,
    )
    return {name: as_lists(values_BC, sizes_B) for name, values_BC in zip(REASON, columns_BC, strict=True)}


def _taken(values_BL: np.ndarray, places_BC: np.ndarray) -> np.ndarray:
    """Return the values at places, [B, C] object; None at `NOTHING`."""
    values_BK = np.concatenate([values_BL, np.full((len(values_BL), 1), None)], axis=1)
    return np.take_along_axis(
        values_BK, np.where(places_BC == NOTHING, values_BL.shape[1], places_BC), axis=1
    )
