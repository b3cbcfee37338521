"""Folders that were damaged or forged, and text that wants to be code: one line, or a page in which it is text."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

import mutations
from cegm.lab.report import page
from cegm.lab.report.runs import Folder, read
from mutations import counts


@pytest.fixture(autouse=True)
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundling the chart library takes seconds and reads nothing."""
    monkeypatch.setattr(page, "library", str)


@pytest.fixture(scope="module")
def run(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run, without an audit log: nothing proves its numbers but their shape."""
    source = next(path for path in sorted((comparison / "runs").glob("cegm-seed0*")) if "equal" not in path.name)
    place = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(source, place)
    lines = (place / "metrics.jsonl").read_text().splitlines()  # a page of fewer lines is as wrong and sooner drawn
    short = [line for line in lines if '"layers"' not in line][::4] + [line for line in lines if '"layers"' in line][:1]
    (place / "metrics.jsonl").write_text("\n".join([*short, lines[-1]]) + "\n")
    return place


@counts(40, 1200)
def test_mutated_run_folders(run: Path, tmp_path: Path, count: int) -> None:
    """Lines that were not touched are read as they were; what is read can be drawn."""
    place, draw = Path(shutil.copytree(run, tmp_path / "run")), random.Random(6)
    known = {json.dumps(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()}
    for number in range(count):
        name = draw.choice(["metrics.jsonl", "metrics.jsonl", "config.yaml", "result.json"])
        original = (run / name).read_bytes()
        well_formed = name != "config.yaml" and draw.random() < 0.5
        (place / name).write_bytes((mutations.changed_line if well_formed else mutations.mutated)(original, draw))
        found = mutations.outcome(lambda: read(place))
        if isinstance(found, Folder):
            _lines_are_those_of_the_file(found, place, known)
            if number % 10 == 0 or (well_formed and number % 3 == 0):
                mutations.outcome(lambda found=found: page.render(found))
        (place / name).write_bytes(original)


def _lines_are_those_of_the_file(found: Folder, place: Path, known: set[str]) -> None:
    texts = [text for text in (place / "metrics.jsonl").read_text().split("\n") if text.strip()]
    untouched = [text for text in texts if text in known]
    (one,) = found.runs
    drawn = [json.dumps(line) for line in (*one.train, *one.validation)]
    of_kind = [[text for text in untouched if json.loads(text)["kind"] == kind] for kind in ("train", "validation")]
    assert [text for text in drawn if text in known] == [*of_kind[0], *of_kind[1]]


@counts(15, 300)
def test_mutated_comparisons(comparison: Path, tmp_path: Path, count: int) -> None:
    """The plan, and what its runs left; the rest of a comparison is its verdict, made from these."""
    place, draw = Path(shutil.copytree(comparison, tmp_path / "comparison")), random.Random(7)
    files = [place / "plan.jsonl", *sorted(place.glob("runs/*/result.json")), *sorted(place.glob("runs/*/config.yaml"))]
    for number in range(count):
        path = draw.choice(files)
        original = path.read_bytes()
        well_formed = path.suffix != ".yaml" and draw.random() < 0.5
        path.write_bytes((mutations.changed_line if well_formed else mutations.mutated)(original, draw))
        found = mutations.outcome(lambda: read(place))
        if isinstance(found, Folder) and number % 5 == 0:
            mutations.outcome(lambda found=found: page.render(found))
        path.write_bytes(original)
