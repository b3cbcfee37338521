"""The terminal's view reads in 80 columns, in any width, and as lines where there is no terminal; nothing of a file steers it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from cegm.lab.cli import main
from cegm.lab.watch import screen
from cegm.lab.watch.answers import MINUS
from cegm.lab.watch.screen import BARS, frame, sentence, sparkline
from cegm.lab.watch.watched import Watched
from made_runs import layer_names, lines_of, make_comparison, make_run, planned

FAR = {("adamw", 0): 400, ("cegm", 0): 200, ("muon", 0): 0}


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    return make_comparison(tmp_path / "comparison", 400, FAR, 10, layer_names(14))


def drawn(watched: Watched, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None, force_terminal=False)
    console.print(frame(watched, 0.0, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 132])
def test_no_line_is_wider_than_the_terminal_and_all_is_there(comparison: Path, width: int) -> None:
    lines = drawn(Watched(comparison), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for part in (
        "comparison: CEGM seed 0", "running", "healthy?", "better?", "done?", "cost?", f"{MINUS}0.16", "Step 200 of 400", "1 min 4", "loss",
        "baseline's", "difference", "rate, matrices", "passes, ms", "update, ms", "14 layers", "cosine of raw and mapped", "AdamW seed 0",
    ):  # fmt: skip
        assert part in text, part


def test_the_first_screen_of_eighty_by_twenty_four_answers_all_four_questions(comparison: Path) -> None:
    top = "\n".join(drawn(Watched(comparison), 80)[:24])
    for part in ("healthy?", "better?", "done?", "cost?", "loss", "difference", "clip factor"):
        assert part in top


def test_a_value_stands_before_its_curve(comparison: Path) -> None:
    lines = drawn(Watched(comparison), 80)
    row = next(line for line in lines if line.startswith("validation"))
    assert row.split()[1] == f"{(2.35 + 4 * 2.718281828**-2.5 - 0.17) * 0.31:.4f}"
    assert set(row.split()[2]) <= set(BARS)


def test_bars_rise_with_values_and_leave_gaps() -> None:
    assert sparkline([0, 1, None, 7], 10) == "▁▂ █"
    assert sparkline([1.0] * 3, 10) == "▁▁▁"
    assert sparkline([None], 10) == sparkline([], 10) == ""
    long = sparkline(list(range(1000)), 50)
    assert len(long) == 50
    assert list(long) == sorted(long)


def test_alarms_are_said_in_full(comparison: Path) -> None:
    folder = next((comparison / "runs").glob("cegm*"))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("broken\nbroken\n")
    watched = Watched(comparison)
    assert "2 lines of metrics.jsonl cannot be read" in " ".join(drawn(watched, 80))
    assert "1 alarm" in sentence(watched, 0.0)
    assert "cannot be read" in sentence(watched, 0.0)


def test_nothing_of_a_file_steers_the_terminal(tmp_path: Path) -> None:
    hostile = "\x1b[2J\x1b]0;title\x07[red]bold[/red]\u202e"
    plan = planned("cegm", 0, 400, arm=hostile)
    folder = tmp_path / f"a{hostile.replace('/', '')}b"
    folder.mkdir()
    (folder / "plan.jsonl").write_text(json.dumps(plan) + "\n")
    (folder / "runs" / f"cegm-seed0-{plan['id']}").mkdir(parents=True)
    (folder / "runs" / f"cegm-seed0-{plan['id']}" / "result.json").write_text(
        json.dumps({"status": "failed", "error": hostile})
    )
    watched = Watched(folder)
    text = "".join([*drawn(watched, 80), sentence(watched, 0.0)])
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "[red]bold" in text


def test_a_finished_run_is_told_in_one_line_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"method": "cegm", "seed": 1, "max_steps": 100}
    make_run(tmp_path / "run", config, lines_of(100, 100, 10, []))
    assert main(["watch", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "CEGM seed 1 step 100 of 100: healthy; no baseline; finished; 50 s" in told


def test_a_run_that_goes_on_is_told_once_a_minute(
    comparison: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(screen.time, "sleep", wait)
    assert main(["watch", str(comparison)]) == 0  # Ctrl-C is how one leaves
    assert waits == [60.0] * 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "(1 of 3 runs ended) step 200 of 400" in lines[0]
    assert f"{MINUS}0.1649 nats than AdamW seed 0" in lines[0]


def test_the_command_refuses_what_it_cannot_watch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused: Callable[[list[str]], int] = main
    assert refused(["watch", str(tmp_path)]) == 2
    assert "is no run, comparison or pilot" in capsys.readouterr().err
    assert refused(["watch", str(tmp_path), "--port", "70000"]) == 2
    assert "port=70000" in capsys.readouterr().err
