"""Writing so that a kill or a power cut leaves a file, or a folder, as it was or as it shall be, and one writer at a time."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where nobody is kept out
    fcntl = None  # type: ignore[assignment]


def write_whole(path: Path, content: str | bytes) -> Path:
    """Writes a file beside and moves it into place, so that nobody ever reads half of it; text in UTF-8."""
    beside = path.with_name(f"{path.name}.partial")
    beside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    sync(beside)
    return beside.replace(path)


def move_whole(written: Path, place: Path) -> None:
    """Moves a folder with all that is in it to the disk, then into its place, where an older one may lie.

    The older one is set aside for the moment between the two renames, never deleted before the new one is there.
    """
    for path in (*written.rglob("*"), written):
        sync(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    old = written.with_name(f"{written.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        place.rename(old)
    written.rename(place)
    sync(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk.

    Raises:
        OSError: The disk did not take it; a file system that knows no such wait for folders is let pass.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sha256(path: Path, size: int | None = None) -> str:
    """sha256 of a file, or of its first `size` bytes, hex."""
    sha, left = hashlib.sha256(), path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while block := file.read(min(left, 1 << 20)):
            sha.update(block)
            left -= len(block)
    return sha.hexdigest()


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keeps every other process out of a folder; the end of this process, of whatever kind, lets them in again.

    Raises:
        ValueError: Another process is at work in it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is writing to {folder}; wait for it, end it, or give another output_dir"
            ) from None
        except OSError:  # some network file systems lock no folders
            pass
        yield
    finally:
        os.close(descriptor)
