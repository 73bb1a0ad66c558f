"""Folders and files of LLMs: the LLM that is hashed is the one that scores, or it is refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
    safetensors_conversion,
)

from allmrec.config import LLMConfig
from allmrec.errors import SetupError
from allmrec.llm import loading, model_folder
from allmrec.llm.frozen import FrozenLLM, llm_weight_hash
from allmrec.llm.load_report import load_with_info
from tests.tiny_models import make_tiny_llm

pytestmark = pytest.mark.reported

Change = Callable[[Path], object]
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 123\n"


def settings(model: object, **more: str) -> LLMConfig:
    values = {"model": str(model), "device": "cpu", "dtype": "float32"}
    return LLMConfig.model_validate(values | more)


def last_logits(llm: FrozenLLM) -> Tensor:
    """The logits after three tokens of a text."""
    with torch.no_grad():
        embeddings = llm.token_embeddings(torch.tensor([[5, 6, 7]]))
        return llm.logits(llm.hidden(embeddings, torch.zeros(1, 1, 3, 3).triu(1), torch.arange(3)[None]))[
            0, -1
        ]


def tensors(change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> Change:
    """Change the tensors of model.safetensors."""

    def changed(folder: Path) -> None:
        after = {name: tensor.clone() for name, tensor in change(load_file(folder / WEIGHTS)).items()}
        save_file(after, folder / WEIGHTS, {"format": "pt"})

    return changed


def keys(file: str, **values: object) -> Change:
    """Change keys of a JSON file."""

    def changed(folder: Path) -> None:
        path = folder / file
        after = json.loads(path.read_text(encoding="utf-8")) | values
        path.write_text(json.dumps(after), encoding="utf-8")

    return changed


def config(**values: object) -> Change:
    return keys("config.json", **values)


def written(file: str, content: str) -> Change:
    return lambda folder: (folder / file).write_text(content, encoding="utf-8")


def renamed(file: str, to: str) -> Change:
    return lambda folder: (folder / file).rename(folder / to)


def without(*files: str) -> Change:
    def changed(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return changed


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def sharded(folder: Path) -> None:
    """Split model.safetensors into shards."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="20KB")


def model_of(kind: Any, values: Any) -> Change:
    """Put another model's config and weights beside the tokenizer."""

    def changed(folder: Path) -> None:
        without("config.json", WEIGHTS, "generation_config.json")(folder)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            kind(values).save_pretrained(folder)

    return changed


def renaming(prefix: str) -> Change:
    return tensors(lambda weights: {f"{prefix}{name}": tensor for name, tensor in weights.items()})


def lacking(part: str) -> Change:
    return tensors(lambda weights: {name: value for name, value in weights.items() if part not in name})


def holding(**more: Tensor) -> Change:
    """Add tensors, in whose names a double underscore stands for a dot."""
    return tensors(lambda weights: weights | {name.replace("__", "."): value for name, value in more.items()})


def typed(dtype: torch.dtype) -> Change:
    """Store the weights of the linear layers as another type, as a quantised model does."""
    return tensors(
        lambda weights: {
            name: (value * 10).to(dtype) if "proj" in name else value for name, value in weights.items()
        }
    )


def with_nan(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    weights["model.embed_tokens.weight"][3, 3] = torch.nan
    return weights


def smaller_vocabulary(folder: Path) -> None:
    tensors(lambda weights: weights | {name: weights[name][:300] for name in ["model.embed_tokens.weight"]})(
        folder
    )
    config(vocab_size=300)(folder)


def with_a_new_end(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"eos_token": "<|new|>"})
    tokenizer.save_pretrained(folder)


def of_index(change: Callable[[dict[str, Any]], Any]) -> Change:
    def changed(folder: Path) -> None:
        sharded(folder)
        values = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        (folder / INDEX).write_text(json.dumps(change(values)), encoding="utf-8")

    return changed


def second_shard(change: Callable[[Path], object]) -> Change:
    return both(sharded, lambda folder: change(next(folder.glob("model-00002-*"))))


SMALL: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA_LIKE: dict[str, Any] = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 64}
BERT = BertConfig(**SMALL, intermediate_size=64, max_position_embeddings=128)
T5 = T5Config(vocab_size=400, d_model=32, d_ff=64, num_layers=2, num_heads=4, d_kv=8)
NORM, FIRST, QUERY = "model.norm.weight", "model.layers.0", "model__layers__0__self_attn__q_proj"

