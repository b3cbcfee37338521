"""Hashes of texts and models by what is read of them, wherever it lies: results are named by these. Nothing heavy is imported."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cegm.durable import sha256
from cegm.lab.files import ROW_SUFFIXES, text_files, walk
from cegm.lab.models.names import gguf_of
from cegm.lab.train.adapters import adapted_model
from cegm.lab.train.run_config import FRESH_MODELS, WORLD

NOT_OF_A_MODEL = (
    "README.md", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "trainer_state.json", "training_args.bin", "run_state.json",
    "manifest.json", "source.json",
)  # fmt: skip
"""Files that lie beside a model and say nothing about it."""

TEMPLATES = "additional_chat_templates"

SETTLED_SECONDS = 2.0
"""A file that was changed this shortly before it was hashed may change again and look the same: clocks of file systems are coarse."""

_known: dict[Path, tuple[tuple[int, ...], str]] = {}


def file_hash(path: Path) -> str:
    """sha256 of a file, hex; read once as long as size and times stay."""
    status = path.stat()
    looks = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if path in _known and _known[path][0] == looks:
        return _known[path][1]
    changed, now = max(status.st_mtime_ns, status.st_ctime_ns) / 1e9, time.time()
    found = sha256(path)
    if changed + SETTLED_SECONDS < now:
        _known[path] = looks, found
    return found


def text_hash(source: str) -> str | None:
    """Hash of the files that a source of text consists of, in their order; None for what is no file or folder here."""
    path = Path(source).expanduser()
    if source == WORLD or not path.exists():
        return None
    files = text_files(path)[0] if path.is_dir() else [path]
    return _combined((_kind(file), file) for file in files)


def _kind(path: Path) -> str:
    """What a suffix says of how a file is read."""
    return "rows" if path.suffix.lower() in ROW_SUFFIXES else "markup" if path.suffix.lower() == ".md" else "text"


def model_hash(name: str) -> str | None:
    """Hash of the files of a model's folder, and for adapters of the model below them, or of a GGUF file; None for what is neither."""
    folder, source = Path(name), gguf_of(name)
    if source is not None:
        return file_hash(source)
    if name in FRESH_MODELS or not folder.is_dir():
        return None
    files = [path for path in walk(folder)[0] if path.name not in NOT_OF_A_MODEL and _is_read(path.relative_to(folder))]
    own = _combined((path.relative_to(folder).as_posix(), path) for path in files)
    base = adapted_model(name)
    return own if base is None else _sha256(f"{own} on {model_hash(base) or base}")


def _is_read(path: Path) -> bool:
    return len(path.parts) == 1 or path.suffix == ".py" or path.parts[0] == TEMPLATES


def sets_hash(folder: Path, sets: Iterable[str]) -> str:
    """Hash of some of the public sets in a folder; one that is not there counts as empty."""
    files = [path for name in sorted(set(sets)) if (folder / name).is_dir() for path in walk(folder / name)[0]]
    return _combined((path.relative_to(folder).as_posix(), path) for path in files)


def _combined(named: Iterable[tuple[str, Path]]) -> str:
    names, paths = [], []
    for name, path in named:
        names.append(name)
        paths.append(path)
    with ThreadPoolExecutor() as pool:  # hashing holds no lock
        hashes = list(pool.map(file_hash, paths))
    return _sha256("\n".join(f"{digest} {name}" for digest, name in zip(hashes, names, strict=True)))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
