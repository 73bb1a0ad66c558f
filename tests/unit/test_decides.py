"""What decides rows: every setting has its place in the one list, and changes the fingerprints it must."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from allmrec.config import Config, load
from allmrec.config.former import FIXED
from allmrec.runtime import decides
from allmrec.runtime.decides import (
    DECIDED_ELSEWHERE,
    DECIDES_IN_16_BITS,
    DECIDES_NOTHING,
    SETTINGS,
    is_named,
    leaves,
)

DAY = date(2026, 6, 1)


def marks(*overrides: str, **inputs: Any) -> dict[str, str]:
    """The fingerprint of every step under a configuration."""
    config = load([], overrides)
    return {step: decides.step_fingerprint(step, config, DAY, **inputs) for step in SETTINGS}


def changed(*overrides: str) -> set[str]:
    """The steps whose fingerprints are other ones under these settings."""
    before, after = marks(), marks(*overrides)
    return {step for step in SETTINGS if before[step] != after[step]}


def test_every_setting_is_in_exactly_one_list() -> None:
    decisive = tuple(name for names in SETTINGS.values() for name in names)
    for path in leaves(Config()):
        places = [
            is_named(path, decisive),
            is_named(path, tuple(DECIDED_ELSEWHERE)) and not is_named(path, decisive),
            is_named(path, (*DECIDES_NOTHING, *DECIDES_IN_16_BITS)),
        ]
        assert sum(places) == 1, path


def test_every_name_in_the_lists_is_a_setting() -> None:
    paths = set(leaves(Config()))
    sections = {path.partition(".")[0] for path in paths}
    names = [
        *(name for names in SETTINGS.values() for name in names),
        *DECIDED_ELSEWHERE,
        *DECIDES_NOTHING,
        *DECIDES_IN_16_BITS,
    ]
    for name in names:
        assert name in paths or name in FIXED or (name.endswith(".*") and name[:-2] in sections), name


@pytest.mark.parametrize(
    ("override", "steps"),
    [
        ("seed=7", {"score", "train", "evaluate"}),
        ("llm.dtype=float32", {"score", "train", "evaluate"}),
        ("sequences.rating_range=[1.0, 5.0]", {"sequences", "train"}),
        ("tables.items.where=price > 0", {"sequences", "train"}),
        ("tables.users.path=customers", {"sequences"}),
        ("training.processes=2", {"train"}),
        ("cf.width=64", {"train"}),
        ("cf.sasrec.num_blocks=2", {"train"}),
        ("cf.num_heads=2", {"train"}),
        ("training.num_threads=2", set()),
        ("tables.root=elsewhere", set()),
        ("tables.schema_name=lists", set()),
        ("sequences.max_history=20", {"sequences", "train"}),
        ("scoring.top_k=5", {"score", "publish"}),
        ("publish.email_slots=3", {"publish"}),
        ("publish.item_columns=[price]", {"publish"}),
        ("publish.not_like_last_days=7", {"publish"}),
        ("publish.recipients=newsletter", {"publish"}),
        ("publish.arms={served: 1.0}", {"publish"}),
        ("publish.rules=[{name: a, kind: bury, where: x}]", set()),
        ("candidates.exclude_seen=false", {"candidates", "train", "evaluate"}),
        ("scoring.repetition_penalty=1.5", {"score", "evaluate"}),
        ("scoring.match=contains", {"score", "evaluate"}),
        ("scoring.rerankers=[diverse]", {"score", "evaluate"}),
        ("scoring.chunk_users=7", set()),
        ("scoring.deadline=05:30", set()),
        ("gates.max_short_share=null", set()),
        ("maintenance.keep_days=7", set()),
        ("spark.shuffle_partitions=3", set()),
    ],
)
def test_a_setting_changes_the_fingerprints_of_the_steps_whose_rows_it_decides(
    override: str, steps: set[str]
) -> None:
    assert changed(override) == steps


def test_without_item_columns_the_fingerprint_is_as_it_was_before_the_setting() -> None:
    assert "publish.item_columns" not in decides.decisive_settings("publish", Config())


def test_an_empty_list_of_rerankers_leaves_fingerprints_as_they_were_before_the_setting() -> None:
    for step in ("score", "evaluate"):
        assert "scoring.rerankers" not in decides.decisive_settings(step, Config())
        assert "scoring.llm_candidates" in decides.decisive_settings(step, Config())
        assert decides.decisive_settings(step, load([], ["scoring.llm_candidates=null"])) == {
            **decides.decisive_settings(step, Config()),
            "scoring.llm_candidates": None,
        }


def test_a_training_of_before_the_sections_of_backbones_is_known_again() -> None:
    settings = decides.decisive_settings("train", load([], ["cf.sasrec.num_blocks=2"]))
    own = {path: value for path, value in settings.items() if path.startswith("cf.")}
    assert own == {
        "cf.model": "sasrec",
        "cf.loss": "sampled_softmax",
        "cf.num_negatives": 1024,
        "cf.width": 128,
        "cf.item_init": "text",
        "cf.num_blocks": 2,
        "cf.num_heads": 1,
        "cf.network": "pre_norm",
        "cf.dropout": 0.5,
        "cf.learning_rate": 1e-3,
        "cf.beta2": 0.999,
        "cf.batch_size": 128,
        "cf.epochs": 60,
        "cf.patience": 5,
        "cf.evaluate_every": 2,
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_who_shares_a_pass_decides_rows_in_16_bits(dtype: str) -> None:
    for override in ("scoring.chunk_users=7", "llm.token_budget=600"):
        before, after = marks(f"llm.dtype={dtype}"), marks(f"llm.dtype={dtype}", override)
        differ = {step for step in SETTINGS if before[step] != after[step]}
        assert differ == (set() if dtype == "float32" else {"score", "evaluate"})


def test_another_code_date_bundle_or_input_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config()
    one = decides.step_fingerprint("score", config, DAY, bundle="b")
    assert one == decides.step_fingerprint("score", config, DAY, bundle="b")
    assert one != decides.step_fingerprint("score", config, date(2026, 6, 2), bundle="b")
    assert one != decides.step_fingerprint("score", config, DAY, bundle="c")
    monkeypatch.setitem(decides.CODE_VERSIONS, "score", decides.CODE_VERSIONS["score"] + 1)
    assert one != decides.step_fingerprint("score", config, DAY, bundle="b")
