"""A bundle's folder: which files it has, their checksums, and the id that follows.

Knows nothing of models.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from allmrec.bundle.manifest import FORMAT_VERSION, Manifest, content_id
from allmrec.errors import BundleError, SetupError
from allmrec.weights import hash_file

MANIFEST = "manifest.json"


def write_folder(root: Path, name: str | None, write: Callable[[Path], None], manifest: Manifest) -> Manifest:
    """Write a bundle under `root` in one rename and return its whole manifest.

    `write` puts every file but the manifest into the folder it is given. The folder is `name`, or the
    bundle_id where name is None; one that is already there and whole is kept, for equal names have equal
    content. Raises SetupError where the disk does not take it, BundleError where a folder that is already
    there is damaged.
    """
    partial = root / f".partial-{uuid.uuid4().hex}"
    try:
        partial.mkdir(parents=True)
        write(partial)
        values = {**manifest.to_dict(), "format_version": FORMAT_VERSION, "files": checksums(partial)}
        values["bundle_id"] = content_id(values)
        values["created_at"] = datetime.now(timezone.utc).isoformat(timespec="microseconds")
        text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (partial / MANIFEST).write_text(text, encoding="utf-8")
        target = root / (name or values["bundle_id"])
        if target.exists():
            return verify_bundle(target)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            return verify_bundle(target)  # another process was first
        return Manifest.from_dict(values)
    except (OSError, SafetensorError) as error:
        raise SetupError(
            f"{root}: the bundle cannot be written ({error}), expected room in a folder of one's own; "
            "free some space"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def verify_bundle(folder: Path) -> Manifest:
    """Return the manifest of a bundle after checking every file.

    Raises BundleError that names what is wrong: no folder, no manifest or one that was changed, another
    format, a file that is missing, changed or not the bundle's.
    """
    values = _read_manifest(folder)
    for name, problem in _file_problems(checksums(folder), values["files"]):
        raise BundleError(
            f"bundle {folder}: {name} is {problem}, expected the files of its manifest; "
            "copy or train the bundle again"
        )
    try:
        is_whole = content_id(values) == values.get("bundle_id")
        manifest = Manifest.from_dict(values)
    except KeyError as error:
        raise BundleError(
            f"bundle {folder}: {MANIFEST} lacks a field ({error}), expected a bundle's; "
            "copy or train the bundle again"
        ) from error
    except (TypeError, ValueError) as error:
        raise BundleError(f"bundle {folder}: {MANIFEST}: {error}; copy or train the bundle again") from error
    if not is_whole:
        raise BundleError(
            f"bundle {folder}: {MANIFEST} was changed, expected the content of its bundle_id; "
            "copy or train the bundle again"
        )
    return manifest


def checksums(folder: Path) -> dict[str, str]:
    """Return relative path → sha256 of every file but the manifest; of a link to nothing it is empty.

    Names that begin with "." are passed over: checksums of Hadoop's local file system, and temporary files of
    another run that stores the same bundle.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in relative.parts)
        if not path.is_dir() and relative.as_posix() != MANIFEST and not is_hidden:
            digests[relative.as_posix()] = hash_file(path) if path.is_file() else ""
    return digests


def _file_problems(actual: dict[str, str], expected: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (file, what is wrong with it), missing files first."""
    yield from ((name, "missing") for name in sorted(expected.keys() - actual.keys()))
    yield from ((name, "not one of its files") for name in sorted(actual.keys() - expected.keys()))
    for name in sorted(expected.keys() & actual.keys()):
        if expected[name] != actual[name]:
            yield name, "changed (wrong checksum)"


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest's JSON object, in a format that this program reads; raises BundleError."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"bundle {folder}: {MANIFEST} is missing, expected a bundle's folder; check the path, "
            "or train one (allmrec train)"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"bundle {folder}: {MANIFEST} is no JSON ({error}), expected a bundle's; "
            "copy or train the bundle again"
        ) from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"bundle {folder}: format_version {version}, expected {FORMAT_VERSION}; "
            "use the allmrec that wrote it, or train again"
        )
    if not isinstance(values.get("files"), dict):
        raise BundleError(
            f"bundle {folder}: {MANIFEST} names no files, expected their checksums; "
            "copy or train the bundle again"
        )
    return values
