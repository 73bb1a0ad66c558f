"""Loading of a causal LM and its tokenizer from a folder.

Only safetensors are read. Pickled weights and code of a model never run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from allmrec.llm.load_report import in_words, load_with_info, not_finite, outside, what_does_not_fit
from allmrec.llm.model_folder import quiet_transformers
from allmrec.llm.refusal import refusing, unusable
from allmrec.llm.weight_files import read_config

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
FAMILIES = "take a model of the OPT, Llama, Qwen2 or GPT-2 family"
SAMPLE = "a red tent"
"""A text that every tokenizer can read."""


def load_folder(
    folder: Path, name: str, device: torch.device, dtype: torch.dtype, report: Callable[[str], None]
) -> tuple[Any, Any]:
    """Return the model in `folder`, on its device, and its tokenizer.

    Tensors outside of the language model are reported. Raises SetupError, naming the model `name`, where the
    files are not those of a complete causal LM, or have NaN.
    """
    import transformers

    _require_causal(folder, name)
    again = "copy the model again, with its config.json and tokenizer"
    with refusing(name, "tokenizer", "one that transformers reads", again), quiet_transformers():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
    with refusing(name, "weights", "those of a whole causal LM", again), quiet_transformers():
        model, loading = load_with_info(
            folder,
            use_safetensors=True,
            attn_implementation="sdpa",
            dtype=dtype,
            device_map={"": device},  # straight from the files: no copy in the host's memory
            **LOCAL,
        )
    misfit = what_does_not_fit(model, loading)
    if misfit is not None:
        raise unusable(name, misfit.found, "all weights of a causal LM", misfit.advice)
    _require_no_adapter(model, name)
    _require_finite(model, name)
    _require_tokens(tokenizer, model, name)
    beside = outside(model, loading)
    if beside:
        report(f"llm: tensors of {name} that are no part of the LM are not used: {in_words(beside)}")
    if (folder / "adapter_config.json").exists():
        report(f"llm: the adapter in {name} is not used; to use it, merge it into the model")
    return model, tokenizer


def eos_of(tokenizer: Any, model: Any, name: str) -> int:
    """Return the id of end-of-sequence: the tokenizer's, else the first in config.json.

    Raises SetupError, naming the model `name`, where both lack it.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        eos = getattr(model.config.get_text_config(), "eos_token_id", None)
    if isinstance(eos, list):
        eos = eos[0] if eos else None
    if eos is None:
        expected = "eos_token in tokenizer_config.json, or eos_token_id in config.json"
        raise unusable(name, "it has no token for the end of a text", expected, f"add it, or {FAMILIES}")
    return int(eos)


def _require_tokens(tokenizer: Any, model: Any, name: str) -> None:
    """Raise SetupError where the tokenizer reads no text, or tokens lack embeddings.

    Added tokens need none, because they are read as plain text.
    """
    plain = set(tokenizer(SAMPLE, add_special_tokens=False)["input_ids"])
    if not plain - {tokenizer.unk_token_id}:
        raise unusable(
            name,
            "its tokenizer finds no tokens in a text",
            "the files of its tokenizer beside the weights",
            "copy the model again, tokenizer.json included",
        )
    parts = (model.get_input_embeddings(), model.get_output_embeddings())
    num_rows = min(part.weight.shape[0] for part in parts)
    added = set(tokenizer.added_tokens_decoder)
    used = {number for number in tokenizer.get_vocab().values() if number not in added}
    used |= {eos_of(tokenizer, model, name), *(set(tokenizer(SAMPLE)["input_ids"]) - plain)}
    without = [number for number in (min(used), max(used)) if not 0 <= number < num_rows]
    if without:
        raise unusable(
            name,
            f"its embedding has {num_rows:,} rows, and none for token {without[0]:,} of its tokenizer",
            "a tokenizer and weights that belong together",
            "copy both from one model",
        )


def _require_causal(folder: Path, name: str) -> None:
    """Raise SetupError where config.json is not that of a usable causal LM."""
    import transformers

    values = read_config(folder, name)
    kind = values["model_type"]
    quantised = values.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise unusable(
            name,
            f"it is quantised: {method}",
            "weights of 16 or 32 bits",
            "take the model that is not quantised",
        )
    if values.get("is_encoder_decoder"):
        raise unusable(name, f"{kind} is an encoder with a decoder", "a causal LM", FAMILIES)
    with refusing(name, "config.json", "that of a causal LM without remote code", FAMILIES):
        config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
    known = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in known:
        raise unusable(name, f"{kind} is no causal LM of transformers", "a causal LM", FAMILIES)
    if not getattr(known[type(config)], "_supports_sdpa", True):
        found = f"transformers has no SDPA attention for {kind}"
        raise unusable(name, found, "an architecture that takes a mask per pair of tokens", FAMILIES)


def _require_no_adapter(model: Any, name: str) -> None:
    """Raise SetupError where transformers, by peft, merged the folder's adapter."""
    if getattr(model, "_hf_peft_config_loaded", False):
        found = (
            "peft put the adapter of adapter_config.json into it, which the hash of its weights leaves out"
        )
        raise unusable(name, found, "a model alone", "merge the adapter into the model, or move it away")


def _require_finite(model: Any, name: str) -> None:
    """Raise SetupError where a parameter is NaN or infinite."""
    wrong = not_finite(model)
    if wrong:
        number_type = str(model.dtype).removeprefix("torch.")
        raise unusable(
            name,
            f"{len(wrong):,} tensors hold NaN or infinite numbers as {number_type}: {in_words(wrong)}",
            "finite weights",
            "set llm.dtype=bfloat16" if model.dtype == torch.float16 else "copy the model again",
        )
