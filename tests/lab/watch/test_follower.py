"""Lines of a file that grows, is cut by a resumption, is replaced, or is away: each is had once, and what is gone is told."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from cegm.lab.records import Final, Validation
from cegm.lab.watch.follower import Follower, Line, Reader, TrainLine
from made_runs import layer_names, lines_of, train_line

STEPS = 200


def add(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def lines(*steps: int, seconds: float = 0.5) -> str:
    return "".join(train_line(step, STEPS, [], seconds=step * seconds) for step in steps)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


class Page:
    """Keeps what a page would: the lines that it was given, less those that it was told are gone."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.lines = reader, list[Line]()

    def look(self, most: int = 10_000) -> list[int]:
        kept, new = self.reader.news(most)
        if kept is not None:
            assert self.lines[: len(kept)] == kept
            del self.lines[len(kept) :]
        self.lines += new
        return self.steps

    @property
    def steps(self) -> list[int]:
        return [line.record.step for line in self.lines if isinstance(line.record, TrainLine)]


def test_a_file_that_is_not_there_yet_has_no_lines(path: Path) -> None:
    page = Page(Follower(path).reader())
    assert page.look() == []
    add(path, lines(1))
    assert page.look() == [1]


def test_every_kind_of_line_is_read_and_layers_are_left_in_the_file(path: Path) -> None:
    path.write_text("".join(lines_of(100, 100, 10, layer_names(3))), encoding="utf-8")
    follower = Follower(path)
    follower.look()
    kinds = [type(line.record) for line in follower.lines]
    assert kinds == [Validation, *[TrainLine] * 10, Validation, Final]
    assert [line.has_layers for line in follower.lines] == [kind is TrainLine for kind in kinds]
    assert follower.lines[-1].end == path.stat().st_size


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_half_a_line_is_waited_for(path: Path, share: float) -> None:
    whole = lines(20)
    cut = round(share * len(whole))
    page = Page(Follower(path).reader())
    add(path, lines(10) + whole[:cut])
    assert page.look() == [10]
    add(path, whole[cut:-1])
    assert page.look() == [10]
    add(path, "\n" + lines(30))
    assert page.look() == [10, 20, 30]


def test_a_line_that_cannot_be_read_is_passed_over_and_counted(path: Path) -> None:
    add(path, lines(10) + "{broken\n" + '{"kind": "train", "step": "20"}\n' + "\xff\n" + lines(30))
    follower = Follower(path)
    page = Page(follower.reader())
    assert page.look() == [10, 30]
    assert sum(line.record is None for line in follower.lines) == 3


def test_what_a_resumption_cuts_off_is_gone_and_comes_again_once(path: Path) -> None:
    """Whether the file was seen between the cut and the new lines or not; the lines of steps taken again differ by their clocks alone."""
    add(path, lines(10, 20))
    checkpoint = path.stat().st_size
    add(path, lines(30, 40) + lines(50)[:30])
    seen, unseen = (Page(Follower(path).reader()) for _ in range(2))
    assert seen.look() == unseen.look() == [10, 20, 30, 40]
    os.truncate(path, checkpoint)
    assert seen.look() == [10, 20]
    add(path, lines(30, 40, 50, 60, seconds=0.6))
    assert seen.look() == unseen.look() == [10, 20, 30, 40, 50, 60]
    assert [line.record.seconds for line in unseen.lines] == [5.0, 10.0, 18.0, 24.0, 30.0, 36.0]


def test_a_file_that_another_try_replaced_is_read_from_its_beginning(path: Path) -> None:
    add(path, lines(10, 20, 30))
    page = Page(Follower(path).reader())
    page.look()
    beside = path.with_name("beside")
    beside.write_text(lines(10, 20, 30, 40, seconds=0.7), encoding="utf-8")
    beside.replace(path)
    assert page.look() == [10, 20, 30, 40]
    assert page.lines[0].record.seconds == 7.0
    path.unlink()
    assert page.look() == []


def test_a_reader_who_comes_back_goes_on_behind_what_it_had_even_at_another_server(path: Path) -> None:
    add(path, lines(10, 20, 30))
    page = Page(Follower(path).reader())
    page.look()
    add(path, lines(40))
    kept, new = Follower(path).reader(page.reader.mark).news(100)
    assert kept is None
    assert [line.record.step for line in new] == [40]


@pytest.mark.parametrize("mark", ["7-00000000", "x", "-", "1", "99999999-0badcafe", "1e3-", "²-1"])
def test_a_mark_of_nothing_begins_anew_and_says_so(path: Path, mark: str) -> None:
    add(path, lines(10))
    kept, new = Follower(path).reader(mark).news(100)
    assert (kept, len(new)) == ([], 1)


def test_a_long_file_comes_in_pieces(path: Path) -> None:
    add(path, lines(*range(1, 101)))
    page = Page(Follower(path).reader())
    assert [len(page.look(30)) for _ in range(4)] == [30, 60, 90, 100]


def test_whatever_happens_to_the_file_a_page_has_each_line_once_and_in_order(tmp_path: Path) -> None:
    """Lines, halves of lines, cuts and replacements in any order, looked at now and then by three."""
    for trial in range(30):
        draw, path = random.Random(trial), tmp_path / f"{trial}.jsonl"
        follower = Follower(path)
        pages = [Page(follower.reader()) for _ in range(3)]
        content, clock = "", 0.1
        for _ in range(40):
            clock += 0.01
            kind = draw.random()
            if kind < 0.7 or not content:
                content += lines(content.count("\n") + 1, seconds=clock)
                half = content if draw.random() < 0.7 else content[: -draw.randint(1, 100)]
                path.write_text(half, encoding="utf-8")
            elif kind < 0.95:
                content = "".join(content.splitlines(keepends=True)[: draw.randint(0, content.count("\n"))])
                os.truncate(path, len(content))
            else:
                content = ""
                path.unlink(missing_ok=True)
            if draw.random() < 0.5:
                draw.choice(pages).look(draw.choice([2, 1000]))
        path.write_text(content, encoding="utf-8")
        for page in pages:
            for _ in range(30):
                page.look(5)
            assert page.steps == list(range(1, content.count("\n") + 1))
            assert "".join(content[line.start : line.end] for line in page.lines) == content


def test_how_long_a_file_has_been_silent_is_known_from_the_first_look(path: Path) -> None:
    add(path, lines(10))
    then = time.time() - 500
    os.utime(path, (then, then))
    follower = Follower(path)
    follower.look()
    assert time.monotonic() - follower.changed == pytest.approx(500, abs=5)
    add(path, lines(20))
    follower.look()
    assert time.monotonic() - follower.changed < 5
