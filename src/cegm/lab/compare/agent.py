"""What holds one run on a machine of a cluster: starts its process there, tells how it is, and hands its files over.

Nothing here knows Ray; `cluster` makes an actor of it.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cegm.durable import sole_writer
from cegm.lab.compare.launch import LOG, LocalProcess
from cegm.lab.train.provenance import code_hash, versions

MARK = ".mark"
"""File with a random word in a comparison folder: a machine that reads the same word there sees the same folder."""

TOLD_AS_WRITTEN = (LOG, "metrics.jsonl")
LEFT_BEHIND = ("checkpoints", LOG)

PATIENCE_SECONDS = 1.0
"""How long an answer waits for something to happen, so that hundreds of runs are not asked hundreds of times a second."""

FREE_SECONDS = 30.0
PIECE_BYTES = 16 << 20


class News(NamedTuple):
    """What happened since the last time.

    Attributes:
        code: Exit code of the run; None while it runs.
        written: New bytes of its log and its metrics by file name; nothing where the folder is shared.
    """

    code: int | None
    written: dict[str, bytes]


def identity() -> dict[str, str]:
    """Versions of what a result depends on, and the hash of cegm's code; the same on every machine of a comparison."""
    return {**versions(), "code": code_hash()}


class Agent:
    """One run on the machine where this object lives."""

    def start(
        self, folder: str, mark: str, name: str, line: dict[str, Any], directory: str, expected: Mapping[str, str]
    ) -> bool:
        """Starts the run in the comparison folder if this machine sees it, otherwise in a folder of its own.

        Args:
            folder: Comparison folder, absolute.
            mark: Content of its mark.
            name: Name of the run folder.
            line: Line of the plan.
            directory: Where relative paths of the plan begin, if that folder is here.
            expected: `identity()` of the machine that compares.

        Returns:
            Whether it writes into the comparison folder.

        Raises:
            ValueError: Other code or packages here; results would not belong together.
        """
        require_same(expected, identity())
        self._shared = _reads(Path(folder) / MARK) == mark
        self._run_folder = (Path(folder) / "runs" if self._shared else own_folder(mark)) / name
        self._run_folder.mkdir(parents=True, exist_ok=True)
        _wait_until_free(self._run_folder)
        self._told = {LOG: _size(self._run_folder / LOG), "metrics.jsonl": 0}
        self._process = LocalProcess(self._run_folder, line, directory if os.path.isdir(directory) else None)
        return self._shared

    def news(self) -> News:
        """How the run is, after a moment in which something may happen."""
        code = self._process.wait(PATIENCE_SECONDS)
        return News(code, {} if self._shared else {name: self._new(name) for name in TOLD_AS_WRITTEN})

    def _new(self, name: str) -> bytes:
        path = self._run_folder / name
        self._told[name] = min(self._told[name], _size(path))  # a resumption cuts lines off
        piece = _piece(path, self._told[name]) if path.exists() else b""
        self._told[name] += len(piece)
        return piece

    def files(self) -> dict[str, int]:
        """Bytes of every file of the run but checkpoints and log, by path in the run folder."""
        paths = [path.relative_to(self._run_folder) for path in self._run_folder.rglob("*") if path.is_file()]
        kept = [path for path in paths if path.parts[0] not in LEFT_BEHIND]
        return {path.as_posix(): _size(self._run_folder / path) for path in kept}

    def read(self, name: str, offset: int) -> bytes:
        """The next piece of a file."""
        return _piece(self._run_folder / name, offset)

    def stop(self) -> None:
        """Ends the run if it has not ended."""
        self._process.stop()
        self._process.close()

    def close(self) -> None:
        """Ends the run, and removes the folder of its own unless a checkpoint in it lets a later try go on."""
        self.stop()
        if not self._shared and not (self._run_folder / "checkpoints").is_dir():
            shutil.rmtree(self._run_folder, ignore_errors=True)


def require_same(expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raises ValueError, naming this machine, when what results depend on is not what it is there."""
    other = [
        f"{name} {found.get(name)} instead of {value}" for name, value in expected.items() if found.get(name) != value
    ]
    if other:
        raise ValueError(f"machine {socket.gethostname()} has {', '.join(other)}; install the same on every machine")


def own_folder(mark: str) -> Path:
    """Where runs of a comparison lie on a machine that does not see its folder; of this user alone.

    Raises:
        OSError: Somebody else made it.
    """
    place = Path(tempfile.gettempdir()) / f"cegm-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    if place.lstat().st_uid != os.getuid() or place.is_symlink():
        raise PermissionError(f"{place} belongs to another user; remove it, or set TMPDIR on that machine")
    return place / mark


def _wait_until_free(run_folder: Path) -> None:
    """Until the process of an earlier try, whose end may have been noticed before it ended, has let go of the folder."""
    end = time.monotonic() + FREE_SECONDS
    while True:
        try:
            with sole_writer(run_folder):
                return
        except ValueError:
            if time.monotonic() > end:
                raise OSError(f"{run_folder} is still written to by another process") from None
            time.sleep(0.1)


def _reads(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _piece(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)