REFUSED: dict[str, tuple[Change, str]] = {
    "torch.compile": (
        renaming("_orig_mod."),
        r"lack 21 of its 21 .*; they hold _orig_mod\..*no name begins with _orig_mod\.",
    ),
    "DDP": (renaming("module."), r"the files lack 21 of its 21 tensors: .*no name begins with module\."),
    "LoRA": (renaming("base_model.model."), r"no name begins with base_model\.model\."),
    "another wrapper": (renaming("net.inner."), r"no name begins with net\.inner\."),
    "two sets of weights": (
        tensors(lambda weights: weights | {f"module.{name}": value for name, value in weights.items()}),
        r"no place for: module\..*no name begins with module\.",
    ),
    "a layer is missing": (lacking("layers.1."), r"the files lack 9 of its 21 tensors: model\.layers\.1\."),
    "a norm is missing": (lacking(NORM), r"the files lack 1 of its 21 tensors: model\.norm\.weight"),
    "no head and no tie": (config(tie_word_embeddings=False), r"lack 1 of its 21 tensors: lm_head\.weight"),
    "no tensors at all": (lacking(""), "the files lack 21 of its 21 tensors"),
    "config.json has more layers": (
        config(num_hidden_layers=3),
        r"lack 9 of its 30 tensors: model\.layers\.2\.",
    ),
    "config.json has fewer layers": (config(num_hidden_layers=1), r"no place for: model\.layers\.1\."),
    "config.json is wider": (
        config(hidden_size=64),
        r"is \[400, 32\] in the files and \[400, 64\] by config.json",
    ),
    "config.json has more tokens": (
        config(vocab_size=999),
        r"embed_tokens.weight is \[400, 32\] .*\[999, 32\]",
    ),
    "a bias without a place": (
        holding(**{f"{QUERY}__bias": torch.ones(32)}),
        r"no place for: .*q_proj\.bias",
    ),
    "a norm without a place": (
        holding(model__layers__0__self_attn__q_norm__weight=torch.ones(8)),
        r"no place for: .*q_norm\.weight",
    ),
    "an adapter in the weights": (
        holding(**{f"{QUERY}__lora_A__default__weight": torch.ones(4, 32)}),
        "merge the adapter into the model",
    ),
    "gptq": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "it is quantised: gptq"),
    "awq": (config(quantization_config={"quant_method": "awq", "bits": 4}), "it is quantised: awq"),
    "4 bits": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "bitsandbytes",
    ),
    "FP8": (config(quantization_config={"quant_method": "fp8"}), "it is quantised: fp8"),
    "an unnamed quantisation": (config(quantization_config={}), "it is quantised"),
    "8 bits, unsaid": (typed(torch.int8), r"it is quantised \(.*proj\.weight is I8\)"),
    "FP8, unsaid": (typed(torch.float8_e4m3fn), r"it is quantised \(.*proj\.weight is F8_E4M3\)"),
    "4 bits, unsaid": (
        tensors(
            lambda weights: {name.replace("j.weight", "j.qweight"): value for name, value in weights.items()}
        ),
        "qweight.*take the model that is not quantised",
    ),
    "NaN": (
        tensors(with_nan),
        r"1 tensors hold NaN or infinite numbers as float32: model\.embed_tokens\.weight",
    ),
    "no config.json": (without("config.json"), "no config.json in"),
    "config.json is cut": (written("config.json", '{"model_type": "lla'), "config.json is no JSON"),
    "config.json is a list": (written("config.json", "[]"), "names no model_type"),
    "config.json of no kind": (config(model_type=None), "names no model_type"),
    "config.json of an unknown kind": (config(model_type="nonsense"), "model type `nonsense`"),
    "config.json with a text for a number": (config(hidden_size="big"), "config.json: .*hidden_size"),
    "config.json without heads": (config(num_attention_heads=0), "config.json: "),
    "config.json of an encoder": (config(model_type="vit"), "vit is no causal LM"),
    "an activation that nobody knows": (config(hidden_act="nonsense"), "nonsense"),
    "code of its own": (
        config(model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}),
        "custom code",
    ),
    "an encoder": (model_of(BertModel, BERT), r"the files lack 6 of its 44 tensors: cls\."),
    "an encoder with its head": (model_of(BertForMaskedLM, BERT), "cannot score several candidates"),
    "an encoder with a decoder": (
        model_of(T5ForConditionalGeneration, T5),
        "t5 is an encoder with a decoder",
    ),
    "images": (model_of(ViTModel, ViTConfig(hidden_size=32, num_attention_heads=4)), "vit is no causal LM"),
    "no mask per pair of tokens": (
        model_of(Gemma2ForCausalLM, Gemma2Config(**LLAMA_LIKE, head_dim=8)),
        "no SDPA attention for gemma2.*take a model of the OPT, Llama, Qwen2 or GPT-2 family",
    ),
    "an expert is missing": (
        both(
            model_of(MixtralForCausalLM, MixtralConfig(**LLAMA_LIKE, num_local_experts=4)),
            lacking("experts.2."),
        ),
        "cannot be loaded",
    ),
    "weights of git-lfs": (
        written(WEIGHTS, POINTER),
        r"model\.safetensors is a pointer of git-lfs.*git lfs pull",
    ),
    "a tokenizer of git-lfs": (
        written("tokenizer.json", POINTER),
        r"tokenizer\.json is a pointer of git-lfs",
    ),
    "weights are cut": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]),
        "copy the model again",
    ),
    "weights are a folder": (
        both(without(WEIGHTS), lambda folder: (folder / WEIGHTS).mkdir()),
        "no file model",
    ),
    "no tokenizer": (without("tokenizer.json"), "tokenizer: .*copy the model again"),
    "no tokenizer at all": (without("tokenizer.json", "tokenizer_config.json"), "tokenizer: "),
    "the tokenizer is cut": (written("tokenizer.json", '{"version": "1.0", '), "tokenizer: "),
    "the tokenizer is of another library": (
        keys("tokenizer.json", model={"type": "other"}),
        "tokenizer: data did not match",
    ),
    "the tokenizer of a larger model": (
        smaller_vocabulary,
        "300 rows, and none for token 399 of its tokenizer",
    ),
    "no end of a text": (
        both(keys("tokenizer_config.json", eos_token=None), config(eos_token_id=None)),
        "no token for the end of a text",
    ),
    "an empty list of ends": (
        both(keys("tokenizer_config.json", eos_token=None), config(eos_token_id=[])),
        "no token for the end of a text",
    ),
    "an end without an embedding": (with_a_new_end, "400 rows, and none for token 400"),
    "an end beyond the embedding": (
        both(keys("tokenizer_config.json", eos_token=None), config(eos_token_id=5000)),
        "none for token 5,000",
    ),
    "the index is cut": (both(sharded, written(INDEX, "{")), f"{INDEX}: .*expected an index"),
    "the index is a list": (of_index(lambda index: []), f"{INDEX}: "),
    "the index is empty": (of_index(lambda index: {"metadata": {}}), f"{INDEX}: KeyError 'weight_map'"),
    "the index names less": (
        of_index(lambda index: index | {"weight_map": dict(list(index["weight_map"].items())[:1])}),
        "the files lack",
    ),
    "the index names a file that is missing": (
        of_index(
            lambda index: index | {"weight_map": dict.fromkeys(index["weight_map"], "other.safetensors")}
        ),
        r"no file other\.safetensors",
    ),
    "a shard is missing": (second_shard(Path.unlink), "no file model-00002-of-"),
    "a shard is cut": (
        second_shard(lambda path: path.write_bytes(path.read_bytes()[:-9])),
        "copy the model again",
    ),
    "a shard of git-lfs": (second_shard(lambda path: path.write_text(POINTER)), "model-00002-.* git-lfs"),
    "the index is missing": (both(sharded, without(INDEX)), "no file model.safetensors in .*model-00001"),
    "only a variant": (renamed(WEIGHTS, "model.fp16.safetensors"), r"there are model\.fp16\.safetensors"),
    "only pickled weights": (renamed(WEIGHTS, "pytorch_model.bin"), "pickled weights are not read"),
    "only an adapter": (
        both(
            renamed(WEIGHTS, "adapter_model.safetensors"),
            written("adapter_config.json", "{}"),
            without("config.json"),
        ),
        "merge the adapter",
    ),
    "only a GGUF": (
        both(renamed(WEIGHTS, "tiny.gguf"), without("config.json")),
        r"set llm.model to .*/tiny\.gguf",
    ),
    "parts of many processes": (
        lambda folder: shutil.copy(folder / WEIGHTS, folder / "shard-00000-model-00001-of-00001.safetensors"),
        "distributed checkpoint",
    ),
}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llm(tmp_path_factory.mktemp("llm") / "llama")


