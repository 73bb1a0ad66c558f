"""The choice of e-mails' slots in Spark's workers: arrays of a user's items in, places out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.config import PublishConfig
from allmrec.night.text_table import TextTable, text_table
from allmrec.ranking.slot_filling import EMPTY, Filled, Pools, fill, numbered_titles, title_pairs

CHUNK_USERS = 512
"""Users whose slots are filled at once: 20 items each take some 20 MB."""
CHOICE = T.StructType(
    [
        T.StructField("places", T.ArrayType(T.IntegerType())),
        T.StructField("over_cap", T.BooleanType()),
        T.StructField("near_duplicates", T.BooleanType()),
        T.StructField("shown", T.IntegerType()),
    ]
)
"""What is chosen for a user: the attributes of `Filled`, places without empty ones."""


def chooser(bundle_id: str, settings: PublishConfig) -> Callable[..., Column]:
    """Return the function of columns that chooses each user's slots, of type `CHOICE`.

    Its arguments are arrays over a user's items by rank: id, title, score, `Pools.shown`, then for each
    column of `publish.max_per` the value as a text. A score counts at most as much as those before it,
    because the places decide where a re-ranker chose them. The bundle was shipped before.
    """

    @F.pandas_udf(CHOICE)  # type: ignore[call-overload]
    def choose(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        table = text_table(bundle_id)
        for columns in batches:
            starts = range(0, len(columns[0]), CHUNK_USERS)
            chunks = ([column.iloc[start : start + CHUNK_USERS] for column in columns] for start in starts)
            found = [as_rows(chosen(table, chunk, settings)) for chunk in chunks]
            yield pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=CHOICE.names)

    return choose


def chosen(table: TextTable, columns: Sequence[pd.Series], settings: PublishConfig) -> Filled:
    """Return the slots of some users; `columns` are the arguments of the function of `chooser`."""
    ids, titles, scores, shown, *groups = columns
    sizes_B = ids.map(len).to_numpy(dtype=np.int64)
    numbers_N, forms = numbered_titles(list(_flat(titles)))
    pairs_NP = title_pairs(forms)[numbers_N]
    pools = Pools(
        sizes=sizes_B,
        relevance=np.minimum.accumulate(_padded(_flat(scores).astype(np.float64), sizes_B), axis=1),
        vectors=_padded(table.vectors(_flat(ids)), sizes_B),
        titles=_padded(numbers_N, sizes_B),
        pairs=_padded(pairs_NP, sizes_B),
        shown=_padded(_flat(shown).astype(np.int64), sizes_B),
        groups={
            name: _padded(_numbered(_flat(values)), sizes_B)
            for name, values in zip(settings.max_per, groups, strict=True)
        },
    )
    return fill(pools, settings.email_slots, settings.diversity, settings.duplicate_above, settings.max_per)


def as_rows(filled: Filled) -> pd.DataFrame:
    """Return the slots as rows of `CHOICE`."""
    places = [own[own != EMPTY] for own in filled.places.astype(np.int32)]
    return pd.DataFrame(
        {
            "places": pd.Series(places, dtype=object),
            "over_cap": filled.over_cap,
            "near_duplicates": filled.near_duplicates,
            "shown": filled.shown.astype(np.int32),
        }
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
