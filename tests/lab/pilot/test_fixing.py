"""What was fixed stays fixed: a criterion, an item or a lesson that changed afterwards is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cegm.lab.cli import main
from cegm.lab.declarations import read_yaml
from cegm.lab.train.audit import read


@pytest.fixture
def file(three_lines: Callable[..., Path]) -> Path:
    """The file of a pilot that was fixed and not run."""
    path = three_lines()
    assert main(["pilot", "fix", str(path)]) == 0
    return path


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["pilot", *words]) == 2
    return capsys.readouterr().err


def test_three_lines_suffice_and_every_default_is_printed(questions, tmp_path, capsys):
    (tmp_path / "pilot.yaml").write_text(f"task: faq\ndata: {questions}\nvalue: 100\n")
    words = ["pilot", "fix", str(tmp_path / "pilot.yaml"), "--output_dir", str(tmp_path / "out")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for line in (
        "kpi: chosen",
        "smallest_worthwhile: 0.01",
        "horizon_months: 12.0",
        "model_name_or_path: smollm2",
        "lora_r: 16",
    ):
        assert line in printed
    assert "ends in GO with a probability of 0.8" in printed


def test_the_chain_holds_criteria_their_hash_and_the_ids_of_all_items(file: Path) -> None:
    events, _ = read(file.parent / "pilot" / "audit.jsonl")
    assert [event["event"] for event in events] == ["fix"]
    rows = (file.parent / "pilot" / "data" / "company" / "test.jsonl").read_text().splitlines()
    assert events[0]["items"].keys() == {json.loads(row)["id"] for row in rows}
    assert events[0]["criteria"]["kpi"] == "chosen"
    assert events[0]["criteria"]["seeds"] == "0,1"


def test_what_fix_writes_is_the_same_pilot_again(file: Path, capsys) -> None:
    written = read_yaml(str(file.parent / "pilot" / "pilot.yaml"))
    assert written["kpi"] == "chosen"
    assert written["max_steps"] == 2
    assert "holds a pilot that was fixed at" in refused(["fix", str(file.parent / "pilot" / "pilot.yaml")], capsys)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kpi": "embedded"}, "kpi was changed from 'chosen' to 'embedded' after it was fixed at 20"),
        ({"smallest_worthwhile": 0.001}, "smallest_worthwhile was changed from 0.01 to 0.001"),
        ({"seeds": "0,2"}, "seeds was changed from '0,1' to '0,2'"),
        ({"max_steps": 3}, "max_steps was changed from 2 to 3"),
        ({"value": 1000}, "value was changed from 100.0 to 1000.0"),
    ],
)
def test_a_criterion_that_was_edited_after_the_fix_is_refused_by_name(file: Path, change, told, capsys) -> None:
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **change}))
    for step in ("run", "page"):
        assert told in refused([step, str(file)], capsys)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda lines: lines[1:], "was removed after the fix"),
        (lambda lines: [lines[0].replace("Tell", "Ask"), *lines[1:]], "was changed after the fix"),
        (lambda lines: [*lines, lines[0].replace('"id": "', '"id": "x')], "was added after the fix"),
    ],
)
def test_an_item_that_was_removed_changed_or_added_is_refused_by_name(file: Path, edit, told, capsys) -> None:
    path = file.parent / "pilot" / "data" / "company" / "test.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(edit(lines)))
    error = refused(["run", str(file)], capsys)
    assert told in error
    name = json.loads(lines[0])["id"]
    assert f"item {name}" in error or f"item x{name}" in error


def test_lessons_that_were_changed_are_refused(file: Path, capsys) -> None:
    lessons = file.parent / "pilot" / "data" / "lessons.jsonl"
    lessons.write_text(lessons.read_text() + lessons.read_text().splitlines()[0] + "\n")
    assert "lessons.jsonl was changed after it was fixed" in refused(["run", str(file)], capsys)


def test_a_chain_that_was_edited_is_refused(file: Path, capsys) -> None:
    chain = file.parent / "pilot" / "audit.jsonl"
    chain.write_text(chain.read_text().replace('"kpi": "chosen"', '"kpi": "embedded"'))
    assert "line 1 does not continue the line before" in refused(["run", str(file)], capsys)


def test_without_a_fix_nothing_runs(three_lines: Callable[..., Path], capsys) -> None:
    assert "holds no pilot; fix one first" in refused(["run", str(three_lines())], capsys)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": "sums"}, "task='sums' is none of faq, search, summaries"),
        ({"data": ""}, "which data?"),
        ({"value": 0}, "what is a right answer worth?"),
        ({"kpi": "rouge"}, "kpi='rouge' is no measure of faq"),
        ({"against": "muon"}, "'muon' is judged but not trained"),
        ({"against": "cegm"}, "is the method itself"),
        ({"seeds": "1"}, "leaves nothing to judge by"),
        ({"itms": 5}, "unknown option 'itms'"),
    ],
)
def test_mistakes_are_told_in_one_line(three_lines: Callable[..., Path], change, told, capsys) -> None:
    assert told in refused(["fix", str(three_lines(**change))], capsys)