@pytest.fixture
def folder(untouched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untouched, tmp_path / "llama"))


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_folder_that_is_no_whole_llm_is_refused_in_one_line(
    case: str, folder: Path, tmp_path: Path
) -> None:
    change, words = REFUSED[case]
    change(folder)
    with pytest.raises(SetupError, match=words) as error:
        FrozenLLM.load(settings(folder), tmp_path / "cache")
    message = str(error.value)
    assert message.startswith(f"llm.model: {folder}")
    assert "\n" not in message
    assert len(message) < 700 + 3 * len(str(folder))
    assert error.value.exit_code == 2


@pytest.mark.parametrize("family", ["gpt2", "opt", "qwen2"])
def test_a_folder_without_tokenizer_files_is_refused_where_transformers_makes_an_empty_one(
    family: str, tmp_path: Path
) -> None:
    folder = make_tiny_llm(tmp_path / family, family)
    without("tokenizer.json", "tokenizer_config.json")(folder)
    with pytest.raises(SetupError, match=r"finds no tokens in a text.*tokenizer\.json"):
        FrozenLLM.load(settings(folder), tmp_path / "cache")


def test_numbers_that_16_bits_cannot_hold_are_told_with_the_type_that_can(
    folder: Path, tmp_path: Path
) -> None:
    small = settings(folder, dtype="float16")
    large = Path(shutil.copytree(folder, tmp_path / "large"))
    tensors(lambda weights: weights | {NORM: weights[NORM] * 1e6})(folder)
    with pytest.raises(SetupError, match=rf"as float16: {NORM}\), .*; set llm.dtype=bfloat16"):
        FrozenLLM.load(small, tmp_path / "cache")
    tensors(
        lambda weights: {name: value * (1e3 if value.dim() > 1 else 1) for name, value in weights.items()}
    )(large)
    with pytest.raises(
        SetupError, match=r"its logits are NaN or infinite as float16.*set llm\.dtype=bfloat16"
    ):
        FrozenLLM.load(small.model_copy(update={"model": str(large)}), tmp_path / "cache")


