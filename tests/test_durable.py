"""Files and folders are there as a whole or not at all, and one process at a time writes to a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cegm import durable
from cegm.durable import move_whole, sha256, sole_writer, write_whole

HOLD = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print('held', flush=True); input()"


def test_a_file_is_replaced_in_one_move(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    assert write_whole(path, "neu: ü") == path
    assert path.read_text(encoding="utf-8") == "neu: ü"
    assert write_whole(path, b"\x00\xff").read_bytes() == b"\x00\xff"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_file_that_cannot_be_synced_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"


def folder(place: Path, content: str) -> Path:
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "file").write_text(content)
    return place


def test_a_folder_replaces_an_older_one(tmp_path: Path) -> None:
    folder(tmp_path / "place", "old")
    (tmp_path / "place" / "only-old").write_text("x")
    move_whole(folder(tmp_path / "written", "new"), tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (tmp_path / "place" / "sub" / "file").read_text() == "new"
    assert not (tmp_path / "place" / "only-old").exists()
    move_whole(folder(tmp_path / "written", "deep"), tmp_path / "not" / "there" / "yet")
    assert (tmp_path / "not" / "there" / "yet" / "sub" / "file").read_text() == "deep"


def test_known_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    refused = pytest.raises(ValueError, match=f"another process is writing to {tmp_path}")
    with sole_writer(tmp_path), refused, sole_writer(tmp_path):
        pass
    with sole_writer(tmp_path):
        assert not list(tmp_path.iterdir())


def test_a_killed_writer_lets_others_in(tmp_path: Path) -> None:
    words = [sys.executable, "-S", "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="another process"), sole_writer(tmp_path):
            pass
        other.kill()
        other.wait()
        with sole_writer(tmp_path):
            pass
