"""The configuration: bad keys and values are refused by their path, overlays win in order."""

from pathlib import Path

import pytest

from allmrec.config import Config, fingerprint, load, reference
from allmrec.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scoring.top_k=0", "scoring.top_k: 0, expected an integer ≥ 1"),
        ("scoring.top_k=true", "scoring.top_k: true, expected an integer ≥ 1"),
        ("scoring.top_k=2.5", "scoring.top_k: 2.5, expected an integer ≥ 1"),
        ("cf.dropout=1.5", "cf.dropout: 1.5, expected a number from 0 to 1"),
        ("cf.learning_rate=fast", 'cf.learning_rate: "fast", expected a number > 0'),
        (
            "scoring.order=random",
            'scoring.order: "random", expected one of auto, blend, without_llm, llm, cf',
        ),
        ("stage2.max_examples=0", "stage2.max_examples: 0, expected an integer ≥ 1 or null"),
        (
            "candidates.text_quota=30",
            "candidates.text_quota: 30, expected at most candidates.num_candidates (20)",
        ),
        ("scoring.topk=3", "scoring.topk: unknown key, expected one of active_within_days"),
        ("nothing.top_k=3", "nothing: unknown key, expected one of candidates, cf"),
        ("scoring=3", "scoring: 3, expected a mapping of settings"),
        ("training.blend_parts=[]", "training.blend_parts: [], expected a list of one or more of cf, text,"),
        ("training.blend_parts=[cf, cf]", "training.blend_parts: cf, cf, expected none twice"),
        (
            "evaluation.protocols=[popular, popular]",
            "evaluation.protocols: popular, popular, expected none twice",
        ),
        (
            "training.blend_parts=[cf, age]",
            'training.blend_parts: "age", expected a list of one or more of cf,',
        ),
        (
            "tables.items={table: shop.products, path: products}",
            "tables.items.path: products, beside tables.items.table: shop.products; expected one of both",
        ),
        ("tables.items.columns=[sku]", 'tables.items.columns: ["sku"], expected a mapping'),
        ("scoring.top_k", "--set scoring.top_k: expected section.key=value"),
    ],
)
def test_a_bad_setting_is_refused_with_its_path(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load([], [override])
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_later_files_win_and_overrides_win_over_all(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("scoring: {top_k: 3, token_budget: 100}\n")
    (tmp_path / "b.yaml").write_text("scoring: {top_k: 4}\n")
    config = load([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["cf.learning_rate=1e-4"])
    assert (config.scoring.top_k, config.scoring.token_budget, config.cf.learning_rate) == (4, 100, 1e-4)
    assert load([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["scoring.top_k=5"]).scoring.top_k == 5


@pytest.mark.parametrize("name", ["1234567890123e45", "1234567890123456", "true", "0x12"])
def test_a_text_that_looks_like_a_number_stays_the_text_that_was_set(name: str) -> None:
    assert load([], [f"scoring.bundle_id={name}"]).scoring.bundle_id == name
    assert load([], ["scoring.bundle_id=null"]).scoring.bundle_id is None


@pytest.mark.parametrize(
    "text", ["- a list\n", "scoring: [unclosed\n", "!!python/object/apply:os.getcwd []\n"]
)
def test_a_file_that_is_no_plain_mapping_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load([tmp_path / "bad.yaml"])


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load([tmp_path / "nowhere.yaml"])


def test_the_configuration_cannot_be_changed_after_it_was_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().scoring.top_k = 3


def test_a_fingerprint_follows_content_and_not_order() -> None:
    assert fingerprint(a=Config().scoring, b=1) == fingerprint(b=1, a=Config().scoring)
    assert fingerprint(a=Config().scoring) != fingerprint(a=load([], ["scoring.top_k=9"]).scoring)


def test_the_reference_has_every_setting_once_and_in_words() -> None:
    rows = [line.split(" | ") for line in reference().splitlines()[2:]]
    paths = [row[0].removeprefix("| ").strip("`") for row in rows]
    assert len(set(paths)) == len(paths) == len(rows)
    assert {"seed", "importing.columns.user_id", "training.blend_parts", "spark.settings"} <= set(paths)
    assert all(row[-1].removesuffix(" |").endswith(".") for row in rows)
    allowed = dict(zip(paths, (row[2] for row in rows), strict=True))
    assert allowed["scoring.active_within_days"] == "an integer ≥ 1 or null"
