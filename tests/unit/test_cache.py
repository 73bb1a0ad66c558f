"""What the cache keeps of one shop is not taken for another's."""

from __future__ import annotations

from pathlib import Path

from allmrec.cache import training_folder
from allmrec.config import CacheConfig


def test_trainings_of_two_shops_with_the_same_versions_have_folders_of_their_own(tmp_path: Path) -> None:
    settings = CacheConfig(folder=str(tmp_path))
    one, other = (
        training_folder(settings, root, "f" * 16) for root in ("s3://one/tables", "s3://two/tables")
    )
    assert one != other
    assert one == training_folder(settings, "s3://one/tables", "f" * 16)
    assert one.parent == other.parent == tmp_path / "training"
