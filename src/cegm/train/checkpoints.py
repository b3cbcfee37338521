"""Checkpoints: Hugging Face files plus `manifest.json` with the hash and size of each, renamed into place when complete."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

MANIFEST = "manifest.json"


def seal(written: Path, place: Path) -> str:
    """Gives a written checkpoint its manifest and moves it to `place`; a reader never sees half of one.

    Returns:
        sha256 of the manifest, hex.
    """
    files = sorted(path for path in written.rglob("*") if path.is_file() and path.name != MANIFEST)
    entries = {
        path.relative_to(written).as_posix(): {"sha256": _sha256(path), "size": path.stat().st_size} for path in files
    }
    manifest = written / MANIFEST
    with manifest.open("w", encoding="utf-8") as file:
        json.dump({"files": entries}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    digest = _sha256(manifest)
    if place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    written.rename(place)
    return digest


def verify(checkpoint: Path) -> None:
    """Checks every file of a checkpoint against its manifest.

    Raises:
        ValueError: No checkpoint there, or the first file that is missing, changed or not listed.
    """
    if not checkpoint.is_dir():
        raise ValueError(f"checkpoint {checkpoint} does not exist; give a folder step-N of a run")
    try:
        entries = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"checkpoint {checkpoint} has no readable {MANIFEST}; use another checkpoint") from None
    present = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()} - {MANIFEST}
    for name in sorted(present ^ set(entries)):
        state = "is missing" if name in entries else "is not in the manifest"
        raise ValueError(f"checkpoint {checkpoint} is damaged: {name} {state}; use another checkpoint")
    for name, entry in entries.items():
        path = checkpoint / name
        if path.stat().st_size != entry["size"] or _sha256(path) != entry["sha256"]:
            raise ValueError(
                f"checkpoint {checkpoint} is damaged: {name} differs from the manifest; use another checkpoint"
            )


def find(resume_from: str, output_dir: Path) -> Path:
    """The checkpoint that `resume_from_checkpoint` means, verified: a folder, or `latest` for the newest one of the run.

    Raises:
        ValueError: There is none, or it is damaged.
    """
    if resume_from != "latest":
        checkpoint = Path(resume_from)
    else:
        folders = [path for path in (output_dir / "checkpoints").glob("step-*") if path.name[5:].isdigit()]
        if not folders:
            raise ValueError(
                f"{output_dir} has no checkpoint to resume from; run with save_steps, or without resume_from_checkpoint"
            )
        checkpoint = max(folders, key=lambda path: int(path.name[5:]))
    verify(checkpoint)
    return checkpoint


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
