"""Every script under `examples/` runs as a stranger would run it, and its model learns."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytest.importorskip("trl")

import scripts

SCRIPTS = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
RESULT = re.compile(r"^(loss|reward): (\S+) at first, (\S+) at last$", re.MULTILINE)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_ends_well_and_its_model_learns(script: Path, tmp_path: Path) -> None:
    code, output = scripts.run(script, tmp_path)
    assert code == 0, output
    assert re.search(r"^total: .* weights by Algorithm 1, .* by AdamW", output, re.MULTILINE)
    measure, first, last = RESULT.findall(output)[-1]
    assert float(last) > 1.5 * float(first) if measure == "reward" else float(last) < 0.8 * float(first)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_begins_by_saying_what_it_is_and_how_to_run_it(script: Path) -> None:
    words = ast.get_docstring(ast.parse(script.read_text()))
    assert words
    assert f"Run: `python examples/{script.name}`" in words
    assert len(script.read_text().splitlines()) < 80


def test_there_is_a_script_for_every_trainer() -> None:
    words = "\n".join(script.read_text() for script in SCRIPTS)
    for trainer in ("Trainer(", "SFTTrainer(", "DPOTrainer(", "GRPOTrainer(", "RewardTrainer(", "lightning.Trainer("):
        assert f" {trainer}" in words


def test_a_script_that_fails_is_seen(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("print('so far', flush=True)\nraise RuntimeError('and no further')\n")
    code, output = scripts.run(script, tmp_path)
    assert code == 1
    assert "so far" in output
    assert "and no further" in output
