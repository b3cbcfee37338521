"""One real ablation from the command line to its effects, and what a repetition of it does."""

import json

import pandas as pd
import pytest

for extra in ("trl", "altair", "statsmodels"):
    pytest.importorskip(extra)

from cegm.cli import main  # noqa: E402
from cegm.compare import cost  # noqa: E402
from cegm.compare.ablation import AblationConfig  # noqa: E402
from cegm.compare.effects import read_costs, write_effects  # noqa: E402

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


NAMES = ("gradient_power=0", "beta=0.1, kernel=rbf")


@pytest.fixture
def timed(tmp_path, monkeypatch):
    """An ablation whose steps take made-up times, and the order in which they are asked for."""
    changes = tmp_path / "changes.yaml"
    changes.write_text(CHANGES)
    config = AblationConfig(changes=str(changes), seeds="1", shared=SMALL)
    order, clock = [], {"base": 2.0, NAMES[0]: 1.0, NAMES[1]: 3.0}

    class Timed:
        def __init__(self, run, model, tokens):
            changed = run.optimizer_options.get("gradient_power") == 0, run.beta > 0
            self.name = next((name for name, here in zip(NAMES, changed, strict=True) if here), "base")
            assert tokens.shape == (SMALL["per_device_train_batch_size"], SMALL["max_length"])

        def block(self, steps):
            order.append(self.name)
            return clock[self.name]

    monkeypatch.setattr(cost, "Timed", Timed)
    return config, order


def test_costs_are_ratios_of_interleaved_blocks(timed, tmp_path):
    config, order = timed
    cost.measure_costs(config, tmp_path, rounds=1)
    a, b = NAMES
    assert order[:6] == [a, "base", a, "base", "base", a]
    assert cost.read_ratios(tmp_path) == pytest.approx({a: 0.5, b: 1.5})
    ratio = read_costs(tmp_path)["ratios"][a]
    assert (ratio["low"], ratio["high"]) == (None, None), "two blocks are too few for an interval"
    assert ratio["points"] == pytest.approx([0.5, 0.5])
    order.clear()
    cost.measure_costs(config, tmp_path, rounds=1)
    assert order == [], "what was timed is not timed again"
    assert not list(tmp_path.glob("*.partial"))


def test_costs_go_on_where_they_stopped_and_other_settings_are_timed_anew(timed, tmp_path):
    config, order = timed
    path = cost.measure_costs(config, tmp_path, rounds=1)
    kept = json.loads(path.read_text())
    before = dict(kept["ratios"])
    del kept["ratios"][NAMES[1]]
    path.write_text(json.dumps(kept))
    order.clear()
    cost.measure_costs(config, tmp_path, rounds=1)
    assert NAMES[0] not in order
    assert json.loads(path.read_text())["ratios"] == before
    order.clear()
    cost.measure_costs(config, tmp_path, rounds=3)
    assert set(order) == {"base", *NAMES}
    order.clear()
    changed = AblationConfig(changes=config.changes, seeds="1", shared={**SMALL, "gradient_accumulation_steps": 2})
    cost.measure_costs(changed, tmp_path, rounds=3)
    assert set(order) == {"base", *NAMES}


def test_a_write_that_is_cut_short_leaves_the_costs_as_they_were(timed, tmp_path, monkeypatch):
    config, _ = timed
    path = cost.measure_costs(config, tmp_path, rounds=1)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cegm.train.durable.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cost.measure_costs(config, tmp_path, rounds=2)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"how": "x"}', '{"how": "x", "ratios": []}', '{"how": "x", "ratios": {"a": {"low": 1}}}'],
)
def test_damaged_costs_are_told_in_one_line(timed, tmp_path, text):
    config, _ = timed
    (tmp_path / "costs.json").write_text(text)
    for read in (lambda: cost.measure_costs(config, tmp_path), lambda: write_effects(tmp_path, config, {})):
        with pytest.raises(ValueError, match=r"costs\.json is damaged; delete it to measure the costs again") as error:
            read()
        assert "\n" not in str(error.value)
