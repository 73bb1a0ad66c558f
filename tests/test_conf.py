"""Every configuration that is shipped parses, and its first lines say how to launch it."""

import re
from pathlib import Path

import pytest

from allmrec.cli import cli
from allmrec.config import load

CONF = sorted((Path(__file__).parents[1] / "conf").glob("*.yaml"))


@pytest.mark.parametrize("path", CONF, ids=lambda path: path.name)
def test_a_shipped_configuration_is_valid_and_opens_with_its_launch_command(path):
    load([path])
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    commands = re.findall(r"(?:allmrec|jobs/)\s*([a-z_]+)", head)
    assert path.name in head
    assert any(command in cli.commands for command in commands), head


def test_the_paper_configuration_is_the_paper():
    config = load([CONF[0].parent / "paper_beauty.yaml"])
    assert (
        config.cf.loss,
        config.cf.width,
        config.cf.num_blocks,
        config.cf.num_heads,
        config.sequences.max_history,
    ) == (
        "bce",
        50,
        2,
        1,
        50,
    )
    assert (config.stage1.matching, config.stage1.item_reconstruction, config.stage1.text_reconstruction) == (
        "mse",
        0.5,
        0.2,
    )
    assert (
        config.stage1.learning_rate,
        config.stage1.batch_size,
        config.stage1.epochs,
        config.stage1.width,
    ) == (1e-4, 32, 10, 128)
    assert (
        config.stage2.learning_rate,
        config.stage2.batch_size,
        config.stage2.epochs,
        config.stage2.num_candidates,
    ) == (1e-4, 4, 5, 20)
    assert (config.prompt.layout, config.prompt.history_items, config.llm.model) == (
        "paper",
        10,
        "facebook/opt-6.7b",
    )
