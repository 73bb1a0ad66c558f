"""What must not go wrong silently in a night ends in a clear line, and leaves earlier tables as they were."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from allmrec.errors import BundleError, ConfigError, GateError, InputError, SetupError, TableError
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night
from allmrec.steps.nightly import run_nightly
from allmrec.steps.train import run_train
from tests.conftest import QUICK_OVERRIDE, SHORT_RUNS
from tests.steps.conftest import RUN_DATE, NewContext, asked, settings
from tests.steps.reading import rows, version

DAY = {"run_date": str(RUN_DATE)}


def bundle_folder(root: Path) -> Path:
    return next(
        path
        for path in (root / "_bundles").iterdir()
        if json.loads((path / "manifest.json").read_text()).get("parent_id") is None
    )


def refused(context: Context, error: type[Exception], match: str) -> None:
    """Run the night anew, expect the error as one line, and that the published table did not change."""
    root = context.config.tables.root
    before = version(Path(root), "recommendations")
    with pytest.raises(error, match=match) as found:
        run_nightly(asked(context, refresh=True), RUN_DATE)
    assert "\n" not in str(found.value)
    assert version(Path(root), "recommendations") == before


def forget(context: Context, *steps: str) -> None:
    names = ", ".join(repr(step) for step in steps)
    context.spark.sql(f"DELETE FROM delta.`{context.config.tables.root}/runs` WHERE step IN ({names})")


def test_a_bundle_with_a_flipped_byte_is_refused_by_file_name(
    copy_of_shop: Path, new_context: NewContext
) -> None:
    path = bundle_folder(copy_of_shop) / "cf.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    context = new_context(copy_of_shop)
    forget(context, "candidates", "score")
    refused(context, BundleError, "cf.safetensors")


def test_a_bundle_that_misses_a_file_is_refused_by_file_name(
    copy_of_shop: Path, new_context: NewContext
) -> None:
    (bundle_folder(copy_of_shop) / "blend.json").unlink()
    context = new_context(copy_of_shop)
    forget(context, "candidates", "score")
    refused(context, BundleError, "blend.json")


def test_a_bundle_that_lacks_most_of_the_catalogue_is_refused(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    other = [(f"other-{number}", f"Another thing {number}") for number in range(200)]
    frame = spark.createDataFrame(other, "item_id string, title string")
    frame.write.format("delta").mode("append").save(str(copy_of_shop / "items"))
    refused(new_context(copy_of_shop), BundleError, "half")


def test_a_catalogue_of_another_shop_in_the_place_of_ours_is_refused(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    frame = spark.createDataFrame([("other", "Another thing")], "item_id string, title string")
    shutil.rmtree(copy_of_shop / "items")
    frame.write.format("delta").save(str(copy_of_shop / "items"))
    refused(new_context(copy_of_shop), InputError, "interactions: every row .* item_not_in_catalogue")


def test_a_missing_table_is_named(copy_of_shop: Path, new_context: NewContext) -> None:
    shutil.rmtree(copy_of_shop / "interactions")
    refused(new_context(copy_of_shop), TableError, "interactions")


def test_a_table_of_the_wrong_schema_is_refused_by_column(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    shutil.rmtree(copy_of_shop / "interactions")
    spark.createDataFrame([(1, "a")], "user_id int, item string").write.format("delta").save(
        str(copy_of_shop / "interactions")
    )
    refused(new_context(copy_of_shop), TableError, "interactions")


def test_a_half_written_table_is_refused(copy_of_shop: Path, new_context: NewContext) -> None:
    shutil.rmtree(copy_of_shop / "interactions" / "_delta_log")
    refused(new_context(copy_of_shop), TableError, "interactions")


def test_a_missing_llm_is_refused_with_what_to_do(copy_of_shop: Path, new_context: NewContext) -> None:
    context = new_context(copy_of_shop, f"llm.model={copy_of_shop}/no_such_model")
    forget(context, "candidates", "score")
    refused(context, SetupError, "no_such_model")


def test_a_training_without_petastorm_is_refused_before_anything_is_written(
    copy_of_shop: Path, new_context: NewContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "petastorm", None)
    before = version(copy_of_shop, "runs")
    with pytest.raises(SetupError, match="petastorm cannot be imported"):
        run_train(Night(new_context(copy_of_shop), RUN_DATE))
    assert version(copy_of_shop, "runs") == before


def test_an_empty_night_is_a_night(copy_of_shop: Path, new_context: NewContext, spark: SparkSession) -> None:
    spark.sql(f"DELETE FROM delta.`{copy_of_shop}/interactions`")
    run_nightly(asked(new_context(copy_of_shop), refresh=True), RUN_DATE)
    found = rows(copy_of_shop, "recommendations", **DAY)
    assert set(found["source"]) == {"popular"}
    assert len(rows(copy_of_shop, "user_sequences", **DAY)) == len(rows(copy_of_shop, "users"))


def test_a_catalogue_of_three_items_gives_three(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    spark.sql(f"UPDATE delta.`{copy_of_shop}/items` SET available = false")
    few = [
        row[0]
        for row in spark.read.format("delta")
        .load(str(copy_of_shop / "items"))
        .orderBy("item_id")
        .where("length(title) > 3")
        .limit(3)
        .collect()
    ]
    names = ", ".join(repr(item) for item in few)
    spark.sql(f"UPDATE delta.`{copy_of_shop}/items` SET available = true WHERE item_id IN ({names})")
    context = new_context(copy_of_shop)
    with pytest.raises(GateError, match="max_short_share"):
        run_nightly(asked(context, refresh=True), RUN_DATE)
    run_nightly(asked(context, override=frozenset({"max_short_share"})), RUN_DATE)
    found = rows(copy_of_shop, "recommendations", **DAY)
    assert set(found["item_id"]) <= set(few)
    assert found.groupby("user_id").size().max() == 3


def test_a_user_who_saw_everything_is_counted_as_unservable(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    spark.sql(
        f"INSERT INTO delta.`{copy_of_shop}/interactions` "
        "SELECT 'sees-all', item_id, timestamp'2026-05-20 10:00:00', null, 'purchase' "
        f"FROM delta.`{copy_of_shop}/items`"
    )
    run_nightly(asked(new_context(copy_of_shop), refresh=True), RUN_DATE)
    assert "sees-all" not in set(rows(copy_of_shop, "recommendations", **DAY)["user_id"])
    runs = rows(copy_of_shop, "runs").query("step == 'score' and status == 'done'").sort_values("started_at")
    assert dict(runs.iloc[-1]["counts"])["unservable_saw_every_item"] == 1


def test_an_item_added_tonight_can_be_recommended_tonight(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    items = spark.read.format("delta").load(str(copy_of_shop / "items"))
    [row] = items.where("title like '%Tent%' OR title like '%Sleeping%'").orderBy("item_id").take(1)
    new = [(f"NEW-{number}", f"{row['title']} mark {number}") for number in range(8)]
    spark.createDataFrame(new, "item_id string, title string").createOrReplaceTempView("added")
    spark.sql(
        f"INSERT INTO delta.`{copy_of_shop}/items` (item_id, title, available) "
        "SELECT item_id, title, true FROM added"
    )
    run_nightly(asked(new_context(copy_of_shop), refresh=True), RUN_DATE)
    found = rows(copy_of_shop, "candidates", **DAY)
    assert {item for items in found["item_ids"] for item in items} & {item for item, _ in new}
    children = [
        json.loads((path / "manifest.json").read_text()) for path in (copy_of_shop / "_bundles").iterdir()
    ]
    assert set(rows(copy_of_shop, "recommendations", **DAY)["bundle_id"]) <= {
        child["bundle_id"] for child in children if child.get("parent_id")
    }


def test_dirty_rows_are_kept_with_a_reason_and_a_rerun_adds_none(shop: Path) -> None:
    found = rows(shop, "rejected_rows")
    assert {
        "null_user_id",
        "empty_item_id",
        "time_after_import",
        "rating_out_of_range",
        "exact_duplicate",
        "item_not_in_catalogue",
        "empty_title",
    } <= set(found["reason"])
    assert not found.duplicated(["table", "row_hash", "reason"]).any()
    assert isinstance(json.loads(found["row"].iloc[0]), dict)
    assert pd.notna(found["first_seen"]).all()


def fill(path: Path) -> None:
    """Write to a file for ever."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.fixture