def adapter(folder: Path) -> None:
    save_file({"base_model.model.x": torch.ones(3)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "nowhere/nothing"}')


def with_added_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["red tent", "[ITEM]"])
    tokenizer.save_pretrained(folder)


def beside(file: str) -> Change:
    return lambda folder: save_file({"layers.0.x": torch.ones(3), NORM: torch.zeros(32)}, folder / file)


UNCHANGED: dict[str, Change] = {
    "no prefix of the base model": tensors(
        lambda weights: {name.removeprefix("model."): value for name, value in weights.items()}
    ),
    "the tied head in place of the embedding": tensors(
        lambda weights: {
            name.replace("model.embed_tokens", "lm_head"): value for name, value in weights.items()
        }
    ),
    "the tied head too": tensors(
        lambda weights: weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}
    ),
    "frequencies of older files": holding(model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4)),
    "a second head": holding(v_head__summary__weight=torch.ones(1, 32)),
    "an adapter": adapter,
    "the weights in another layout": beside("consolidated.safetensors"),
    "shards": sharded,
    "shards and a file beside": both(sharded, beside("zzz.safetensors")),
    "an index that is not needed": both(
        lambda folder: shutil.copytree(folder, folder.parent / "split"),
        lambda folder: sharded(folder.parent / "split"),
        lambda folder: shutil.copy(folder.parent / "split" / INDEX, folder),
    ),
    "another name of the weights": both(
        renamed(WEIGHTS, "other.safetensors"), config(transformers_weights="other.safetensors")
    ),
    "tokens that were added": with_added_tokens,
    "a list of ends": both(keys("tokenizer_config.json", eos_token=None), config(eos_token_id=[2, 4])),
    "no quantisation": config(quantization_config=None),
}


