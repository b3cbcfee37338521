"""One real ablation from the command line to its verdict, and what a repetition of it does."""

import json

import pandas as pd
import pytest

for extra in ("trl", "altair", "statsmodels"):
    pytest.importorskip(extra)

from cegm.lab import report  # noqa: E402
from cegm.lab.cli import main  # noqa: E402
from cegm.lab.compare import overhead  # noqa: E402
from cegm.lab.compare.ablation import AblationConfig  # noqa: E402

CHANGES = """
- part: controls
  question: Does context do anything?
  changes: [{gradient_power: 0}]
- part: entanglement loss
  changes: [{beta: 0.1, kernel: rbf}]
"""

SMALL = {"max_steps": 2, "max_length": 16, "per_device_train_batch_size": 2, "eval_rows": 2, "logging_steps": 0}
NAMES = ("gradient_power=0", "beta=0.1, kernel=rbf")


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
    assert list(rows["method"]) == ["base", *NAMES]
    assert rows["initial_hash"].nunique() == rows["batch_hash"].nunique() == 1
    verdict = json.loads((folder / "verdict.json").read_text())
    losses = dict(zip(rows["method"], rows["bits_per_byte"], strict=True))
    pairs = {pair["pair"][0]: pair["effect"] for pair in verdict["measures"][0]["pairs"]}
    assert pairs == pytest.approx({name: losses[name] - losses["base"] for name in NAMES})
    assert (folder / "report.html").exists()
    assert report.table(folder).startswith("change")


def test_repeating_it_runs_nothing(finished, monkeypatch):
    folder, arguments = finished

    def refuse(*_):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr("cegm.lab.compare.launch.LocalLauncher.start", refuse)
    before = (folder / "verdict.json").read_bytes()
    assert main(arguments) == 0
    assert (folder / "verdict.json").read_bytes() == before


@pytest.fixture
def timed(tmp_path, monkeypatch):
    """An ablation whose steps take made-up times, and the order in which they are asked for."""
    path = tmp_path / "changes.yaml"
    path.write_text(CHANGES + "- {part: shape, changes: [{max_length: 8}, {model_name_or_path: small}]}")
    order, clock = [], {"base": 2.0, NAMES[0]: 1.0, NAMES[1]: 3.0, "max_length=8": 0.5}

    class Timed:
        def __init__(self, run, model, tokens):
            changed = run.optimizer_options.get("gradient_power") == 0, run.beta > 0, run.max_length == 8
            self.name = next((name for name, here in zip(list(clock)[1:], changed, strict=True) if here), "base")
            self.model, self.optimizer = model, overhead.torch.optim.AdamW(model.parameters())
            self.optimizer.param_groups[0]["role"] = "matrix"
            assert tokens.shape == (SMALL["per_device_train_batch_size"], run.max_length)

        def block(self, steps):
            order.append(self.name)
            return clock[self.name] * steps

    monkeypatch.setattr(overhead, "Timed", Timed)
    monkeypatch.setattr(overhead, "peak_bytes", lambda work: (work(), 1))
    return lambda **shared: AblationConfig(changes=str(path), seeds="1", shared={**SMALL, **shared}).comparison, order


def points(path):
    return {list(point["methods"])[-1]: point["methods"] for point in json.loads(path.read_text())["points"]}


def test_every_change_is_timed_beside_the_base_in_turns_at_the_base_s_shape_but_for_what_it_changes(timed, tmp_path):
    made, order = timed
    found = points(overhead.measure_overhead(made(), tmp_path))
    assert list(found) == [*NAMES, "max_length=8"], "another model is no change of this one"
    assert order[:6] == ["base", NAMES[0], "base", NAMES[0], NAMES[0], "base"], "a warm-up of each, then turns"
    assert {name: own[name]["ratio"]["estimate"] for name, own in found.items()} == pytest.approx(
        {NAMES[0]: 0.5, NAMES[1]: 1.5, "max_length=8": 0.25}
    )
    assert found["max_length=8"]["base"]["tokens_per_second"] == pytest.approx(32 / 2)
    assert found["max_length=8"]["max_length=8"]["tokens_per_second"] == pytest.approx(16 / 0.5)
    ratios = {"base": 1.0, NAMES[0]: 0.5, NAMES[1]: 1.5, "max_length=8": 0.25}
    assert overhead.step_ratios(tmp_path / "overhead.json") == pytest.approx(ratios)
    order.clear()
    overhead.measure_overhead(made(), tmp_path)
    assert order == [], "what was timed is not timed again"
    assert not list(tmp_path.glob("*.partial"))


def test_costs_go_on_where_they_stopped_and_other_settings_are_timed_anew(timed, tmp_path):
    made, order = timed
    path = overhead.measure_overhead(made(), tmp_path)
    kept = json.loads(path.read_text())
    before = list(kept["points"])
    del kept["points"][1]
    path.write_text(json.dumps(kept))
    order.clear()
    overhead.measure_overhead(made(), tmp_path)
    assert set(order) == {"base", NAMES[1]}
    assert json.loads(path.read_text())["points"] == before
    order.clear()
    overhead.measure_overhead(made(gradient_accumulation_steps=2), tmp_path)
    assert set(order) == {"base", *NAMES, "max_length=8"}
