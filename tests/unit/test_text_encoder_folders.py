"""Folders of sentence encoders: loaded whole, alike in every process, or refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from allmrec.config import TextEncoderConfig
from allmrec.errors import SetupError
from allmrec.llm.model_folder import packaged_file
from allmrec.models.text_encoder import PACKAGED, TextEncoder

Change = Callable[[Path], object]
WEIGHTS = "model.safetensors"
TEXTS = ["Title: red shoe", "Title: blue tent, Description: for two"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    modules = packaged_file(PACKAGED, "model/modules.json")
    assert modules is not None
    return Path(shutil.copytree(modules.parent, tmp_path / "encoder"))


def load(folder: Path) -> TextEncoder:
    return TextEncoder.load(TextEncoderConfig(model=str(folder)), folder.parent / "cache")


def tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Change:
    """Change the tensors of model.safetensors."""

    def changed(folder: Path) -> None:
        after = {name: tensor.clone() for name, tensor in change(load_file(folder / WEIGHTS)).items()}
        save_file(after, folder / WEIGHTS, {"format": "pt"})

    return changed


def lacking(part: str) -> Change:
    return tensors(lambda weights: {name: value for name, value in weights.items() if part not in name})


def config(**values: object) -> Change:
    def changed(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")

    return changed


def written(file: str, content: bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(content)


def without(*files: str) -> Change:
    def changed(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return changed


WORDS = "embeddings.word_embeddings.weight"
NORM = "encoder.layer.0.output.LayerNorm.weight"
REFUSED: dict[str, tuple[Change, str]] = {
    "torch.compile": (
        tensors(lambda weights: {f"_orig_mod.{name}": value for name, value in weights.items()}),
        r"the files lack .*no name begins with _orig_mod\.",
    ),
    "a layer is missing": (lacking("layer.3."), r"lack 16 of its \d+ tensors: encoder\.layer\.3\."),
    "a norm is missing": (lacking(NORM), rf"lack 1 of its \d+ tensors: {NORM}"),
    "a layer and the pooler are missing": (
        lambda folder: [lacking("layer.3.")(folder), lacking("pooler.")(folder)],
        r"lack 18 of its \d+ tensors: encoder\.layer\.3\.",
    ),
    "config.json has fewer layers": (config(num_hidden_layers=5), r"no place for: encoder\.layer\.5\."),
    "config.json is wider": (config(hidden_size=768), r"\[384\] in the files and \[768\] by config\.json"),
    "NaN": (
        tensors(lambda weights: weights | {NORM: weights[NORM] * torch.nan}),
        rf"1 tensors hold NaN or infinite numbers: {NORM}",
    ),
    "cut": (written(WEIGHTS, b"cut"), "cannot be loaded"),
    "a pointer of git-lfs": (
        written(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        r"model\.safetensors is a pointer of git-lfs.*git lfs pull",
    ),
    "a pooling that is cut": (written("1_Pooling/config.json", b"{"), "cannot be loaded"),
    "modules that are cut": (written("modules.json", b"["), "cannot be loaded"),
    "modules of another kind": (written("modules.json", b"3"), "cannot be loaded"),
    "a tokenizer of another library": (written("tokenizer.json", b'{"model": 3}'), "cannot be loaded"),
    "no tokenizer": (
        without("tokenizer.json", "vocab.txt", "tokenizer_config.json"),
        "it embeds different texts alike.*with its tokenizer",
    ),
    "the tokenizer of a larger model": (
        lambda folder: [
            tensors(lambda weights: weights | {WORDS: weights[WORDS][:30000]})(folder),
            config(vocab_size=30000)(folder),
        ],
        "token 30,521 of its tokenizer has no row",
    ),
    "images": (config(model_type="vit"), "cannot be loaded"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_folder_that_is_no_whole_encoder_is_refused_in_one_line(case: str, folder: Path) -> None:
    change, words = REFUSED[case]
    change(folder)
    with pytest.raises(SetupError, match=words) as error:
        load(folder)
    assert str(error.value).startswith(f"text_encoder.model: {folder}")
    assert "\n" not in str(error.value)


def test_an_encoder_without_its_pooler_is_the_same_in_every_process(folder: Path, tmp_path: Path) -> None:
    whole = load(folder).compute(TEXTS)
    lacking("pooler.")(folder)
    one, two = load(folder), load(folder)
    assert np.allclose(one.compute(TEXTS), whole, atol=1e-6)
    assert one.content_hash == two.content_hash
    one.save(tmp_path / "saved")
    assert load(tmp_path / "saved").content_hash == one.content_hash


def test_a_blank_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"^text_encoder\.model: an empty text, expected"):
        TextEncoder.load(TextEncoderConfig(model=" "), tmp_path)
