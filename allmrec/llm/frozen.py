"""The frozen LLM: any Hugging Face causal LM, from embeddings to scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from allmrec.config import LLMConfig
from allmrec.errors import SetupError
from allmrec.llm.loading import FAMILIES, eos_of, load_folder
from allmrec.llm.model_folder import model_folder
from allmrec.llm.refusal import refusing, unusable
from allmrec.llm.weight_files import weight_hash_of

UNLIMITED_POSITIONS = 1 << 30
"""The limit of models without one."""
PROBE = ("Bought together: a", " b c d", " e f g")
"""A prompt and two answers for the check of multi-item scoring."""


class FrozenLLM:
    """A causal LM in eval mode with frozen parameters.

    Its input embeddings take gradients. `model` is any `PreTrainedModel` with a language-model head; `name`
    and `weight_hash` identify it. H is its width, V the size of its vocabulary.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, weight_hash: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.weight_hash = weight_hash
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self._embedding = model.get_input_embeddings()
        self._head = model.get_output_embeddings()
        self.width: int = self._embedding.embedding_dim
        self.vocab_size: int = self._head.weight.shape[0]
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.max_positions: int = limit or UNLIMITED_POSITIONS
        self.eos_id = eos_of(tokenizer, model, name)
        self._added_tokens = {
            token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items()
        }

    @classmethod
    def load(
        cls, settings: LLMConfig, cache: Path, report: Callable[[str], None] = lambda line: None
    ) -> FrozenLLM:
        """Load the LLM of `settings`. `cache` is the folder of `allmrec.cache.cache_folder`.

        Raises SetupError where it is missing, has no safetensors, is incomplete, cannot be loaded, or does
        not score several answers in one pass exactly.
        """
        folder = model_folder(settings, cache, report)
        name = settings.model
        weight_hash = weight_hash_of(folder, name, cache)
        device = device_of(settings)
        model, tokenizer = load_folder(folder, name, device, _dtype(settings.dtype, device), report)
        with refusing(name, "first use", "a model that scores several candidates in one pass", FAMILIES):
            llm = cls(model, tokenizer, name, weight_hash)
            llm.check_multi_item()
        return llm

    @cached_property
    def bos_ids(self) -> list[int]:
        """The ids that the tokenizer puts before a text by default."""
        plain = self.tokenise("a")
        default = self.tokenizer("a")["input_ids"]
        return default[: default.index(plain[0])]

    @cached_property
    def token_norm(self) -> float:
        """Mean L2 norm of the token embeddings that are not zero."""
        norms = torch.linalg.vector_norm(self._embedding.weight.float(), dim=1)
        return float(norms[norms > 0].mean())

    def tokenise(self, text: str) -> list[int]:
        """Return the ids of `text` as plain text, without special tokens."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        added = set(self._added_tokens.values())
        if added.isdisjoint(ids):
            return ids
        # `split_special_tokens` misses added tokens that are not marked special. Their text is cut inside.
        for content in sorted(self._added_tokens, key=len, reverse=True):
            start = text.find(content)
            if start >= 0 and len(content) > 1:
                return self.tokenise(text[: start + 1]) + self.tokenise(text[start + 1 :])
        return [token_id for token_id in ids if token_id not in added]

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; a tokenizer of bytes inverts `tokenise`."""
        decoded = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(decoded)

    def token_embeddings(self, ids: Tensor) -> Tensor:
        """Return the input embeddings [..., H] of token ids [...] (int64)."""
        return self._embedding(ids)

    @property
    def num_layers(self) -> int:
        """Blocks of the LLM."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    def states_of_layer(self, ids_BT: Tensor, layer: int) -> Tensor:
        """Return the hidden states [B, T, H] after a layer (from 1).

        They have the LLM's dtype. `ids_BT` are token ids [B, T] int64, padded on the right, because every
        token sees only earlier ones.
        """
        output = self.model.base_model(input_ids=ids_BT, output_hidden_states=True, use_cache=False)
        return output.hidden_states[layer]

    def hidden(self, inputs_embeds_BTH: Tensor, mask_B1TT: Tensor, position_ids_BT: Tensor) -> Tensor:
        """Return the last hidden states [B, T, H], in the LLM's dtype.

        | input | shape |
        |---|---|
        | inputs_embeds_BTH | [B, T, H] in the LLM's dtype |
        | mask_B1TT | [B, 1, T, T] in the LLM's dtype, added to the attention scores |
        | position_ids_BT | [B, T] int64, from 0 |

        In the mask, 0 lets a token (third axis) see another one (fourth axis); the dtype's lowest value hides
        it.
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

    def generate(
        self, inputs_embeds_1TH: Tensor, max_new_tokens: int, repetition_penalty: float = 1.0
    ) -> list[int]:
        """Return the greedy continuation of a prompt (embeddings [1, T, H]).

        The result is the new token ids, at most `max_new_tokens`. The penalty (Keskar et al. 2019) divides
        the logits of tokens that were written before.
        """
        import transformers

        settings = transformers.GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            repetition_penalty=repetition_penalty,
            eos_token_id=self.eos_id,
            pad_token_id=self.eos_id,
        )
        no_padding_1T = torch.ones(inputs_embeds_1TH.shape[:2], dtype=torch.long, device=self.device)
        output = self.model.generate(
            inputs_embeds=inputs_embeds_1TH, attention_mask=no_padding_1T, generation_config=settings
        )
        return output[0].tolist()

    @torch.inference_mode()
    def check_multi_item(self) -> None:
        """Raise SetupError where two answers in one row change their scores.

        Some models ignore a 4-D mask or position ids (ALiBi), or change logits after the head. Their scores
        would be wrong without an error.
        """
        prompt, first, second = (self.tokenise(text) for text in PROBE)
        start = len(prompt)
        end = len(prompt) + len(first)
        embeddings = self.token_embeddings(torch.tensor([[*prompt, *first, *second]], device=self.device))
        without_first = torch.cat([embeddings[:, :start], embeddings[:, end:]], dim=1)
        alone = self.model(inputs_embeds=without_first).logits[0, -1]
        if not torch.isfinite(alone).all():
            found = f"its logits are NaN or infinite as {str(self.dtype).removeprefix('torch.')}"
            raise unusable(self.name, found, "finite ones", "set llm.dtype=bfloat16 or float32")
        causal = self.model(inputs_embeds=embeddings).logits[0, -1]
        packed = self._logits_beside(embeddings, start, end)
        error, unmasked = ((one - alone.float()).abs().max().item() for one in (packed, causal.float()))
        exact = self.dtype == torch.float32
        # In 16 bits rounding hides small errors, so that the error is compared with that without a mask.
        tolerance = 1e-3 * max(1.0, alone.abs().max().item()) if exact else 0.3 * unmasked
        if not error <= tolerance:
            raise SetupError(
                f"llm.model: {self.name} cannot score several candidates in one pass "
                f"(logits differ by {error:.2g}); {FAMILIES}"
            )

    def _logits_beside(self, embeddings_1TH: Tensor, start: int, end: int) -> Tensor:
        """Return the last token's logits [V] float32, without tokens [start, end).

        Later tokens take positions from `start` on, as if the hidden ones were missing. The logits are
        infinite if the architecture takes no position ids.
        """
        length = embeddings_1TH.shape[1]
        allowed_TT = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()
        allowed_TT[end:, start:end] = False
        mask_11TT = torch.zeros(1, 1, length, length, dtype=self.dtype, device=self.device)
        mask_11TT.masked_fill_(~allowed_TT, torch.finfo(self.dtype).min)
        positions_1T = torch.tensor([[*range(end), *range(start, start + length - end)]], device=self.device)
        try:
            return self.logits(self.hidden(embeddings_1TH, mask_11TT, positions_1T))[0, -1]
        except TypeError:
            return torch.full((self.vocab_size,), torch.inf, device=self.device)