@pytest.mark.parametrize("case", list(UNCHANGED))
def test_what_belongs_to_a_folder_or_is_beside_the_model_changes_no_logit(
    case: str, untouched: Path, folder: Path, tmp_path: Path
) -> None:
    UNCHANGED[case](folder)
    plain, changed = (FrozenLLM.load(settings(one), tmp_path / "cache") for one in (untouched, folder))
    assert torch.equal(last_logits(plain), last_logits(changed))
    assert changed.eos_id == 2


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_the_masks_of_older_gpt2_files_are_no_weights(prefix: str, tmp_path: Path) -> None:
    folder = make_tiny_llm(tmp_path / "gpt2", "gpt2")
    plain = last_logits(FrozenLLM.load(settings(folder), tmp_path / "cache"))
    masks = {
        "h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
        "h.0.attn.masked_bias": torch.tensor(-1e4),
    }
    tensors(
        lambda weights: {
            f"{prefix}{name.removeprefix('transformer.')}": value for name, value in (weights | masks).items()
        }
    )(folder)
    assert torch.equal(plain, last_logits(FrozenLLM.load(settings(folder), tmp_path / "cache")))


def test_the_constants_of_older_gpt_neox_files_are_no_weights(folder: Path, tmp_path: Path) -> None:
    model_of(GPTNeoXForCausalLM, GPTNeoXConfig(**SMALL, intermediate_size=64))(folder)
    plain = last_logits(FrozenLLM.load(settings(folder), tmp_path / "cache"))
    inside = "gpt_neox.layers.0.attention"
    constants = {
        f"{inside}.bias": torch.ones(4, 4, dtype=torch.bool),
        f"{inside}.masked_bias": torch.tensor(-1e9),
    }
    constants[f"{inside}.rotary_emb.inv_freq"] = torch.ones(4)
    tensors(lambda weights: weights | constants)(folder)
    assert torch.equal(plain, last_logits(FrozenLLM.load(settings(folder), tmp_path / "cache")))


