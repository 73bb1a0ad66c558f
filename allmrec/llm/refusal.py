"""One-line errors about the files of a model of another program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from allmrec.errors import SetupError, UserError

LLM = "llm.model"
"""The setting of the LLM."""
LFS = b"version https://git-lfs.github.com/"
"""The beginning of a pointer file of git-lfs."""
LONGEST_MESSAGE = 200
"""How many characters of another library's message an error quotes."""


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, truncated. A KeyError's with its type."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyError) or not text:
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE].rsplit(" ", 1)[0] + " …"


def unusable(name: str, found: str, expected: str, advice: str, setting: str = LLM) -> SetupError:
    """Return the error for a model that does not fit `setting`."""
    return SetupError(f"{setting}: {name} cannot be loaded ({found}), expected {expected}; {advice}")


@contextmanager
def refusing(name: str, part: str, expected: str, advice: str, setting: str = LLM) -> Iterator[None]:
    """Turn errors inside the block, except full memory, into SetupErrors.

    `part` of the model `name` is read by the block. Readers of foreign files raise errors of any type.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError | torch.OutOfMemoryError):
            raise unusable(name, f"{part}: {one_line(error)}", expected, advice, setting) from error
        raise


def require_fetched(paths: Iterable[Path], what: str) -> None:
    """Raise SetupError where a path is a pointer of git-lfs."""
    for path in sorted(path for path in paths if path.is_file()):
        with path.open("rb") as file:
            is_pointer = file.read(len(LFS)) == LFS
        if is_pointer:
            raise SetupError(
                f"{what}: {path.name} is a pointer of git-lfs, expected the file itself; "
                f"run `git lfs pull` in {path.parent}"
            )
