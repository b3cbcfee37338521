"""A full disk stops no answer, a kill leaves no half line, and what is lost is counted."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from cegm.lab.records import Request, line
from cegm.lab.rollout import request_log
from cegm.lab.rollout.request_log import LineLog, next_number, read


def request(number: int) -> Request:
    return Request(
        number=number, time="t", user="0" * 16, stage="all", variant="champion", shadow=False, status=200, seconds=0.5,
        characters=3, refused=False,
    )  # fmt: skip


class Disk:
    """A disk with so much room, which takes a part of what does not fit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self._write = room, os.write
        monkeypatch.setattr(request_log.os, "write", self)

    def __call__(self, file: int, content: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        size = self._write(file, content[: self.room])
        self.room -= size
        return size


def test_lines_wait_for_room_and_then_stand_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, disk = LineLog(tmp_path / "requests.jsonl"), Disk(monkeypatch, room=len(line(request(1))) * 3 // 2)
    for number in range(1, 6):
        log.append(request(number))
    assert log.error == "No space left on device"
    assert (log.waiting, log.lost) == (4, 0)
    assert [each.number for each in read(tmp_path / "requests.jsonl")] == [1], "half a line is not read"
    disk.room = 10_000
    log.flush()
    assert (log.error, log.waiting) == ("", 0)
    assert [each.number for each in read(tmp_path / "requests.jsonl")] == [1, 2, 3, 4, 5]


def test_what_memory_does_not_hold_either_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "MOST_PENDING", len(line(request(1))) * 5 // 2)
    log, disk = LineLog(tmp_path / "requests.jsonl"), Disk(monkeypatch, room=0)
    for number in range(1, 6):
        log.append(request(number))
    assert log.lost == 5 - log.waiting > 0
    disk.room = 10_000
    log.append(request(6))
    assert [each.number for each in read(tmp_path / "requests.jsonl")][-1] == 6


@pytest.mark.parametrize("rest", [b"", b"{", b'{"number": 9', b"x" * 200_000])
def test_the_start_of_a_line_is_cut_off(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "requests.jsonl"
    log = LineLog(path)
    log.append(request(1))
    log.close()
    path.write_bytes(path.read_bytes() + rest)
    log = LineLog(path)
    log.append(request(2))
    assert [each.number for each in read(path)] == [1, 2]


def test_a_file_of_one_unfinished_line_becomes_empty(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 100_000)
    LineLog(tmp_path / "log").close()
    assert (tmp_path / "log").read_bytes() == b""


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"requests\.jsonl line 1 is not as it was written"):
        list(read(path))


def test_only_the_owner_reads_the_log(tmp_path: Path) -> None:
    LineLog(tmp_path / "log").close()
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


def test_numbers_of_answers_that_had_begun_are_not_given_again() -> None:
    assert next_number([]) == 1
    assert next_number(map(request, (1, 5, 3))) == 5 + request_log.OPEN_REQUESTS + 1


def test_rewriting_waits_for_lines_that_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, changed = LineLog(tmp_path / "log"), list[Any]()
    log.rewrite(changed.append)
    Disk(monkeypatch, room=0)
    log.append(request(1))
    log.rewrite(changed.append)
    assert changed == [tmp_path / "log"]
