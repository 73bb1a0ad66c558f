"""A bundle whose checksums are right is looked into all the same: shapes, types, counts, numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from allmrec.bundle import Bundle, Manifest, decision_of, load_bundle, save_bundle
from allmrec.bundle.folder import checksums
from allmrec.bundle.manifest import content_id
from allmrec.config.sections.training_settings import BlendParts
from allmrec.errors import BundleError
from allmrec.parts import PARTS
from allmrec.ranking.decision import ComparedOrder, Decision
from allmrec.ranking.search_weights import SearchWeights
from tests.unit.tiny_bundle import tiny_bundle, tiny_llm

pytestmark = pytest.mark.reported

Change = Callable[[Path], object]
NAN = float("nan")
FORMER_SEARCH: dict[str, object] = {
    "weights": {"cf": 0.5, "alignment": 0.3, "text": 0.2},
    "unknown_offset": 0.4,
    "temperature": 1.5,
    "num_users": 7,
    "part_temperatures": {},
    "recall": 1.0,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    bundle = tiny_bundle(root)
    order = ComparedOrder("blend_without_llm", 0.0, 0.4, 0.0, 0.0)
    decision = Decision("blend_without_llm", (order,), 5)
    bundle = bundle.with_state(replace(bundle.order, decision=decision))
    origin = {"purpose": "serving", "trained_before": "2026-01-05", "fingerprint": "f" * 16}
    return root / save_bundle(root, bundle, origin)


def signed(folder: Path, change: Change) -> Path:
    """Change a bundle and write its checksums and its id anew, as another tool would."""
    change(folder)
    values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    values["files"] = checksums(folder)
    values["bundle_id"] = content_id(json.loads(json.dumps(values)))
    (folder / "manifest.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def tensors(change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]], file: str = "items") -> Change:
    """Change the tensors of a file."""

    def changed(folder: Path) -> None:
        path = folder / f"{file}.safetensors"
        save_file({name: value.clone() for name, value in change(load_file(path)).items()}, path)

    return changed


def tensor(name: str, change: Callable[[Tensor], Tensor], file: str = "items") -> Change:
    return tensors(lambda found: found | {name: change(found[name])}, file)


def lacking(name: str, file: str = "items") -> Change:
    return tensors(lambda found: {key: value for key, value in found.items() if key != name}, file)


def put(place: int, value: float) -> Callable[[Tensor], Tensor]:
    """Put a value at a place of the flat tensor."""

    def changed(found: Tensor) -> Tensor:
        found.view(-1)[place] = value
        return found

    return changed


def table(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Change:
    def changed(folder: Path) -> None:
        change(pd.read_parquet(folder / "items.parquet")).to_parquet(folder / "items.parquet", index=False)

    return changed


def at(row: int, **values: object) -> Change:
    """Put values into a row of the table of items."""

    def changed(items: pd.DataFrame) -> pd.DataFrame:
        for name, value in values.items():
            items.loc[row, name] = value
        return items

    return table(changed)


def written(file: str, content: bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(content)


def values_of(file: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    """Change the JSON object of a file."""

    def changed(folder: Path) -> None:
        values = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps(change(values)), encoding="utf-8")

    return changed


def blend(**fields: object) -> Change:
    return values_of("blend.json", lambda blends: blends | {"with_llm": blends["with_llm"] | fields})


def search(**fields: object) -> Change:
    """Put the weights of the search, as earlier versions wrote them, with other fields."""
    return values_of("blend.json", lambda blends: blends | {"retrieval": FORMER_SEARCH | fields})


def decision(**fields: object) -> Change:
    return values_of("decision.json", lambda values: values | fields)


def compared(**fields: object) -> Change:
    return values_of("decision.json", lambda values: values | {"compared": [values["compared"][0] | fields]})


def manifest(**fields: object) -> Change:
    return values_of("manifest.json", lambda values: values | fields)


def setting(section: str, **fields: object) -> Change:
    return values_of("config.json", lambda values: values | {section: values[section] | fields})


def without_manifest_key(name: str) -> Change:
    return values_of("manifest.json", lambda values: {key: values[key] for key in values if key != name})


REFUSED: dict[str, tuple[Change, str]] = {
    "soft tokens are missing": (lacking("soft_items"), "items.safetensors: no tensor soft_items"),
    "title tokens are missing": (lacking("title_tokens"), "items.safetensors: no tensor title_tokens"),
    "priors that the layout subtracts are missing": (
        lacking("priors"),
        "items.safetensors: no tensor priors",
    ),
    "soft tokens lack an item": (
        tensor("soft_items", lambda found: found[:-1]),
        r"soft_items is .*\[30, 32\], expected .*\[31, 32\]",
    ),
    "soft tokens have another width": (tensor("soft_items", lambda found: found[:, :-1]), r"\[31, 31\]"),
    "soft tokens are flat": (
        tensor("soft_items", lambda found: found.flatten()),
        r"soft_items is .* \[992\]",
    ),
    "soft tokens in 64 bits": (tensor("soft_items", Tensor.double), "soft_items is torch.float64"),
    "a soft token is NaN": (tensor("soft_items", put(50, NAN)), "soft_items holds NaN"),
    "a soft token is infinite": (tensor("soft_items", put(50, -np.inf)), "soft_items holds NaN or infinite"),
    "text embeddings lack an item": (
        tensor("text_embeddings", lambda found: found[:-1]),
        "text_embeddings is",
    ),
    "a text embedding is NaN": (tensor("text_embeddings", put(-1, NAN)), "text_embeddings holds NaN"),
    "the centre is NaN": (tensor("text_centre", put(0, NAN)), "text_centre holds NaN"),
    "the centre has another width": (tensor("text_centre", lambda found: found[:-1]), "text_centre is"),
    "a prior is NaN": (tensor("priors", put(3, NAN)), "priors holds NaN"),
    "priors lack an item": (tensor("priors", lambda found: found[:-1]), "priors is"),
    "title tokens are floats": (tensor("title_tokens", Tensor.float), "title_tokens is torch.float32"),
    "a title token is negative": (tensor("title_tokens", put(0, -1)), "title_tokens has negative token ids"),
    "a title token is too many": (
        tensor("title_tokens", lambda found: torch.cat([found, found[:1]])),
        "title_offsets do not split",
    ),
    "a title begins after its end": (tensor("title_offsets", put(3, 1000)), "title_offsets do not split"),
    "titles do not begin at 0": (tensor("title_offsets", put(0, 1)), "title_offsets do not split"),
    "offsets lack an item": (tensor("title_offsets", lambda found: found[:-1]), "title_offsets is"),
    "offsets are floats": (tensor("title_offsets", Tensor.double), "title_offsets is"),
    "known is a number": (tensor("known", Tensor.int), "known is torch.int32"),
    "known lacks an item": (tensor("known", lambda found: found[:-1]), "known is"),
    "the padding item is known": (tensor("known", put(0, True)), "known names items beyond"),
    "cut titles lack an item": (tensor("title_is_cut", lambda found: found[:-1]), "title_is_cut is"),
    "items.safetensors is cut": (written("items.safetensors", b"cut"), "items.safetensors: "),
    "five items are missing": (
        table(lambda items: items.iloc[:-5]),
        "items.parquet: 25 items, expected the 30",
    ),
    "an item is too many": (table(lambda items: pd.concat([items, items[-1:]])), "31 items, expected the 30"),
    "items in another order": (table(lambda items: items[::-1]), "item_idx is not 1 to 30 in order"),
    "an item_idx twice": (at(3, item_idx=3), "item_idx is not 1 to 30"),
    "an item_id twice": (at(3, item_id="i003"), "item_id 'i003' occurs twice"),
    "an item without an id": (at(3, item_id=None), "item_id has values that are no text"),
    "an item without a title": (at(3, title=None), "title has values that are no text"),
    "item_idx in 64 bits": (table(lambda items: items.astype({"item_idx": "int64"})), "item_idx is int64"),
    "ids that are numbers": (table(lambda items: items.assign(item_id=range(30))), "item_id has values"),
    "a negative count": (at(3, num_interactions=-1), "num_interactions is negative"),
    "no column of hashes": (table(lambda items: items.drop(columns="text_hash")), "no column text_hash"),
    "items.parquet is no Parquet": (written("items.parquet", b"x"), "items.parquet: "),
    "items.parquet is empty": (written("items.parquet", b""), "items.parquet: "),
    "a CF model of 10^9 items": (manifest(cf_num_items=10**9), "cf_num_items is 1,000,000,000, more than"),
    "a CF model and a catalogue of 10^9 items": (
        manifest(cf_num_items=10**9, num_items=10**9),
        "30 items, expected the 1,000,000,000 of manifest.json",
    ),
    "a CF model of other items": (
        manifest(cf_num_items=29),
        "item_embedding.weight is F32 .31, 16., expected F32",
    ),
    "a CF model 10^9 wide": (setting("cf", width=10**9), "config.json: "),
    "a joint space 10^9 wide": (setting("stage1", width=10**9), r"items.safetensors: text_centre is"),
    "an LLM 10^9 wide": (
        values_of("manifest.json", lambda values: values | {"llm": values["llm"] | {"width": 10**9}}),
        "soft_items is",
    ),
    "another number of heads": (setting("cf", sasrec={"num_heads": 3}), "config.json: "),
    "a weight is missing": (
        lacking("final_norm.weight", "cf"),
        "cf.safetensors: final_norm.weight is missing",
    ),
    "a weight is too many": (
        tensors(lambda found: found | {"more": torch.ones(1)}, "cf"),
        "more is F32 .1., expected missing",
    ),
    "a weight in 16 bits": (tensor("final_norm.weight", Tensor.half, "cf"), "final_norm.weight is F16"),
    "a weight of the CF model is NaN": (
        tensor("final_norm.weight", put(0, NAN), "cf"),
        "cf.safetensors: final_norm",
    ),
    "a weight of the alignment is NaN": (
        tensor("_item_decoder.bias", put(0, NAN), "stage1"),
        "stage1.safetensors: _item_decoder.bias holds NaN",
    ),
    "a statistic of the projection is NaN": (
        tensor("item_std", put(0, NAN), "stage2"),
        "stage2.safetensors: item_std holds NaN",
    ),
    "stage2 is cut": (written("stage2.safetensors", b""), "stage2.safetensors: "),
    "blend.json is cut": (written("blend.json", b"{"), "blend.json: "),
    "blend.json is a list": (written("blend.json", b"[]"), "blend.json: "),
    "blend.json is empty": (written("blend.json", b"{}"), r"blend.json: blends \[\], expected"),
    "a blend is missing": (
        values_of("blend.json", lambda blends: {"with_llm": blends["with_llm"]}),
        "blends",
    ),
    "a blend is unknown": (
        values_of("blend.json", lambda blends: blends | {"x": blends["with_llm"]}),
        "blends",
    ),
    "a field of a blend is unknown": (blend(more=1), "blend.json: "),
    "a weight of a blend is NaN": (blend(weights={"cf": NAN}), r"with_llm.weights is nan"),
    "a weight of a blend is negative": (blend(weights={"cf": -0.5}), r"with_llm.weights is -0.5"),
    "a weight of a blend is a text": (blend(weights={"cf": "1"}), r"with_llm.weights is '1'"),
    "a weight of a blend is true": (blend(weights={"cf": True}), r"with_llm.weights is True"),
    "a blend weighs nothing": (blend(weights={}), "weighs"),
    "a blend weighs what is no part": (
        blend(weights={"cfs": 1.0}),
        r"with_llm weighs \['cfs'\], expected parts of",
    ),
    "weights are a list": (blend(weights=[1.0]), "blend.json: "),
    "a temperature of 0": (blend(temperature=0.0), "with_llm.temperature is 0.0"),
    "a temperature without an end": (blend(temperature=np.inf), "with_llm.temperature is inf"),
    "a part's temperature of 0": (blend(part_temperatures={"cf": 0}), "with_llm.temperature is 0"),
    "an offset of NaN": (blend(unknown_offset=NAN), "with_llm.unknown_offset is nan"),
    "a recall above 1": (blend(recall=1.5), "with_llm.recall is 1.5, expected a number from 0 to 1"),
    "a recall of null": (blend(recall=None), "with_llm.recall is None"),
    "a weight of the search is NaN": (search(weights={"cf": NAN}), "retrieval.weights is nan"),
    "the search weighs nothing": (search(weights={}), r"retrieval weighs \[\]"),
    "the search weighs what is no part": (
        search(weights={"cfs": 1.0}),
        r"retrieval weighs \['cfs'\], expected parts of",
    ),
    "an offset of the search that is a text": (search(unknown_offset="0"), "retrieval.unknown_offset is '0'"),
    "users of the search are negative": (search(num_users=-1), "retrieval.num_users is -1"),
    "the search is a list": (
        values_of("blend.json", lambda blends: blends | {"retrieval": []}),
        "blend.json: ",
    ),
    "the search has no offset": (
        values_of("blend.json", lambda blends: blends | {"retrieval": {"weights": {"cf": 1.0}}}),
        "blend.json: KeyError 'unknown_offset'",
    ),
    "decision.json is cut": (written("decision.json", b"{"), "decision.json: "),
    "decision.json is a list": (written("decision.json", b"[]"), "decision.json: "),
    "another order is served": (decision(served="both"), "decision.json: the order 'both'"),
    "another order was compared": (compared(name="x"), "the order 'x'"),
    "an NDCG above 1": (compared(ndcg=2.0), "blend_without_llm.ndcg is 2.0"),
    "an NDCG of NaN": (compared(ndcg=NAN), "blend_without_llm.ndcg is nan"),
    "an interval of NaN": (compared(low=NAN), "interval is nan"),
    "a field of an order is unknown": (compared(more=1), "decision.json: "),
    "users without a comparison": (decision(compared=[]), "no order was compared"),
    "users are a text": (decision(num_users="5"), "num_users is '5'"),
    "config.json is cut": (written("config.json", b"{"), "config.json does not fit this allmrec"),
    "config.json is no UTF-8": (written("config.json", b"\xff"), "config.json does not fit this allmrec"),
    "config.json has an unknown key": (setting("cf", more=1), "config.json does not fit this allmrec"),
    "no number of items": (without_manifest_key("num_items"), r"manifest.json lacks a field \('num_items'\)"),
    "a number of items that is a text": (manifest(num_items="30"), "manifest.json: num_items is '30'"),
    "no items": (manifest(num_items=0), "num_items is 0, expected a number from 1"),
    "a number of items that is true": (manifest(num_items=True), "num_items is True"),
    "a date that is none": (manifest(trained_before="soon"), "manifest.json: .*'soon'"),
    "a date that is a number": (
        manifest(trained_before=20260105),
        "trained_before is 20260105, expected a text",
    ),
    "a date without dashes": (
        manifest(trained_before="20260105"),
        "trained_before is '20260105'|Invalid isoformat",
    ),
    "a fingerprint that is a path": (
        manifest(fingerprint="../x"),
        r"fingerprint is '\.\./x', expected a name",
    ),
    "a parent that is a path": (manifest(parent_id="a/b"), "parent_id is 'a/b', expected a name"),
    "versions that are texts": (manifest(table_versions={"items": "1"}), "table_versions are"),
    "figures that are a list": (manifest(figures=[]), "figures is"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_a_file_must_not_hold_is_refused_in_one_line_though_its_checksum_is_right(
    case: str, saved: Path, tmp_path: Path
) -> None:
    change, words = REFUSED[case]
    folder = signed(Path(shutil.copytree(saved, tmp_path / "bundle")), change)
    with pytest.raises(BundleError, match=words) as error:
        load_bundle(folder, None)
    message = str(error.value)
    assert message.startswith(f"bundle {folder}: ")
    assert "\n" not in message
    assert "again" in message or "use the" in message
    assert error.value.exit_code == 3


def test_a_bundle_of_before_the_type_of_search_weights_has_the_same_weights(
    saved: Path, tmp_path: Path
) -> None:
    folder = signed(Path(shutil.copytree(saved, tmp_path / "bundle")), search())
    before, after = load_bundle(folder, None), load_bundle(saved, None)
    assert before.search == SearchWeights({"cf": 0.5, "alignment": 0.3, "text": 0.2}, 0.4, 7)
    assert before.blends == after.blends
    assert after.search is None


def test_a_bundle_of_before_the_sections_of_backbones_gives_the_same_scores(
    saved: Path, tmp_path: Path
) -> None:
    def old(values: dict[str, Any]) -> dict[str, Any]:
        return values | {"cf": values["cf"] | values["cf"].pop("sasrec")}

    folder = signed(Path(shutil.copytree(saved, tmp_path / "bundle")), values_of("config.json", old))
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))["cf"]
    assert {"num_blocks", "num_heads", "network"} <= stored.keys()
    assert "sasrec" not in stored
    before, after = load_bundle(folder, None), load_bundle(saved, None)
    assert before.config == after.config
    histories, candidates = torch.tensor([[0, 3, 5, 7], [1, 2, 29, 4]]), torch.tensor([[1, 2, 9], [5, 6, 30]])
    scores = after.rec.cf.score(histories, candidates)
    assert scores.any()
    assert torch.equal(before.rec.cf.score(histories, candidates), scores)


def test_a_configuration_nested_without_end_is_refused(saved: Path, tmp_path: Path) -> None:
    change = written("config.json", b"[" * 100_000)
    with pytest.raises(BundleError, match=r"config\.json does not fit this allmrec"):
        load_bundle(signed(Path(shutil.copytree(saved, tmp_path / "bundle")), change), None)


def test_a_manifest_with_nan_or_nested_without_end_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "bundle"))
    manifest(figures={"x": NAN})(folder)
    with pytest.raises(BundleError, match=r"manifest\.json: "):
        load_bundle(folder, None)
    (folder / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(BundleError, match=r"manifest\.json is no JSON"):
        load_bundle(folder, None)


def test_a_decision_is_looked_into_without_the_rest(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "bundle"))
    assert decision_of(folder) == load_bundle(saved, None).decision
    (folder / "decision.json").write_text("{")
    with pytest.raises(BundleError, match=r"decision\.json: "):
        decision_of(folder)


def test_tokens_beyond_the_llm_are_refused(saved: Path, tmp_path: Path) -> None:
    llm = tiny_llm(saved.parent)
    folder = Path(shutil.copytree(saved, tmp_path / "bundle"))
    signed(folder, tensor("title_tokens", put(0, llm.vocab_size)))
    load_bundle(folder, None)
    with pytest.raises(BundleError, match=r"items\.safetensors: title_tokens has token 400, .*400 tokens"):
        load_bundle(folder, llm)


def test_a_wrong_size_costs_no_memory(saved: Path, tmp_path: Path) -> None:
    """The networks of such settings would fill 512 GB: an allocator's error would name no file."""
    folder = Path(shutil.copytree(saved, tmp_path / "bundle"))
    signed(folder, both_widths)
    with pytest.raises(BundleError, match=r"stage1\.safetensors: .*expected F32"):
        load_bundle(folder, None)


