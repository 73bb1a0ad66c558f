"""Tiny random LLMs with a real byte-level BPE tokenizer, saved as folders like any Hugging Face model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

torch.set_num_threads(
    1
)  # tiny matrices: two threads only wait for each other, ten times as long on a busy machine

WORDS = (
    "Bought together: steel water bottle; wool hiking socks; camping tent for two; warm sleeping bag. "
    "This user has bought watched played "
    "in the previous. Recommend one next item movie game for this user to buy watch play next "
    'from the following title set, "red" "blue". '
    "The recommendation is a user representation. trail running shoes folding chair gas stove "
    "head torch rain jacket blue red green black"
)


def make_tiny_llm(
    folder: Path,
    family: str = "llama",
    hidden: int = 32,
    vocab: int = 400,
    max_positions: int = 512,
    seed: int = 0,
) -> Path:
    """Save a random two-layer causal LM with its tokenizer into `folder` and return `folder`.

    `family` is llama, opt, qwen2 or gpt2.

    Weights are drawn wider than at initialisation, so that log-probabilities differ by nats. OPT and Llama
    begin a text with a BOS token, the others do not, as in the real families.
    """
    tokenizer = _tokenizer(vocab, with_bos=family in ("opt", "llama"))
    size = len(tokenizer)
    common: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    llama: dict[str, Any] = dict(
        vocab_size=size, hidden_size=hidden, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    llama |= dict(
        intermediate_size=2 * hidden, max_position_embeddings=max_positions, tie_word_embeddings=True
    )
    config = {
        "llama": lambda: LlamaConfig(**llama, **common),
        "qwen2": lambda: Qwen2Config(**llama, **common),
        "opt": lambda: OPTConfig(
            vocab_size=size,
            hidden_size=hidden,
            word_embed_proj_dim=hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=2 * hidden,
            max_position_embeddings=max_positions,
            **common,
        ),
        "gpt2": lambda: GPT2Config(
            vocab_size=size, n_embd=hidden, n_layer=2, n_head=4, n_positions=max_positions, **common
        ),
    }[family]()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(vocab: int, with_bos: bool) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([WORDS], trainer)
    if with_bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
