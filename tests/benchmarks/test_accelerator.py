"""The script for an accelerator, rehearsed on the processor: whoever rents one has no time for its mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import accelerator
import step_cost

SCRIPT = Path(accelerator.__file__).parent / "gpu.sh"


def run(folder, *flags):
    own = {"PYTHON": sys.executable, "OUT": str(folder), "OMP_NUM_THREADS": "1", "LIMIT": "800"}
    environment = {**os.environ, **own}  # a machine with other work may take more than the nine minutes
    return subprocess.run(["bash", SCRIPT, *flags], env=environment, capture_output=True, text=True, cwd=folder.parent)


def test_a_rehearsal_fills_every_part_of_one_file(tmp_path):
    done = run(tmp_path / "out", "--rehearse")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["accelerator.json"]
    found = json.loads((tmp_path / "out/accelerator.json").read_text())
    assert found["rehearsal"]
    parts = {name: part["found"] for name, part in found["parts"].items()}
    for line, width in zip(parts["cost"], accelerator.REHEARSAL.widths, strict=True):
        assert line["hidden"] == width
        assert set(line["methods"]) == {"muon", "normuon", "adamw", "cegm"}
        assert line["autocast"]
    assert set(parts["precision"]["validation"]) == {
        f"{method}, {way}" for method in ("muon", "cegm") for way in ("float32", "bfloat16 polar", "bfloat16 passes")
    }
    assert parts["precision"]["from_float32"]["cegm, float32"] == 0.0
    assert parts["precision"]["from_float32"]["cegm, bfloat16 passes"] != 0.0
    lines = parts["training"]["lines"]
    assert {line["method"] for line in lines} == {"adamw", "normuon", "cegm"}
    assert max(line["step"] for line in lines) == parts["training"]["steps"]
    assert found["seconds"] == pytest.approx(sum(part["seconds"] for part in found["parts"].values()), abs=60)


@pytest.mark.skipif(torch.cuda.is_available(), reason="would take nine minutes")
def test_without_an_accelerator_it_says_what_to_do(tmp_path):
    done = run(tmp_path / "out")
    assert done.returncode != 0
    assert done.stderr.strip() == "torch sees no accelerator here; --rehearse tries everything on the processor"


def test_a_part_that_fails_is_told_and_the_others_go_on(capsys):
    def broken(*_):
        raise RuntimeError("out of memory")

    told = accelerator.kept(broken, accelerator.REHEARSAL, 1.0, ())
    assert "out of memory" in told["error"]
    assert accelerator.kept(lambda: 5)["found"] == 5


def test_a_schedule_is_as_long_as_fits_and_two_steps_at_least():
    class Clock:
        seconds = 0.0

        def train(self, batches):
            self.seconds += 2.0 * len(batches)

    text = torch.arange(200).to(torch.uint8).numpy()
    sizes = accelerator.REHEARSAL
    for seconds, steps in ((1000.0, sizes.most_steps), (0.0, 2), (12.6, 2)):
        assert accelerator.steps_that_fit([Clock(), Clock()], sizes, seconds, text) == steps
    long = accelerator.Sizes(**{**vars(sizes), "most_steps": 1000})
    assert accelerator.steps_that_fit([Clock(), Clock()], long, 100.0, text) == 19  # .8 of 100 seconds, 4 a step


def test_a_measurement_ends_between_rounds_when_its_seconds_are_over():
    size = {"hidden": 32, "tokens": 64, "length": 32, "layers": 1}
    common = {"methods": "muon,adamw", "device": "cpu", "autocast": False, "block": 1, "threads": 1}
    arguments = accelerator.Namespace(**common, rounds=5, seconds=0.0)
    assert len(step_cost.measure(arguments, size)["methods"]["muon"]["rounds"]) == 1
