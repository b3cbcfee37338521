"""The document says what the commands say today, and the models are of the size that it names."""

import json
from pathlib import Path

import pytest
import torch

import plan_check
import scaling
from cegm.lab.forecast.passes import meta_model, settings_of
from cegm.lab.forecast.weights import weights_of
from cegm.lab.train.run_config import RunConfig

ROOT = Path(scaling.__file__).parents[1]
DOCUMENT = ROOT / "docs/scaling.md"
LOG = ROOT / "benchmarks/results/plan/cpu.jsonl"


def test_the_document_holds_what_the_commands_print(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = DOCUMENT.read_text(encoding="utf-8")
    assert len(scaling.BLOCK.findall(text)) == 3
    assert scaling.renewed(text) == text


def test_a_command_that_is_refused_says_so():
    with pytest.raises(ValueError, match="methods=',' names none"):
        scaling.renewed("```\n$ cegm plan --methods ,\n```\n")


def test_other_blocks_stay_as_they_are():
    text = "```sh\ncegm plan\n```\n\n```\n$ ls\n```\n"
    assert scaling.renewed(text) == text


@pytest.mark.parametrize(("name", "weights", "matrices"), [("8b", 8_030_261_248, 224), ("70b", 70_553_706_496, 560)])
def test_models_are_of_the_size_they_are_named_after(name, weights, matrices):
    """The counts that Llama 3's authors publish, and seven matrices in each block."""
    run = RunConfig(str(ROOT / "benchmarks/scaling" / name))
    model = meta_model(settings_of(run), run)
    assert sum(p.numel() for p in model.parameters()) == weights
    found = weights_of(run, model, "cuda", bfloat16=True)
    assert sum(bool(w.pieces) for w in found) == matrices
    assert {w.precision for w in found if w.pieces} == {torch.bfloat16}


def test_the_measured_log_beside_the_plan_of_today():
    """State to the byte, the rest as near as the document says."""
    utilisation, rows = plan_check.compared([json.loads(line) for line in LOG.read_text().splitlines()])
    assert 0.1 < utilisation < 1.0
    assert {row["method"] for row in rows} == set(plan_check.METHODS)
    for row in rows:
        assert row["state"][0] == row["state"][1]
        assert row["peak"][1] == pytest.approx(row["peak"][0], rel=0.04)
        assert row["ratio"][1] == pytest.approx(row["ratio"][0], rel=0.15)


def test_the_document_quotes_the_measured_table():
    shown = plan_check.table([json.loads(line) for line in LOG.read_text().splitlines()])
    assert shown in DOCUMENT.read_text(encoding="utf-8")
