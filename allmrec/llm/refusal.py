"""Errors of one line about the files of a model that another program wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from allmrec.errors import SetupError, UserError

LLM = "llm.model"
"""The setting that names the LLM."""
LFS = b"version https://git-lfs.github.com/"
"""How a file begins that git-lfs left in place of the real one."""
LONGEST_MESSAGE = 200
"""Characters of another library's message that an error quotes."""


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, cut after some 200 characters; a KeyError's with its type."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyError) or not text:
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE].rsplit(" ", 1)[0] + " …"


def unusable(name: str, found: str, expected: str, advice: str, setting: str = LLM) -> SetupError:
    """Return the error of a model `name` that cannot be what the setting asks for."""
    return SetupError(f"{setting}: {name} cannot be loaded ({found}), expected {expected}; {advice}")


@contextmanager
def refusing(name: str, part: str, expected: str, advice: str, setting: str = LLM) -> Iterator[None]:
    """Turn every error inside the block into a SetupError of one line, but for a full memory.

    `part` of the model `name` is what the block reads. Readers of foreign files raise what they like.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError | torch.OutOfMemoryError):
            raise unusable(name, f"{part}: {one_line(error)}", expected, advice, setting) from error
        raise


def require_fetched(paths: Iterable[Path], what: str) -> None:
    """Raise SetupError, naming the file, where one of `paths` is only a pointer that git-lfs left there."""
    for path in sorted(path for path in paths if path.is_file()):
        with path.open("rb") as file:
            is_pointer = file.read(len(LFS)) == LFS
        if is_pointer:
            raise SetupError(
                f"{what}: {path.name} is a pointer of git-lfs, expected the file itself; "
                f"run `git lfs pull` in {path.parent}"
            )
