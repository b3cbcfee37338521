"""Byte-level text, generated or from a folder, cut into training and validation parts; needs numpy only."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from cegm.lab import world
from cegm.lab.files import text_files

WORLD = Path("world")
WORLD_DOCUMENTS = {"train": 20_000, "validation": 1_000}

VALIDATION_PART = 20
"""One file in so many is held out; of a single file, its last such part."""


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation bytes, (bytes,) uint8 each, of the generated `world`, a file, or all .txt and .md files in a folder."""
    if path == WORLD:
        parts = {s: "\n".join(itertools.islice(world.documents(0, s), n)) for s, n in WORLD_DOCUMENTS.items()}
        return tuple(np.frombuffer(part.encode(), dtype=np.uint8) for part in parts.values())
    files = [path] if path.is_file() else text_files(path)[0]
    if not files:
        raise SystemExit(f"{path} holds no .txt or .md file")
    texts = [np.frombuffer(file.read_bytes(), dtype=np.uint8) for file in files]
    if len(texts) == 1:
        cut = len(texts[0]) * (VALIDATION_PART - 1) // VALIDATION_PART
        return texts[0][:cut], texts[0][cut:]
    held_out = texts[::VALIDATION_PART]
    training = [text for index, text in enumerate(texts) if index % VALIDATION_PART]
    return np.concatenate(training), np.concatenate(held_out)


def rows(text: np.ndarray, count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Rows at random places, (count, length) int64."""
    starts = rng.integers(0, len(text) - length, count)
    return text[starts[:, None] + np.arange(length)].astype(np.int64)