def full_table(copy_of_shop: Path) -> Iterator[Path]:
    """The folder of `recommendations` on a disk of its own that has no byte left."""
    table, saved = copy_of_shop / "recommendations", copy_of_shop.parent / "saved"
    table.rename(saved)
    table.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(table)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    try:
        shutil.copytree(saved, table, dirs_exist_ok=True)
        with pytest.raises(OSError, match="No space left"):
            fill(table / "_filler")
        yield table
    finally:
        subprocess.run(["umount", "--lazy", str(table)], check=True)


@pytest.mark.long
def test_a_full_disk_is_told_in_one_line_and_leaves_the_table_as_it_was(
    full_table: Path, new_context: NewContext
) -> None:
    root = full_table.parent
    forget(new_context(root), "score")
    before = version(root, "recommendations")
    overrides = [*settings(root), QUICK_OVERRIDE]
    sets = [part for value in overrides for part in ("--set", value)]
    allmrec = Path(sys.executable).with_name("allmrec")
    done = subprocess.run(
        [str(allmrec), "nightly", *sets, "--run-date", str(RUN_DATE)],
        env={**os.environ, "JAVA_TOOL_OPTIONS": SHORT_RUNS},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 4, "a scheduler tries again"
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "No space left" in line
    assert "Traceback" not in done.stderr
    assert version(root, "recommendations") == before


def test_text_for_joint_embeddings_needs_a_bundle_that_reads_them(
    copy_of_shop: Path, new_context: NewContext
) -> None:
    for path in (copy_of_shop / "_bundles").glob("*/config.json"):
        settings = json.loads(path.read_text())
        settings["stage2"]["item_input"] = "cf"
        path.write_text(json.dumps(settings))
    with pytest.raises(
        ConfigError, match=r"scoring.soft_items: text, but bundle \w+ was trained with stage2"
    ):
        run_nightly(new_context(copy_of_shop, "scoring.soft_items=text"), RUN_DATE)


def test_free_text_needs_a_bundle_whose_prompt_lists_the_candidates(
    shop: Path, new_context: NewContext
) -> None:
    with pytest.raises(ConfigError, match=r"scoring.mode: free, but bundle \w+ was .* prompt.layout no_list"):
        run_nightly(new_context(shop, "scoring.mode=free"), RUN_DATE)
