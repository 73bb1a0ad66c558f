"""The safetensors files of a model, and their hash.

The hash identifies the weights that score: it is taken over exactly the files that transformers loads. Other
files (an adapter, a second copy in another layout) are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from allmrec.errors import SetupError
from allmrec.llm.load_report import in_words
from allmrec.llm.refusal import one_line, require_fetched, unusable
from allmrec.weights import hash_safetensors

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""The file with all tensors, and the file that names the shards, which is read if the first is missing."""
PER_PROCESS = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
"""Files of a distributed checkpoint, which transformers prefers to all others."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights that are not quantised, in a safetensors header."""


def weight_hash_of(folder: Path, name: str, cache: Path) -> str:
    """Return the hash of the weights of the LLM `name` in `folder`.

    Raises SetupError where a file is missing, truncated or quantised, or the cache cannot be written.
    """
    files = weight_files(folder, name)
    try:
        _require_floats(files, name)
        return hash_safetensors(files, cache / "llm" / "weight_hashes")
    except SafetensorError as error:
        raise unusable(name, one_line(error), "whole safetensors", "copy the model again") from error
    except OSError as error:
        raise SetupError(
            f"llm.model: the weights of {name} cannot be hashed ({one_line(error)}), expected files that can "
            "be read and a cache that can be written; change the rights, or set cache.folder"
        ) from error


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the safetensors files that transformers loads from `folder`, in its order.

    Raises SetupError, naming the model `name`, where a file is missing, or git-lfs has not fetched it.
    """
    require_fetched(folder.iterdir(), f"llm.model: {name}")
    per_process = sorted(path.name for path in folder.iterdir() if PER_PROCESS.fullmatch(path.name))
    if per_process:
        found = f"it is a distributed checkpoint ({per_process[0]})"
        raise unusable(name, found, f"{SINGLE} or {INDEX}", "save it with save_pretrained, in one process")
    first = str(read_config(folder, name).get("transformers_weights") or SINGLE)
    if first == SINGLE and not (folder / SINGLE).is_file():
        first = INDEX
    files = _shards(folder, first, name) if first.endswith(".json") else [first]
    for file in files:
        if not (folder / file).is_file():
            raise unusable(name, f"no file {file} in {folder}", "weights as safetensors", _advice(folder))
    return [folder / file for file in files]


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """Return the object of config.json. Raises SetupError where it is missing or none."""
    expected = "the folder of a causal LM"
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise unusable(name, f"no config.json in {folder}", expected, _advice(folder)) from error
    except (OSError, ValueError) as error:
        found = f"config.json is no JSON: {one_line(error)}"
        raise unusable(name, found, expected, "copy the model again") from error
    if not isinstance(values, dict) or not values.get("model_type"):
        raise unusable(name, "config.json names no model_type", expected, "copy the model again")
    return values


def _require_floats(files: Sequence[Path], name: str) -> None:
    """Raise SetupError where weights are integers or 8-bit floats.

    They would be read as plain numbers, without their scales.
    """
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            kinds = {tensor: tensors.get_slice(tensor).get_dtype() for tensor in tensors.keys()}
        for tensor, kind in kinds.items():
            if kind.startswith(("F8", "F6", "F4")) or (kind not in FLOATS and tensor.endswith("weight")):
                found = f"it is quantised ({tensor} is {kind})"
                raise unusable(
                    name, found, "weights of 16 or 32 bits", "take the model that is not quantised"
                )


def _shards(folder: Path, index: str, name: str) -> list[str]:
    """Return the sorted files of an index. Raises SetupError where it is no index."""
    if not (folder / index).is_file():
        raise unusable(name, f"no file {SINGLE} in {folder}", "weights as safetensors", _advice(folder))
    try:
        values = json.loads((folder / index).read_text(encoding="utf-8"))
        files = {str(file) for file in values["weight_map"].values()}
        values["metadata"]  # transformers needs it
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{index}: {one_line(error)}"
        raise unusable(
            name, found, "an index with metadata and weight_map", "copy the model again"
        ) from error
    return sorted(files)


def _advice(folder: Path) -> str:
    """Return the remedy for a missing file of a causal LM."""
    names = sorted(path.name for path in folder.iterdir())
    gguf = next((name for name in names if name.endswith(".gguf")), None)
    if gguf:
        return f"set llm.model to {folder / gguf}"
    if "adapter_config.json" in names:
        return "merge the adapter into its model, and save that"
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        return "save the model as safetensors (pickled weights are not read)"
    found = [name for name in names if name.endswith(".safetensors")]
    return "copy the model again" + (f" (there are {in_words(found)})" if found else "")