def both_widths(folder: Path) -> None:
    """Another joint width, in the settings and in the one tensor that shows it before the networks do."""
    setting("stage1", width=2**37)(folder)
    lacking("text_centre")(folder)


@pytest.mark.parametrize("name", ["title_is_cut", "text_centre"])
def test_what_bundles_of_before_lack_is_not_missed(name: str, saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "bundle"))
    assert load_bundle(signed(folder, lacking(name)), None).num_items == 30
    assert load_bundle(signed(folder, lambda one: (one / "decision.json").unlink()), None).decision is None


def as_before(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration as it was stored when settings had their former names."""
    moved = {section: dict(keys) for section, keys in values.items() if isinstance(keys, dict)}
    moved["importing"]["rating_range"] = moved["sequences"].pop("rating_range")
    moved["llm"]["cache"] = moved.pop("cache")["folder"]
    moved["scoring"]["bundle_id"] = moved.pop("bundle")["id"]
    del moved["llm"]["token_budget"]
    moved["scoring"] |= {"token_budget": 100, "chunk_users_without_llm": 9}
    moved["stage2"]["warm_start_batch"] = 32
    return moved | {"seed": values["seed"]}


def test_a_bundle_whose_configuration_has_keys_of_before_is_loaded(saved: Path, tmp_path: Path) -> None:
    now = load_bundle(saved, None).config
    folder = Path(shutil.copytree(saved, tmp_path / "bundle"))
    config = load_bundle(signed(folder, values_of("config.json", as_before)), None).config
    assert config.llm.token_budget == 100
    assert config == now.model_copy(update={"llm": now.llm.model_copy(update={"token_budget": 100})})


def test_signing_anew_changes_nothing_that_is_loaded(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "bundle"))
    loaded: Bundle = load_bundle(signed(folder, lambda one: None), None)
    assert loaded.bundle_id == saved.name


def test_a_blend_may_weigh_what_the_settings_may_name() -> None:
    items, _ = get_args(get_args(BlendParts)[0])
    assert set(get_args(items)) == PARTS.keys()


def test_a_manifest_of_wrong_types_is_refused_with_what_from_dict_promises(saved: Path) -> None:
    values = json.loads((saved / "manifest.json").read_text(encoding="utf-8"))
    for wrong in (
        {"llm": values["llm"] | {"weight_hash": 3}},
        {"bundle_id": "../../x"},
        {"created_at": None},
    ):
        with pytest.raises((TypeError, ValueError)):
            Manifest.from_dict(values | wrong)
