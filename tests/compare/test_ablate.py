"""One real ablation from the command line to its effects, and what a repetition of it does."""

import json

import pandas as pd
import pytest

for extra in ("trl", "altair", "statsmodels"):
    pytest.importorskip(extra)

from cegm.cli import main  # noqa: E402
from cegm.compare import cost  # noqa: E402
from cegm.compare.ablation import AblationConfig  # noqa: E402

CHANGES = """
- part: controls
  question: Does context do anything?
  changes: [{gradient_power: 0}]
- part: entanglement loss
  changes: [{beta: 0.1, kernel: rbf}]
"""

SMALL = {"max_steps": 2, "max_length": 16, "per_device_train_batch_size": 2, "eval_rows": 2, "logging_steps": 0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("ablation")
    (root / "changes.yaml").write_text(CHANGES)
    arguments = ["ablate", "--changes", str(root / "changes.yaml"), "--output_dir", str(root / "out"), "--seeds", "1"]
    arguments += ["--costs", "false", *(word for name, value in SMALL.items() for word in (f"--{name}", str(value)))]
    assert main(arguments) == 0
    return root / "out", arguments


def test_every_arm_has_a_run_and_an_effect(finished):
    folder, _ = finished
    rows = pd.read_parquet(folder / "results.parquet")
    assert list(rows["status"]) == ["finished"] * 3
    assert rows["initial_hash"].nunique() == rows["batch_hash"].nunique() == 1
    found = json.loads((folder / "effects.json").read_text())
    assert {arm["name"] for arm in found["arms"]} == {"gradient_power=0", "beta=0.1, kernel=rbf"}
    losses = dict(zip(rows["id"], rows["final_loss"], strict=True))
    assert found["base"]["losses"]["0"] in losses.values()


def test_repeating_it_runs_nothing(finished, monkeypatch):
    folder, arguments = finished

    def refuse(*_):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr("cegm.compare.launch.LocalLauncher.start", refuse)
    before = (folder / "effects.json").read_bytes()
    assert main(arguments) == 0
    assert (folder / "effects.json").read_bytes() == before


def test_costs_are_ratios_of_interleaved_blocks(tmp_path, monkeypatch):
    changes = tmp_path / "changes.yaml"
    changes.write_text(CHANGES)
    config = AblationConfig(changes=str(changes), seeds="1", shared=SMALL)
    order, clock = [], {"base": 2.0, "gradient_power=0": 1.0, "beta=0.1, kernel=rbf": 3.0}
    names = {json.dumps(config.planned(arm, 0).config, sort_keys=True): arm.name for arm in config.arms}

    class Timed:
        def __init__(self, run, model, tokens):
            self.name = names[json.dumps(run.to_dict(), sort_keys=True)]
            assert tokens.shape == (SMALL["per_device_train_batch_size"], SMALL["max_length"])

        def block(self, steps):
            order.append(self.name)
            return clock[self.name]

    monkeypatch.setattr(cost, "Timed", Timed)
    cost.measure_costs(config, tmp_path, rounds=1)
    a = "gradient_power=0"
    assert order[:6] == [a, "base", a, "base", "base", a]
    found = cost.read_costs(config, tmp_path, rounds=1)["ratios"]
    assert {name: ratio["estimate"] for name, ratio in found.items()} == pytest.approx(
        {a: 0.5, "beta=0.1, kernel=rbf": 1.5}
    )
    order.clear()
    cost.measure_costs(config, tmp_path, rounds=1)
    assert order == [], "what was timed is not timed again"
    other = AblationConfig(changes=str(changes), seeds="1", shared={**SMALL, "weight_decay": 0.3})
    assert cost.read_costs(other, tmp_path, rounds=1)["ratios"] == {}, (
        "the names of the arms are the same, the runs are not"
    )
