"""Settings of earlier versions: renamed ones are accepted, ones that became constants are told."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import get_origin

import click
import pytest
from click.testing import CliRunner

from allmrec import metrics
from allmrec.config import Config, from_dict, from_stored, load
from allmrec.config.former import FIXED
from allmrec.config.reference import fields
from allmrec.config.renamed import RENAMED
from allmrec.data import snapshot
from allmrec.errors import ConfigError
from allmrec.models import text_encoder
from allmrec.night import waves
from allmrec.options import configured
from allmrec.runtime import decides
from allmrec.scoring import assortment, retrieval
from allmrec.training.stage2 import warm_start

CONSTANTS = {
    "candidates.block_items": assortment.BLOCK_ITEMS,
    "candidates.chunk_users": retrieval.CHUNK_USERS,
    "evaluation.bootstrap_samples": metrics.BOOTSTRAP_SAMPLES,
    "scoring.chunk_users_without_llm": waves.CHUNK_USERS_WITHOUT_LLM,
    "stage2.warm_start_batch": warm_start.BATCH_USERS,
    "stage2.warm_start_learning_rate": warm_start.LEARNING_RATE,
    "text_encoder.batch_size": text_encoder.BATCH_TEXTS,
    "training.row_group_rows": snapshot.ROW_GROUP_ROWS,
}
SECTIONS = (
    ("cf", "{network: authors}", "cf.sasrec.network=authors"),
    ("cf", "{num_blocks: 2}", "cf.sasrec.num_blocks=2"),
    ("cf", "{num_heads: 4}", "cf.sasrec.num_heads=4"),
    ("importing", "{rating_range: [1, 5]}", "sequences.rating_range=[1, 5]"),
    ("llm", "{cache: 007}", "cache.folder=007"),
    ("publish", "{max_per_category: 3}", "publish.max_per.category=3"),
    ("scoring", "{bundle_id: 1234567890123e45}", "bundle.id=1234567890123e45"),
    ("scoring", "{token_budget: 1_000, top_k: 3}", "llm.token_budget=1000"),
)
"""A section with a former key in YAML, and the override that means the same."""


def test_a_former_path_is_no_setting_and_leads_to_one() -> None:
    paths = {path for path, _ in fields()}
    mappings = {path for path, field in fields() if get_origin(field.annotation) is dict}
    for now in RENAMED.values():
        assert now in paths or now.rpartition(".")[0] in mappings
    assert not paths & {*RENAMED, *FIXED}


@pytest.mark.parametrize(("section", "text", "now"), SECTIONS)
def test_a_former_name_means_the_same_wherever_it_is_and_is_reported_once(
    tmp_path: Path, section: str, text: str, now: str
) -> None:
    path, _, value = now.partition("=")
    [old] = [name for name, new in RENAMED.items() if new == path]
    expected = load([], [now, *(["scoring.top_k=3"] if "top_k" in text else [])])
    file = tmp_path / "old.yaml"
    file.write_text(f"{section}: {text}\n")
    for paths, overrides in (([file], []), ([], [f"{section}={text}"]), ([file, file], [f"{old}={value}"])):
        lines: list[str] = []
        assert load(paths, overrides, lines.append) == expected
        assert lines == [f"{old} is called {path} now; rename it"]
    assert from_dict(expected.model_dump(mode="json")) == expected


def test_of_two_names_in_one_file_both_may_say_the_same_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    file.write_text("scoring: {bundle_id: a}\nbundle: {id: a}\n")
    assert load([file]).bundle.id == "a"
    assert load([file], ["bundle.id=b"]).bundle.id == "b", "a later source wins over an earlier one"
    file.write_text("scoring: {bundle_id: a}\nbundle: {id: b}\n")
    with pytest.raises(ConfigError, match=r"^scoring\.bundle_id: a, beside bundle\.id: b; .* set bundle\.id"):
        load([file])
    with pytest.raises(ConfigError, match="beside"):
        from_dict({"scoring": {"bundle_id": "a"}, "bundle": {"id": "b"}})


def test_a_former_name_beside_a_section_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cache: 3, expected a mapping"):
        from_dict({"llm": {"cache": "a"}, "cache": 3})
    with pytest.raises(ConfigError, match=r"scoring: 3, expected a mapping"):
        from_dict({"scoring": 3})


def test_every_constant_that_was_a_setting_has_the_value_that_is_told() -> None:
    assert FIXED == CONSTANTS


@pytest.mark.parametrize(("path", "constant"), FIXED.items())
def test_a_constant_may_be_set_to_its_value_and_to_no_other(path: str, constant: float) -> None:
    lines: list[str] = []
    assert load([], [f"{path}={constant}"], lines.append) == Config()
    assert lines == [f"{path} is no longer a setting: the value is always {constant}; remove the line"]
    with pytest.raises(ConfigError) as error:
        load([], [f"{path}=7"])
    told = f"{path}: 7, but it is no longer a setting: the value is always {constant}; remove the line"
    assert str(error.value) == told


def test_what_is_stored_is_loaded_without_a_word() -> None:
    sections: dict[str, dict[str, object]] = {"importing": {"rating_range": [1, 5]}}
    for path in FIXED:
        section, _, key = path.partition(".")
        sections.setdefault(section, {})[key] = 7
    assert from_stored(sections) == load([], ["sequences.rating_range=[1, 5]"])


def test_a_command_tells_a_former_name_on_standard_error() -> None:
    command = click.command("see")(configured(lambda config: click.echo(config.bundle.id)))
    result = CliRunner().invoke(command, ["--set", "scoring.bundle_id=abc"])
    assert result.stdout == "abc\n"
    assert result.stderr == "warning: scoring.bundle_id is called bundle.id now; rename it\n"


def test_former_names_and_constants_keep_the_fingerprints_of_what_was_done() -> None:
    config = load([], ["sequences.rating_range=[1, 5]", "llm.dtype=float16", "llm.token_budget=9"])
    assert decides.decisive_settings("sequences", config)["importing.rating_range"] == (1.0, 5.0)
    assert decides.decisive_settings("score", config)["scoring.token_budget"] == 9
    train = decides.decisive_settings("train", config)
    assert {path for path in FIXED if path in train} == {
        "stage2.warm_start_batch",
        "stage2.warm_start_learning_rate",
        "text_encoder.batch_size",
        "training.row_group_rows",
    }
    assert "evaluation.bootstrap_samples" in decides.decisive_settings("evaluate", config)
    old = load([], ["importing.rating_range=[1, 5]", "llm.dtype=float16", "scoring.token_budget=9"])
    for step in decides.SETTINGS:
        day = date(2026, 6, 1)
        assert decides.step_fingerprint(step, old, day) == decides.step_fingerprint(step, config, day)