def test_what_is_not_used_of_a_folder_is_said(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    both(holding(v_head__summary__weight=torch.ones(1, 32)), adapter)(folder)
    FrozenLLM.load(settings(folder), tmp_path / "cache", lines.append)
    assert len(lines) == 2
    assert "not used: v_head.summary.weight" in lines[0]
    assert "the adapter" in lines[1]


def test_an_adapter_that_peft_put_into_the_model_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded_beside_peft(source: Path, **more: object) -> tuple[Any, dict[str, Any]]:
        model, info = load_with_info(source, **more)
        model._hf_peft_config_loaded = True  # what transformers notes where it loaded an adapter
        return model, info

    monkeypatch.setattr(loading, "load_with_info", loaded_beside_peft)
    with pytest.raises(SetupError, match="merge the adapter into the model, or move it away"):
        FrozenLLM.load(settings(folder), tmp_path / "cache")


def test_the_hash_is_of_the_files_that_are_loaded(untouched: Path, folder: Path, tmp_path: Path) -> None:
    def hashed(path: Path) -> str:
        return llm_weight_hash(settings(path), tmp_path / "cache")

    expected = hashed(untouched)
    adapter(folder)
    beside("zzz.safetensors")(folder)
    assert hashed(folder) == expected, "files beside are not loaded"
    split = Path(shutil.copytree(untouched, tmp_path / "split"))
    sharded(split)
    beside("zzz.safetensors")(split)
    assert hashed(split) == expected, "a hash says nothing of how tensors are split"
    shutil.copy(make_tiny_llm(tmp_path / "other", seed=1) / WEIGHTS, split)
    assert hashed(split) == hashed(tmp_path / "other") != expected, (
        "model.safetensors is loaded, its shards are not"
    )
    elsewhere = Path(shutil.copytree(untouched, tmp_path / "elsewhere"))
    sharded(elsewhere)
    values = json.loads((elsewhere / INDEX).read_text(encoding="utf-8"))
    values["weight_map"] = dict.fromkeys(values["weight_map"], f"../other/{WEIGHTS}")
    (elsewhere / INDEX).write_text(json.dumps(values), encoding="utf-8")
    assert hashed(elsewhere) == hashed(tmp_path / "other"), "an index may name files elsewhere"


def test_weights_that_take_the_place_of_others_with_their_time_and_size_are_hashed_anew(
    folder: Path, tmp_path: Path
) -> None:
    asked = settings(folder)
    other = make_tiny_llm(tmp_path / "other", seed=1) / WEIGHTS
    weights = folder / WEIGHTS
    before = llm_weight_hash(asked, tmp_path / "cache")
    stamp = weights.stat()
    assert other.stat().st_size == stamp.st_size
    shutil.copy(other, weights)
    os.utime(weights, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert llm_weight_hash(asked, tmp_path / "cache") != before


def test_a_damaged_memory_of_hashes_is_made_again_and_one_that_cannot_be_kept_is_told(
    folder: Path, tmp_path: Path
) -> None:
    asked = settings(folder)
    before = llm_weight_hash(asked, tmp_path / "cache")
    for content in ("", "[]", '{"weight_hash": 3}'):
        for path in (tmp_path / "cache" / "llm" / "weight_hashes").iterdir():
            path.write_text(content)
        assert llm_weight_hash(asked, tmp_path / "cache") == before
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"cannot be hashed .*set cache\.folder"):
        llm_weight_hash(settings(folder), tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (" ", r"^llm\.model: an empty text, expected a folder, a \.gguf file or a hub name"),
        ("{folder}/model.safetensors", "is a file, .*set llm.model to {folder}"),
        ("{folder}/none", "no file or folder {folder}/none"),
        ("./none", "no file or folder"),
        ("{folder}/none.gguf", "no file or folder"),
        ("none.gguf", "no file or folder"),
    ],
)
def test_a_name_that_is_no_model_is_refused_in_one_line(
    name: str, words: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # a blank name must not mean the current folder
    with pytest.raises(SetupError, match=words.format(folder=folder)) as error:
        FrozenLLM.load(settings(name.format(folder=folder)), tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_a_hub_that_is_gone_halfway_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(api: object, name: str) -> str:
        return str(HfApi(endpoint="http://127.0.0.1:9").model_info(name))

    without(WEIGHTS)(folder)
    monkeypatch.setattr(model_folder.huggingface_hub, "snapshot_download", lambda name, **_: str(folder))
    monkeypatch.setattr(safetensors_conversion, "get_conversion_pr_reference", gone)
    with pytest.raises(SetupError, match=r"someone/model .* cannot be downloaded \(.*Connection refused"):
        FrozenLLM.load(settings("someone/model"), tmp_path / "cache")


GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(folder: Path, path: Path, architecture: str = "llama", lacking: str = "no such") -> Path:
    """Write a tiny Llama as a GGUF file; tensors with `lacking` in their name are left out."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    backend = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = backend["model"]["vocab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_types([3 if number < 5 else 1 for number in range(len(vocabulary))])
    writer.add_token_merges([" ".join(merge) for merge in backend["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, tensor in load_file(folder / WEIGHTS).items():
        short = name.removeprefix("model.").replace("layers.", "blk.")
        for ours, theirs in {"embed_tokens": "token_embd", **GGUF_NAMES}.items():
            short = short.replace(ours, theirs)
        short = "output_norm.weight" if short == "norm.weight" else short
        if lacking not in short:
            writer.add_tensor(short, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_is_loaded_whatever_the_case_of_its_ending(folder: Path, tmp_path: Path) -> None:
    hashes = [
        FrozenLLM.load(settings(write_gguf(folder, tmp_path / name)), tmp_path / "cache").weight_hash
        for name in ("tiny.gguf", "TINY.GGUF")
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lacking": "blk.1."}, r"the files lack 9 of its 21 tensors: model\.layers\.1\."),
        ({"lacking": "output_norm"}, r"the files lack 1 of its 21 tensors: model\.norm\.weight"),
        ({"architecture": "nonsense"}, "architecture nonsense is not supported"),
    ],
)
def test_a_gguf_that_is_no_whole_llm_is_refused_and_leaves_nothing(
    change: dict[str, str], words: str, folder: Path, tmp_path: Path
) -> None:
    path = write_gguf(folder, tmp_path / "tiny.gguf", **change)
    with pytest.raises(SetupError, match=words) as error:
        FrozenLLM.load(settings(path), tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert "disk space" not in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9])
def test_a_gguf_that_is_cut_is_refused(kept: float, folder: Path, tmp_path: Path) -> None:
    path = write_gguf(folder, tmp_path / "tiny.gguf")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(SetupError, match=r"expected a whole file.*; copy it again"):
        FrozenLLM.load(settings(path), tmp_path / "cache")
    path.write_bytes(b"GGUF" + struct.pack("<I", 99) + bytes(64))
    with pytest.raises(SetupError, match="expected a whole file"):
        FrozenLLM.load(settings(path), tmp_path / "cache")
    path.write_text(POINTER)
    with pytest.raises(SetupError, match="git-lfs"):
        FrozenLLM.load(settings(path), tmp_path / "cache")