def llm_weight_hash(
    settings: LLMConfig, cache: Path, report: Callable[[str], None] = lambda line: None
) -> str:
    """Return the hash of the LLM's weights without loading it. Downloads a missing LLM.

    Raises SetupError where the LLM is missing or has no safetensors.
    """
    return weight_hash_of(model_folder(settings, cache, report), settings.model, cache)


def resolved_dtype(settings: LLMConfig, on_gpu: bool | None = None) -> str:
    """Return the number type of `llm.dtype`, with `auto` resolved.

    `on_gpu`: the LLM will compute on a GPU; None: as on this machine.
    """
    if settings.dtype != "auto":
        return settings.dtype
    is_cuda = on_gpu or settings.device.startswith("cuda")  # a GPU of the workers, which the driver may lack
    device = torch.device("cuda") if is_cuda else device_of(settings)
    return str(_dtype("auto", device)).removeprefix("torch.")


def device_of(settings: LLMConfig) -> torch.device:
    """Return the device of `llm.device` on this machine.

    Raises SetupError where the device is a GPU and torch finds none.
    """
    if settings.device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise SetupError(f"llm.device: {settings.device}, but torch finds no GPU; set llm.device=auto")
    return torch.device(settings.device)


def _dtype(setting: str, device: torch.device) -> torch.dtype:
    """Return the dtype of a setting. `auto` is bfloat16 if the device supports it."""
    if setting != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[setting]
    if device.type == "cuda":
        return torch.bfloat16
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32
