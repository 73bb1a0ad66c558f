"""The configuration: bad keys and values are refused by their path, overlays win in order."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from allmrec.config import Config, fingerprint, from_dict, load, rare_reference, reference
from allmrec.config.reference import RARELY, fields, is_rare
from allmrec.errors import ConfigError

pytestmark = pytest.mark.reported


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scoring.top_k=0", "scoring.top_k: 0, expected an integer ≥ 1"),
        ("scoring.top_k=true", "scoring.top_k: true, expected an integer ≥ 1"),
        ("scoring.top_k=2.5", "scoring.top_k: 2.5, expected an integer ≥ 1"),
        ("cf.model=bert4rec", 'cf.model: "bert4rec", expected one of sasrec'),
        ("cf.num_heads=0", "cf.sasrec.num_heads: 0, expected an integer ≥ 1"),
        ("cf.dropout=1.5", "cf.dropout: 1.5, expected a number from 0 to 1"),
        ("cf.learning_rate=fast", 'cf.learning_rate: "fast", expected a number > 0'),
        (
            "scoring.order=random",
            'scoring.order: "random", expected one of auto, blend_with_llm, blend_without_llm, cf, llm',
        ),
        ("stage2.max_examples=0", "stage2.max_examples: 0, expected an integer ≥ 1 or null"),
        (
            "candidates.text_quota=30",
            "candidates.text_quota: 30, expected at most candidates.num_candidates (20)",
        ),
        (
            "publish.feed_slots=30",
            "publish.feed_slots: 30, expected at most scoring.top_k (20); set scoring.top_k=30",
        ),
        ("publish.email_slots=21", "publish.email_slots: 21, expected at most scoring.top_k (20);"),
        ("scoring.topk=3", "scoring.topk: unknown key, expected one of active_within_days"),
        ("nothing.top_k=3", "nothing: unknown key, expected one of bundle, cache, candidates, cf"),
        ("scoring=3", "scoring: 3, expected a mapping of settings"),
        ("scoring.order=titles", 'scoring.order: "titles", expected one of auto, blend_with_llm'),
        (
            "training.blend_parts=[]",
            "training.blend_parts: [], expected a list of one or more of popularity, cf,",
        ),
        ("training.blend_parts=[cf, cf]", "training.blend_parts: cf, cf, expected none twice"),
        (
            "evaluation.protocols=[popular, popular]",
            "evaluation.protocols: popular, popular, expected none twice",
        ),
        (
            "training.blend_parts=[cf, age]",
            'training.blend_parts[1]: "age", expected one of popularity, cf, text, alignment, words,',
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


def test_lists_shorter_than_the_default_slots_are_no_mistake() -> None:
    assert load([], ["scoring.top_k=3"]).publish.feed_slots == 10
    with pytest.raises(ConfigError, match=r"publish\.feed_slots: 4, expected at most scoring\.top_k \(3\)"):
        load([], ["scoring.top_k=3", "publish.feed_slots=4"])


def test_later_files_win_and_overrides_win_over_all(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("scoring: {top_k: 3}\nllm: {token_budget: 100}\n")
    (tmp_path / "b.yaml").write_text("scoring: {top_k: 4}\n")
    config = load([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["cf.learning_rate=1e-4"])
    assert (config.scoring.top_k, config.llm.token_budget, config.cf.learning_rate) == (4, 100, 1e-4)
    assert load([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["scoring.top_k=5"]).scoring.top_k == 5


@pytest.mark.parametrize("name", ["1234567890123e45", "1234567890123456", "true", "0x12"])
def test_a_text_that_looks_like_a_number_stays_the_text_that_was_set(name: str) -> None:
    assert load([], [f"bundle.id={name}"]).bundle.id == name
    assert load([], ["bundle.id=null"]).bundle.id is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("tables.root", "/data/shop #2"),
        ("tables.root", "/data/Käse"),
        ("tables.root", "[1]"),
        ("tables.items.where", "title <> 'Box #1'"),
        ("tables.items.where", "amount > 0 #AND amount < 9"),
        ("tables.items.where", "kind = 'a: b'"),
        ("tables.items.where", "`a b` > 1"),
        ("tables.items.where", "!is_test"),
        ("tables.items.where", "'sale' = kind"),
        ("tables.items.where", '"kind" = \'sale\' # or "hire"'),
        ("tables.items.where", "{fn now()} > added"),
        ("importing.category_separator", " > "),
        ("importing.category_separator", "|"),
        ("bundle.id", "0123456701234567"),
        ("scoring.deadline", "10:30"),
        ("llm.model", "@home"),
    ],
)
def test_a_text_set_by_hand_is_the_text_that_was_written(setting: str, value: str) -> None:
    assert value_at(load([], [f"{setting}={value}"]), setting) == value


def value_at(config: Config, setting: str) -> Any:
    """Return a setting by its path."""
    value: Any = config
    for part in setting.split("."):
        value = getattr(value, part)
    return value


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_every_text_that_is_set_by_hand_is_kept_or_is_yaml_in_quotes(text: str) -> None:
    if text in ("~", "null", "Null", "NULL"):
        return
    root = load([], [f"tables.root={text}"]).tables.root
    assert root == text or (text[0] == text[-1] and text[0] in "'\"" and root == yaml.safe_load(text))


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_every_text_of_a_file_is_what_another_reader_of_yaml_finds(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(yaml.safe_dump({"tables": {"root": text}, "sequences": {"event_types": [text]}}))
    config = load([path])
    assert (config.tables.root, config.sequences.event_types) == (text, (text,))


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "conf").glob("*.yaml")))
def test_a_shipped_file_is_what_another_reader_of_yaml_finds(path: Path) -> None:
    assert load([path]) == from_dict(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("text", "setting", "value"),
    [
        ("scoring: {deadline: 10:30}", "scoring.deadline", "10:30"),
        ("scoring: {deadline: 05:30}", "scoring.deadline", "05:30"),
        ("bundle: {id: 0123456701234567}", "bundle.id", "0123456701234567"),
        ("bundle: {id: 1234567890123e45}", "bundle.id", "1234567890123e45"),
        ("sequences: {event_types: [view, no, buy]}", "sequences.event_types", ("view", "no", "buy")),
        (
            "sequences:\n  event_types:\n  - on\n  - 1.0\n  - 2026-06-01\n  - 1:30",
            "sequences.event_types",
            ("on", "1.0", "2026-06-01", "1:30"),
        ),
        (
            "spark: {settings: {spark.executor.cores: 4, spark.ui.enabled: true, spark.x: 010}}",
            "spark.settings",
            {"spark.executor.cores": "4", "spark.ui.enabled": "true", "spark.x": "010"},
        ),
        (
            "tables: {items: {columns: {item_id: 17, title: yes}}}",
            "tables.items.columns",
            {"item_id": "17", "title": "yes"},
        ),
        ("importing: {columns: {rating: [5, no]}}", "importing.columns.rating", ("5", "no")),
        ("scoring: {top_k: 012, deadline: ~, llm_candidates: null}", "scoring.top_k", 12),
        ("llm: {token_budget: 10_000}", "llm.token_budget", 10000),
        ("candidates: {exclude_seen: False}", "candidates.exclude_seen", False),
        ("cf: {learning_rate: 1e-4}", "cf.learning_rate", 1e-4),
        ("training: {max_users: null}", "training.max_users", None),
        ("tables: {root: /data/shop # ours\n}", "tables.root", "/data/shop"),
        ("\ufeffseed: 5", "seed", 5),
        ("# nothing", "seed", 20261121),
    ],
)
def test_a_scalar_of_a_file_is_read_as_the_type_of_its_setting(
    tmp_path: Path, text: str, setting: str, value: object
) -> None:
    (tmp_path / "a.yaml").write_text(f"{text}\n", encoding="utf-8")
    assert value_at(load([tmp_path / "a.yaml"]), setting) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "{}: a list, expected a mapping of sections"),
        ("a text", "{}: a text, expected a mapping of sections"),
        ("scoring: [unclosed", "{}: not valid YAML (line 2, column 1: expected ',' or ']'"),
        ("!!python/object/apply:os.getcwd []", "{}: line 1: a tag (!)"),
        ("seed: !!int 3", "{}: line 1: a tag (!)"),
        ("seed: 1\nscoring:\n\ttop_k: 3", "{}: not valid YAML (line 3, column 1: found character '\\t'"),
        ("scoring: {top_k: 3}\nseed: 3\nscoring: {order: cf}", "{}: line 3: the key scoring is there twice"),
        ("spark:\n  settings:\n    spark.a: 1\n    spark.a: 2", "{}: line 4: the key spark.a is there twice"),
        ("seed: 1\n---\nseed: 2", "{}: line 2: a second document begins (---), expected one"),
        ("seed: &here 3", "{}: line 1: an anchor (&) or alias (*)"),
        ("base: &base {top_k: 3}\nscoring:\n  <<: *base", "{}: line 1: an anchor (&) or alias (*)"),
        ("scoring:\n  <<: {top_k: 3}", "{}: line 2: a merge key (<<)"),
        ("? [a]\n: b", "{}: line 1: a mapping or list as a key"),
        (f"seed: {'[' * 40}{']' * 40}", "{}: line 1: nested more than 20 levels deep"),
        ("seed: 1\0", "{}: not valid YAML (character 8: special characters are not allowed)"),
        ("tables:\n  root: /data/shop #2", "tables.root: the text is cut at a #"),
        ("tables: {items: {where: title <> 'Box #1'\n}}", "tables.items.where: the text is cut at a #"),
        ("bundle: {id: #5\n}", "bundle.id: the text is cut at a #"),
        ("candidates: {exclude_seen: no}", 'candidates.exclude_seen: "no", expected true or false'),
        ("scoring: {top_k: 1:30}", 'scoring.top_k: "1:30", expected an integer ≥ 1'),
        ("scoring: {top_k: '3'}", 'scoring.top_k: "3", expected an integer ≥ 1'),
        (
            "sequences: {event_types: [view, ~]}",
            "sequences.event_types[1]: null, expected a text; put it into",
        ),
        ("sequences: {event_types: view}", 'sequences.event_types: "view", expected a list or null'),
        ("scoring: {deadline: 25:00}", 'scoring.deadline: "25:00", expected a text such as 05:30 or null'),
        ("tables: {root: ''}", 'tables.root: "", expected a text that is not empty'),
        (
            "tables: {items: {columns: {item_id: [a]}}}",
            'tables.items.columns.item_id: ["a"], expected a text',
        ),
        ("sequences: {rating_range: [1, high]}", 'sequences.rating_range[1]: "high", expected a number'),
        ("sequences: {rating_range: [5, 1]}", "sequences.rating_range: [5.0, 1.0], expected the lowest"),
        ("cf: {learning_rate: 1e400}", "cf.learning_rate: Infinity, expected a number > 0"),
        ("seed: -1", "seed: -1, expected an integer ≥ 0"),
        ("scoring.top_k: 3", "scoring.top_k: unknown key, expected one of bundle, cache, candidates, cf,"),
        ("scoring:", "scoring: null, expected a mapping of settings"),
    ],
)
def test_a_file_that_would_lose_or_change_a_value_is_refused_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"{text}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load([path])
    assert str(error.value).startswith(message.format(path))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("tables: {root: Käse}".encode("latin-1"))
    for path, problem in (
        (tmp_path / "nowhere.yaml", "no such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "latin.yaml" / "below", "Not a directory"),
        (tmp_path / "latin.yaml", "byte 17 is not UTF-8"),
        (tmp_path / ("long" * 100), "File name too long"),
    ):
        with pytest.raises(ConfigError) as error:
            load([path])
        assert str(error.value).startswith(f"{path}: {problem}")
        assert "\n" not in str(error.value)


def test_a_section_that_is_no_mapping_is_refused_also_under_a_later_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("scoring: 3\n")
    with pytest.raises(ConfigError, match="scoring: 3, expected a mapping of settings"):
        load([tmp_path / "a.yaml"], ["scoring.top_k=4"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.blend_parts=[cf] # or text", "--set training.blend_parts: a # begins a comment in YAML"),
        ("tables.items=path: /data/shop #2", "--set tables.items: a # begins a comment in YAML"),
        ("scoring.top_k=3 # or 4", 'scoring.top_k: "3 # or 4", expected an integer'),
        ("training.blend_parts=[cf", "--set training.blend_parts: not valid YAML (line 1, column 4:"),
        ("tables.items={path: a, path: b}", "--set tables.items: line 1: the key path is there twice"),
        (
            "scoring.top_k = 3",
            "--set scoring.top_k: expected section.key=value, without a blank before the =",
        ),
        ("tables.root=\udcff", "--set tables.root: the value is not UTF-8"),
        ("=3", "--set …: expected section.key=value"),
        ("tables.root=", "tables.root: null, expected a text"),
    ],
)
def test_an_override_that_would_lose_or_change_a_value_is_refused_in_one_line(
    override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load([], [override])
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


SECRET = "HUNTER2"


@pytest.mark.parametrize(
    "override",
    [
        f"spark.settings=[spark.secret.key={SECRET}]",
        f"spark.settings={{spark.secret.key: [{SECRET}]}}",
        f"spark.settings={{spark.secret.key: {{{SECRET}: {SECRET}}}}}",
        f"spark.settings={{spark.secret.key: {SECRET}",
        f'spark.settings={{spark.secret.key: "{SECRET}}}',
        f"spark.settings={{spark.secret.key: pa #{SECRET}\n}}",
        f"spark.settings={{spark.secret.key: !{SECRET}!x }}",
        f"spark.settings={{spark.secret.key: *{SECRET} }}",
        f"spark.settings={{spark.secret.key: %{SECRET} }}",
        f"spark.settings: {{spark.secret.key: {SECRET}==}}",
        f"spark.settings.spark.secret.key:{SECRET}",
        f"spark.settings={SECRET}",
        f"spark={SECRET}",
        f"spark=[{SECRET}]",
        f"spark.setting.spark.secret.key={SECRET}",
        f"sparks={{settings: {{spark.secret.key: {SECRET}}}}}",
        f'spark.settings={{spark.secret.key: "{SECRET}\\ud800"}}',
    ],
)
def test_no_error_quotes_a_value_of_sparks_settings(tmp_path: Path, override: str) -> None:
    (tmp_path / "a.yaml").write_text(override.replace("=", ": ", 1), encoding="utf-8")
    for paths, overrides in (([], [override]), ([tmp_path / "a.yaml"], [])):
        with pytest.raises(ConfigError) as error:
            load(paths, overrides)
        assert SECRET not in str(error.value)
        assert "\n" not in str(error.value)


def test_an_override_without_its_equals_sign_is_not_quoted() -> None:
    with pytest.raises(ConfigError, match=r"^--set spark\.settings: expected section\.key=value$"):
        load([], [f"spark.settings.spark.secret.key {SECRET}="])


def test_a_setting_of_sparks_is_a_text_by_its_own_key_or_in_a_mapping() -> None:
    by_key = load([], ["spark.settings.spark.executor.cores=4", "spark.settings.spark.a=x #1"])
    assert by_key.spark.settings == {"spark.executor.cores": "4", "spark.a": "x #1"}
    assert load([], ["spark.settings={spark.executor.cores: 4}"]).spark.settings == {
        "spark.executor.cores": "4"
    }


def test_the_configuration_cannot_be_changed_after_it_was_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().scoring.top_k = 3


def test_a_fingerprint_follows_content_and_not_order() -> None:
    assert fingerprint(a=Config().scoring, b=1) == fingerprint(b=1, a=Config().scoring)
    assert fingerprint(a=Config().scoring) != fingerprint(a=load([], ["scoring.top_k=9"]).scoring)


def test_the_reference_has_every_setting_once_and_in_words() -> None:
    lines = [*reference().splitlines()[2:], *rare_reference().splitlines()[2:]]
    rows = [line.split(" | ") for line in lines]
    paths = [row[0].removeprefix("| ").strip("`") for row in rows]
    assert len(set(paths)) == len(paths) == len(rows)
    assert {"seed", "importing.columns.user_id", "training.blend_parts", "spark.settings"} <= set(paths)
    assert all(row[-1].removesuffix(" |").endswith(".") for row in rows)
    allowed = dict(zip(paths, (row[2] for row in rows), strict=True))
    assert allowed["scoring.active_within_days"] == "an integer ≥ 1 or null"


def test_what_is_rarely_changed_is_named_once_and_is_a_setting_or_a_section() -> None:
    paths = [path for path, _ in fields()]
    names = [f"{section}.{key}" for section, keys in RARELY.items() for key in keys]
    assert len(set(names)) == len(names)
    for name in names:
        assert any(path == name or path.startswith(f"{name}.") for path in paths), name
    assert 0 < sum(is_rare(path) for path in paths) < len(paths)
