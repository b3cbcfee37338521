"""The step of a run, read from a file that grows, is cut or is replaced, and how many bytes that takes."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rich")

from cegm.lab.compare import progress
from cegm.lab.compare.progress import TAIL_BYTES, StepReader

LAYERS = {f"model.layers.{index}.mlp.down_proj": {"gradient_norm": 0.123456789} for index in range(3000)}
"""As many that a line takes 200 kB."""


def line(step, **more):
    return json.dumps({"kind": "train", "step": step, "layers": LAYERS, **more, "batch_hash": f"{step:064x}"}) + "\n"


def add(path, text):
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def bytes_read():
    counts = dict(row.split(": ") for row in Path("/proc/self/io").read_text(encoding="utf-8").splitlines())
    return int(counts["rchar"])


def test_only_the_end_of_a_file_is_read_and_only_when_it_has_changed(tmp_path):
    if not Path("/proc/self/io").exists():
        pytest.skip("this system does not count what a process reads")
    path = tmp_path / "metrics.jsonl"
    reader, looks, own = StepReader(path), 40, bytes_read()
    own = bytes_read() - own  # of counting
    before = bytes_read()
    for step in range(1, looks + 1):
        add(path, line(step))
        assert [reader.step() for _ in range(5)] == [step] * 5
    assert TAIL_BYTES > len(line(1)) > 200_000
    assert bytes_read() - before - own <= looks * TAIL_BYTES


def test_a_line_longer_than_the_tail_is_seen(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(7, note="x" * (5 * TAIL_BYTES)) + line(8), encoding="utf-8")
    assert StepReader(path).step() == 8


@pytest.mark.parametrize("share", [0.0001, 0.5, 0.9999])
def test_a_line_that_is_half_written_counts_when_it_is_whole(tmp_path, share):
    path, whole = tmp_path / "metrics.jsonl", line(20)
    reader, cut = StepReader(path), int(share * len(whole))
    add(path, line(10) + whole[:cut])
    assert reader.step() == 10
    add(path, whole[cut:-1])
    assert reader.step() == 10
    add(path, "\n")
    assert reader.step() == 20


def test_a_file_that_a_resumption_cut_goes_back_to_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    reader = StepReader(path)
    add(path, line(10) + line(20))
    checkpoint = path.stat().st_size
    add(path, line(30) + line(40)[:1000])
    assert reader.step() == 30
    os.truncate(path, checkpoint)
    assert reader.step() == 20
    add(path, line(30))
    assert reader.step() == 30


def test_a_file_that_was_cut_and_grew_past_its_old_end_between_two_looks_is_read_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    reader = StepReader(path)
    add(path, line(10))
    checkpoint = path.stat().st_size
    add(path, line(50))
    assert reader.step() == 50
    os.truncate(path, checkpoint)
    add(path, line(20, note="another try") + '{"kind": "tr')
    assert reader.step() == 20


@pytest.mark.parametrize("after", [line(3), line(3, note="longer") * 4, line(3)[:100], ""])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_was_replaced_is_read_from_its_start(tmp_path, after, in_place):
    path, other = tmp_path / "metrics.jsonl", tmp_path / "other"
    reader = StepReader(path)
    add(path, line(10) + line(20))
    assert reader.step() == 20
    (path if in_place else other).write_text(after, encoding="utf-8")
    if not in_place:
        other.replace(path)
    assert reader.step() == (3 if after.endswith("\n") else 0)


def test_a_file_that_is_not_there_or_is_gone_again_has_no_step(tmp_path):
    path = tmp_path / "runs" / "run" / "metrics.jsonl"
    reader = StepReader(path)
    assert reader.step() == 0
    path.parent.mkdir(parents=True)
    add(path, line(10))
    assert reader.step() == 10
    path.unlink()
    assert reader.step() == 0
    add(path, line(4))
    assert reader.step() == 4


@pytest.mark.parametrize(
    "other", ['{"kind": "final", "steps": 9}\n', "\n", "[]\n", "{broken\n", '{"step": null}\n', "\xff\n"]
)
def test_a_line_without_a_step_leaves_that_of_the_line_before(tmp_path, other):
    path = tmp_path / "metrics.jsonl"
    reader = StepReader(path)
    path.write_bytes(line(10).encode() + other.encode("latin-1"))
    assert reader.step() == 10


BARS = """
from types import SimpleNamespace as Run
from cegm.lab import streams
from cegm.lab.compare.progress import Bars
with streams.readable():
    runs = [Run(id=str(seed), arm="cegm", role="main", seed=seed, config={"max_steps": 10}) for seed in range(3)]
    with Bars(runs) as bars:
        for step in range(10):
            bars.watch([(run, step) for run in runs], {})
    print("done")
"""


@pytest.mark.parametrize(
    ("size", "environment"),
    [
        ((0, 0), {}),
        ((1, 1), {}),
        ((24, 80), {"TERM": "dumb", "PYTHONIOENCODING": "ascii"}),
        ((24, 80), {"TERM": "", "NO_COLOR": "1", "PYTHONIOENCODING": "latin-1"}),
        ((24, 80), {"COLUMNS": "0", "LINES": "0"}),
    ],
)
def test_bars_are_drawn_on_any_terminal(size, environment):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    given = {"TERM": "xterm", "PYTHONPATH": str(Path(progress.__file__).parents[3]), **environment}
    process = subprocess.Popen([sys.executable, "-c", BARS], stdout=slave, stderr=slave, env={**os.environ, **given})
    os.close(slave)
    shown = b""
    while piece := _more(master):
        shown += piece
    os.close(master)
    assert process.wait(60) == 0, shown
    assert shown.endswith(b"done\r\n")
    assert b"Traceback" not in shown


def _more(master):
    try:
        return os.read(master, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def test_runs_that_end_are_told_and_a_line_a_minute_where_there_is_no_terminal(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    runs = [
        SimpleNamespace(id=str(seed), arm="muon", role="main", seed=seed, config={"max_steps": 10}) for seed in range(3)
    ]
    ended = {"status": "finished", "bits_per_byte": 0.71234, "steps": 10, "seconds": 9.6}
    results = {"0": ended}  # is there already
    with progress.Bars(runs) as bars:
        bars.watch([(runs[1], 2)], results)
        results["1"] = ended
        bars.watch([(runs[2], 1)], results)
        clock[0] = 61.0
        bars.watch([(runs[2], 5)], results)
        bars.watch([(runs[2], 6)], results)
        bars.watch([], results | {"2": {"status": "failed", "error": "no memory [left]"}})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "muon seed 1: 0.7123 bits per byte after 10 steps, 10 s"
    assert lines[1].startswith("83 %, 2 of 3 runs  muon seed 2")
    assert lines[2] == "muon seed 2 failed: no memory [left]"
