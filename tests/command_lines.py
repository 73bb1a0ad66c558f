"""Checks of command lines that are not run: every command, option, file and target in them must exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from allmrec.cli import cli
from allmrec.config import load
from allmrec.errors import ConfigError

ROOT = Path(__file__).parents[1]
TOP_FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - {
    "tables"
}


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of a shell text, without comments and leading `NAME=value`."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in re.split(r"&&|;|\|", line):
            words = shlex.split(command, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words = words[1:]
            if words:
                yield words


def mistakes(words: list[str]) -> list[str]:
    """Return what a command names that does not exist, and what it lacks."""
    missing = [f"no file {word}" for word in words if _is_ours(word) and not (ROOT / word).exists()]
    program = Path(words[0]).name
    if program == "allmrec":
        return missing + _mistakes_of_arguments(words[1:])
    if program == "spark-submit":
        job = next((index for index, word in enumerate(words) if word.startswith("jobs/")), None)
        if job is None:
            return [*missing, "no job of jobs/"]
        name = Path(words[job]).stem
        command = name.split("_", 1) if name.startswith("import_") else [name]
        return missing + _mistakes_of_arguments([*command, *words[job + 1 :]])
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        named = [word for word in words[1:] if "=" not in word]
        return missing + [f"no target {target} in the Makefile" for target in named if target not in targets]
    if program.startswith("python") and words[1:2] == ["-m"]:
        module = ROOT / (words[2].replace(".", "/") + ".py")
        ours = words[2].split(".")[0] in TOP_FOLDERS
        return missing + ([f"no module {words[2]}"] if ours and not module.is_file() else [])
    return missing


def _is_ours(word: str) -> bool:
    """Whether a word is a path into one of the repository's folders."""
    return "/" in word and word.split("/")[0] in TOP_FOLDERS and not set(word) & set("$*<>{}…")


def _mistakes_of_arguments(arguments: list[str]) -> list[str]:
    """Return what is wrong with the arguments of `allmrec`: unknown, missing or refused ones."""
    group: click.Group = cli
    while arguments and isinstance(group.get_command(click.Context(group), arguments[0]), click.Group):
        group = group.commands[arguments[0]]  # type: ignore[assignment]
        arguments = arguments[1:]
    if arguments[:1] in ([], ["--help"], ["--version"]):
        return []
    command = group.commands.get(arguments[0])
    if command is None:
        return [f"no command {arguments[0]}"]
    if "--help" in arguments:
        return []
    try:
        context = command.make_context(arguments[0], list(arguments[1:]))
    except click.UsageError as error:
        return [f"{arguments[0]}: {error.format_message()}"]
    try:
        load([ROOT / path for path in context.params.get("config", ())], context.params.get("overrides", ()))
    except ConfigError as error:
        return [str(error)]
    return []
