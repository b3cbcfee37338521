"""Checkpoints: Hugging Face files plus `manifest.json` with the hash and size of each, renamed into place when complete.

A checkpoint counts only if every file in it is what the manifest says, and the manifest what was written. Nothing in it
is ever unpickled: weights are safetensors, everything else is JSON or loads with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from cegm.durable import move_whole, sha256
from cegm.lab.records import Count

MANIFEST = "manifest.json"
PREFIX = "step-"
PICKLES = (".bin", ".pkl", ".pickle")
"""Files that can only be read by running what they say."""

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"

WRITING = ".writing"
"""Folder beside the checkpoints for what is not whole yet, or no longer."""


class File(msgspec.Struct, forbid_unknown_fields=True):
    """A file of a `Manifest`."""

    sha256: str
    size: Count


class Manifest(msgspec.Struct):
    """`manifest.json` of a checkpoint; `sha256` is that of the two others as JSON, and written last."""

    step: Count
    files: dict[str, File]
    sha256: str


class DamagedError(ValueError):
    """A checkpoint that is not what was written.

    Attributes:
        checkpoint: Its folder.
        reason: Which file, and what is wrong with it.
    """

    def __init__(self, checkpoint: Path, reason: str) -> None:
        self.checkpoint, self.reason = checkpoint, reason
        super().__init__(f"checkpoint {checkpoint} is damaged: {reason}; use another checkpoint")


def seal(written: Path, place: Path, step: int) -> str:
    """Gives a written checkpoint its manifest and moves it to `place` on the same file system; a reader never sees half of one.

    Returns the sha256 of the manifest, hex.
    """
    manifest = written / MANIFEST
    manifest.unlink(missing_ok=True)
    files = sorted(path for path in written.rglob("*") if path.is_file())
    entries = {path.relative_to(written).as_posix(): File(sha256(path), path.stat().st_size) for path in files}
    manifest.write_bytes(_manifest(step, entries))
    move_whole(written, place)
    return sha256(place / MANIFEST)


def _manifest(step: int, entries: dict[str, File]) -> bytes:
    """The one way to write a manifest down; it ends with its own hash, so that a changed byte anywhere shows."""
    content = {"step": step, "files": msgspec.to_builtins(entries)}
    own = hashlib.sha256(json.dumps(content, indent=1).encode("utf-8")).hexdigest()
    return json.dumps({**content, "sha256": own}, indent=1).encode("utf-8")


def verify(checkpoint: Path, may_lack: tuple[str, ...] = ()) -> int:
    """Checks every file of a checkpoint against its manifest, and the manifest against its own hash; returns the step.

    Raises DamagedError for the first file that is missing (but those it may lack), changed, not listed, or a pickle.
    """
    if not checkpoint.is_dir():
        raise ValueError(f"checkpoint {checkpoint} does not exist; give a folder step-N of a run")
    manifest = _read_manifest(checkpoint)
    entries = manifest.files
    found = {path.relative_to(checkpoint).as_posix(): path for path in checkpoint.rglob("*")}
    present = {name for name, path in found.items() if path.is_symlink() or not path.is_dir()} - {MANIFEST}
    for name in sorted(present ^ set(entries)):
        if name in present:
            raise DamagedError(checkpoint, f"{name} is not in the manifest")
        if name not in may_lack:
            raise DamagedError(checkpoint, f"{name} is missing")
    for name in sorted(present):
        if not _is_as_written(checkpoint, found[name], entries[name]):
            raise DamagedError(checkpoint, f"{name} differs from the manifest")
        if name.endswith(PICKLES):
            raise DamagedError(checkpoint, f"{name} is a pickle, which is never loaded")
    return manifest.step


def _is_as_written(checkpoint: Path, path: Path, entry: File) -> bool:
    try:
        size = path.stat().st_size
        return not path.is_symlink() and size == entry.size and sha256(path) == entry.sha256
    except OSError as error:  # a bad place on the disk
        raise DamagedError(checkpoint, f"{path.name} cannot be read ({error.strerror})") from None


def _read_manifest(checkpoint: Path) -> Manifest:
    try:
        raw = (checkpoint / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise DamagedError(checkpoint, f"{MANIFEST} is missing") from None
    except OSError as error:
        raise DamagedError(checkpoint, f"{MANIFEST} cannot be read ({error.strerror})") from None
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        manifest = None
    if manifest is None or raw != _manifest(manifest.step, manifest.files):
        raise DamagedError(checkpoint, f"{MANIFEST} is not what was written")
    return manifest


def numbered(folder: Path) -> list[Path]:
    """The `step-N` folders in the folder of checkpoints, the newest first."""
    names = [path for path in folder.glob(f"{PREFIX}*") if path.name[len(PREFIX) :].isdecimal()]
    return sorted(names, key=lambda path: int(path.name[len(PREFIX) :]), reverse=True)


def newest(folder: Path, check: Callable[[Path], Any]) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that passes a check, which raises DamagedError, and why each newer one does not."""
    passed_over: list[str] = []
    for checkpoint in numbered(folder):
        try:
            check(checkpoint)
        except DamagedError as error:
            passed_over.append(f"{checkpoint.name} is damaged: {error.reason}")
        else:
            return checkpoint, passed_over
    return None, passed_over


def remove(checkpoint: Path) -> None:
    """Deletes a checkpoint; whatever stops this, no half of one is left among the others."""
    leaving = checkpoint.parent / WRITING / checkpoint.name
    leaving.parent.mkdir(exist_ok=True)
    shutil.rmtree(checkpoint.replace(leaving))
