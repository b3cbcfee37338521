"""The terminal table and the exported picture."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cegm.lab import cli, report
from cegm.lab.streams import PLAIN
from cegm.pages import MINUS


def test_the_table_is_aligned_and_complete(comparison: Path) -> None:
    lines = report.table(comparison).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["method", "CEGM", "Muon", "AdamW"]
    assert len({len(line) for line in lines[:4]}) == 1
    text = " ".join(lines)
    assert "In a screening with 3 seeds" in text
    assert "missed" in text
    assert "failed: muon-seed2-equal" in text


def test_every_axis_has_a_line_with_its_word(comparison: Path) -> None:
    lines = report.table(comparison).splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("axis"))
    assert lines[head].split()[:5] == ["axis", "unit", "AdamW", "Muon", "CEGM"]
    axis, *rest = lines[head + 1].split()
    assert (axis, rest[0]) == ("retention", "%")
    verdict = json.loads((comparison / "verdict.json").read_text())
    measure = next(measure for measure in verdict["measures"] if measure["name"] == "retention")
    assert rest[1:4] == [f"{100 * measure['methods'][m]['mean']:.1f}" for m in ("adamw", "muon", "cegm")]
    entry = next(entry for entry in measure["pairs"] if entry["pair"] == ["cegm", "adamw"])
    assert lines[head + 1].endswith(entry["word"])


def test_the_column_of_the_axes_says_what_it_holds(comparison: Path, make: Any) -> None:
    def heading(folder: Path) -> str:
        return next(line for line in report.table(folder).splitlines() if line.startswith("axis"))

    assert "each seed" in heading(comparison)
    assert "interval" not in heading(comparison)
    verdict = json.loads((comparison / "verdict.json").read_text())
    measure = next(measure for measure in verdict["measures"] if measure["name"] == "retention")
    points = next(entry for entry in measure["pairs"] if entry["pair"] == ["cegm", "adamw"])["points"]
    assert len(points) == 3
    told = ", ".join(f"{'+' if point > 0 else MINUS}{abs(100 * point):.1f}" for point in points)
    assert told in report.table(comparison)
    assert "95 % interval" in heading(make(seeds=5, steps=40, layers=[]))


def test_a_method_of_which_every_run_failed_is_named_and_the_others_are_judged(make: Any) -> None:
    failed = frozenset(("muon", seed, role) for seed in range(3) for role in ("main", "equal_seconds"))
    text = report.table(make(steps=40, layers=[], failed=failed))
    assert "CEGM ends with a lower validation loss than AdamW; Muon failed on every seed." in text
    assert "Failed on every seed, and so not judged: muon." in " ".join(text.split())
    assert "Nothing can be concluded" not in text


def test_a_picture_that_cannot_be_written_leaves_the_old_one(
    comparison: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "picture.svg"
    path.write_text("as it was")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cegm.durable.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        report.export_picture(comparison, path)
    assert path.read_text() == "as it was"


def test_an_error_message_cannot_steer_the_terminal(make: Any) -> None:
    folder = make(seeds=1, steps=40, error="\x1b[31mred\x07", failed=frozenset({("muon", 0, "main")}))
    assert "\x1b" not in report.table(folder)
    assert "[31mred" in report.table(folder)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_comparison_is_told_on_any_terminal(comparison: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("cegm.lab.compare.comparison.compare", lambda config: comparison)
    monkeypatch.setattr(report, "write", lambda folder: folder / "report.html")
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["compare"]) == 1  # a run of it failed
    told = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    shown = (sign if sign.encode(encoding, "ignore") else PLAIN[sign] for sign in report.table(comparison))
    assert told.startswith("".join(shown))


@pytest.mark.parametrize(("name", "start"), [("picture.svg", b"<svg"), ("picture.png", b"\x89PNG")])
def test_the_picture_is_written(comparison: Path, tmp_path: Path, name: str, start: bytes) -> None:
    path = report.export_picture(comparison, tmp_path / name)
    content = path.read_bytes()
    assert content.startswith(start)
    assert name.endswith(".png") or b"AdamW" in content


def test_another_ending_is_refused(comparison: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end the name in \.svg or \.png"):
        report.export_picture(comparison, tmp_path / "picture.gif")
