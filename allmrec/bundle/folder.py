"""A bundle's folder: which files it has, their checksums, and the id that follows from them. Knows nothing of models."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from allmrec.errors import BundleError, SetupError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
OUTSIDE_THE_HASH = ("bundle_id", "created_at")


def write_folder(
    root: Path, name: str | None, write: Callable[[Path], None], manifest: dict[str, Any]
) -> dict[str, Any]:
    """Write a bundle under `root` in one rename and return its whole manifest.

    `write` puts every file but the manifest into the folder it is given. The folder is `name`, or the bundle_id where name is None; one
    that is already there and whole is kept, for equal names have equal content. Raises SetupError when the disk does not take it.
    """
    partial = root / f".partial-{uuid.uuid4().hex}"
    try:
        partial.mkdir(parents=True)
        write(partial)
        whole = {**manifest, "format_version": FORMAT_VERSION, "files": checksums(partial)}
        whole["bundle_id"] = content_id(whole)
        whole["created_at"] = datetime.now(timezone.utc).isoformat(timespec="microseconds")
        (partial / MANIFEST).write_text(
            json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False), encoding="utf-8"
        )
        target = root / (name or whole["bundle_id"])
        if target.exists():
            return verify_bundle(target)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            return verify_bundle(target)  # another process was first
        return whole
    except (OSError, SafetensorError) as error:
        raise SetupError(
            f"{root}: the bundle cannot be written ({error}), expected room in a folder of one's own; free some space"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def verify_bundle(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle after checking every file.

    Raises BundleError that names what is wrong: no folder, no manifest or one that was changed, another format, a file that is missing,
    changed or not the bundle's.
    """
    manifest = read_manifest(folder)
    found, expected = checksums(folder), manifest["files"]
    for problem, names in (
        ("missing", sorted(expected.keys() - found.keys())),
        ("not one of its files", sorted(found.keys() - expected.keys())),
        (
            "changed (wrong checksum)",
            sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name]),
        ),
    ):
        if names:
            raise BundleError(
                f"bundle {folder}: {names[0]} is {problem}, expected the files of its manifest; copy or train the bundle again"
            )
    if content_id(manifest) != manifest.get("bundle_id"):
        raise BundleError(
            f"bundle {folder}: {MANIFEST} was changed, expected the content of its bundle_id; copy or train the bundle again"
        )
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle in a format that this program reads; raises BundleError."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"bundle {folder}: {MANIFEST} is missing, expected a bundle's folder; check the path, or train one (allmrec train)"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise BundleError(
            f"bundle {folder}: {MANIFEST} is no JSON ({error}), expected a bundle's; copy or train the bundle again"
        ) from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"bundle {folder}: format_version {version}, expected {FORMAT_VERSION}; use the allmrec that wrote it, or train again"
        )
    if not isinstance(manifest.get("files"), dict):
        raise BundleError(
            f"bundle {folder}: {MANIFEST} names no files, expected their checksums; copy or train the bundle again"
        )
    return manifest


def checksums(folder: Path) -> dict[str, str]:
    """Return relative path → sha256 of every file but the manifest (and the `.crc` files that Hadoop's local file system leaves)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hadoop = path.name.startswith(".") and path.name.endswith(".crc")
        if path.is_file() and name != MANIFEST and not hadoop:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            found[name] = digest.hexdigest()
    return found


def content_id(manifest: dict[str, Any]) -> str:
    """Return the bundle_id: 16 hex digits of the SHA-256 over the manifest with its files' checksums, without what is outside the hash."""
    content = {key: value for key, value in manifest.items() if key not in OUTSIDE_THE_HASH}
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, allow_nan=False).encode("utf-8", "surrogatepass")
    ).hexdigest()[:16]
