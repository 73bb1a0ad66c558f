"""Every shipped configuration is valid and says how to launch it; the paper's are the paper."""

import re
from pathlib import Path
from typing import Any

import pytest

from allmrec.config import Config, load
from allmrec.config.reference import fields
from tests.command_lines import commands, mistakes

CONF = sorted((Path(__file__).parents[1] / "conf").glob("*.yaml"))


@pytest.mark.parametrize("path", CONF, ids=lambda path: path.name)
def test_a_shipped_configuration_is_valid_and_opens_with_complete_launch_commands(path: Path) -> None:
    old_spellings: list[str] = []
    load([path], report=old_spellings.append)
    assert old_spellings == []
    head = path.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    launch = "\n".join(line[1:] for line in head if line.startswith("#   "))
    assert f"conf/{path.name}" in launch
    for words in commands(launch):
        assert words[0] in ("allmrec", "spark-submit")
        assert mistakes(words) == []


def changed(*names: str) -> dict[str, Any]:
    """Return what the files change of the defaults, by path."""
    defaults, config = flat(Config()), flat(load([CONF[0].parent / name for name in names]))
    return {path: value for path, value in config.items() if value != defaults[path]}


def flat(config: Config) -> dict[str, Any]:
    """Return every setting by its path."""
    return dict(leaves(config.model_dump(), ""))


def leaves(tree: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Return the (path, value) of every leaf of nested mappings."""
    rows = []
    for name, value in tree.items():
        rows += leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return rows


PAPER = {
    "cf.loss": "bce",
    "cf.width": 50,
    "cf.item_init": "random",
    "cf.sasrec.num_blocks": 2,
    "cf.sasrec.network": "authors",
    "cf.beta2": 0.98,
    "cf.epochs": 200,
    "cf.patience": None,
    "stage1.learning_rate": 1e-4,
    "stage1.matching": "mse",
    "stage1.text_encoder": "finetuned",
    "stage1.item_reconstruction": 0.5,
    "stage1.text_reconstruction": 0.5,
    "stage1.recommendation_score": "mean",
    "stage1.cf_dropout": True,
    "stage2.item_input": "joint",
    "stage2.user_input": "cf",
    "stage2.cf_dropout": True,
    "stage2.scale_soft_tokens": False,
    "stage2.warm_start_steps": 0,
    "stage2.unknown_dropout": 0.0,
    "stage2.examples": "last_train_item",
    "stage2.objective": "title",
    "stage2.num_candidates": 20,
    "stage2.max_examples": None,
    "stage2.patience": None,
    "stage2.beta2": 0.98,
    "stage2.clip_norm": None,
    "training.held_back_share": 1.0,
    "text_encoder.model": "sentence-transformers/nq-distilbert-base-v1",
    "text_encoder.max_tokens": 512,
    "llm.model": "facebook/opt-6.7b",
    "llm.dtype": "float16",
    "prompt.layout": "authors",
    "prompt.tokenise": "whole",
    "prompt.title_tokens": None,
    "scoring.order": "llm",
    "scoring.llm_candidates": None,
    "scoring.mode": "free",
    "scoring.match": "contains",
    "scoring.repetition_penalty": 1.5,
    "evaluation.num_sampled_users": 10000,
}
"""What the paper's data sets share and the defaults do otherwise."""


def test_the_paper_on_beauty_and_toys() -> None:
    assert changed("paper.yaml", "paper_beauty.yaml") == PAPER | {
        "stage1.text_reconstruction": 0.2,
        "importing.k_core": 4,
        "importing.min_rating": 4.0,
    }


@pytest.mark.parametrize("domain", ["movie", "game"])
def test_the_paper_on_movies_and_games(domain: str) -> None:
    own = {"prompt.domain": domain, "importing.k_core": 5}
    assert changed("paper.yaml", f"paper_{domain}s.yaml") == PAPER | own


NOT_SET_BACK = {
    "stage1.networks": "the default is the paper's",
    "stage1.positions": "the default is the paper's, the other one its variant",
    "training.max_users": "few-shot: eval_few_shot.yaml",
    "scoring.soft_items": "A-LLMRec (SBERT): eval_sbert.yaml",
}
"""Settings that name the paper and that conf/paper.yaml leaves as they are, and why."""


def test_a_setting_that_names_the_paper_is_set_by_its_configuration() -> None:
    named = {path for path, field in fields() if re.search("paper|authors", field.description or "")}
    assert named - set(PAPER) == set(NOT_SET_BACK)


def test_what_the_paper_shares_with_the_defaults() -> None:
    paper = flat(load([CONF[0].parent / "paper.yaml", CONF[0].parent / "paper_movies.yaml"]))
    defaults = {
        "cf.sasrec.num_heads": 1,
        "cf.dropout": 0.5,
        "sequences.max_history": 50,
        "stage1.width": 128,
        "stage1.item_reconstruction": 0.5,
        "stage1.text_reconstruction": 0.5,
        "stage1.batch_size": 32,
        "stage1.epochs": 10,
        "stage2.learning_rate": 1e-4,
        "stage2.batch_size": 4,
        "stage2.epochs": 5,
        "prompt.history_items": 10,
    }
    assert {path: paper[path] for path in defaults} == defaults
