"""A kept list is the list that would be made: random nights against nights from scratch, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.steps.conftest import NewContext
from tests.steps.random_nights import Sequence

NUM_SHORT, NUM_LONG = 5, 50


@pytest.mark.parametrize("seed", range(NUM_SHORT))
def test_random_nights_write_what_nights_from_scratch_write(
    new_context: NewContext, shop: Path, tmp_path: Path, seed: int
) -> None:
    Sequence.of(new_context, shop, tmp_path, seed).play(num_nights=3, num_compared=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(NUM_SHORT, NUM_SHORT + NUM_LONG))
def test_many_random_nights_write_what_nights_from_scratch_write(
    new_context: NewContext, shop: Path, tmp_path: Path, seed: int
) -> None:
    Sequence.of(new_context, shop, tmp_path, seed).play(num_nights=4, num_compared=2)
