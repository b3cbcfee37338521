import json
import math

import pytest
import yaml

pytest.importorskip("optuna")

from cegm.lab.compare import trials as module
from cegm.lab.compare.compare_config import CompareConfig
from cegm.lab.compare.tuning import TuneConfig

LIMITS = {"adamw": (0.001, 0.01), "muon": (0.003, 0.03), "cegm": (0.003, 0.03)}


@pytest.fixture
def executed(monkeypatch):
    """Replaces runs by a bowl in the logarithm of rate and decay; returns every run that was asked for, in order."""
    seen = []
    bowl = {"rate": 0.006, "fail": set()}

    def execute(folder, runs, workers, watch):
        seen.extend(runs)
        results = {}
        for run in runs:
            rate, decay = run.config["learning_rate"], run.config["weight_decay"]
            loss = 1 + math.log(rate / bowl["rate"]) ** 2 + 0.1 * math.log(decay / 0.1) ** 2 + 0.001 * run.seed
            status = "failed" if len(seen) in bowl["fail"] else "finished"
            results[run.id] = {"status": status, "final_loss": loss}
        return results

    monkeypatch.setattr(module, "execute", execute)
    monkeypatch.setattr(module, "require_possible", lambda config: None)
    return seen, bowl


def trials(folder):
    return json.loads((folder / "trials.json").read_text())["trials"]


def test_finds_the_bottom_with_equal_trials_and_a_comparison_reads_it(tmp_path, executed):
    config = TuneConfig(output_dir=str(tmp_path), trials=12, extensions=0, seeds="5,6")
    path = module.tune(config)
    seen, _ = executed
    for method in LIMITS:
        own = [t for t in trials(tmp_path) if t["method"] == method]
        assert len(own) == 12
        assert all(LIMITS[method][0] <= t["learning_rate"] <= LIMITS[method][1] for t in own)
    assert len(seen) == 3 * 12 * 2
    written = yaml.safe_load(path.read_text())
    best = written["settings"]
    assert written["seeds"] == [5, 6]
    for settings in best.values():
        assert settings["learning_rate"] == pytest.approx(0.006, rel=0.35)
    run = CompareConfig(tuned=str(path)).run("muon", 0)
    assert (run.learning_rate, run.aux_lr) == (best["muon"]["learning_rate"], 0.003)
    assert run.optimizer_options["momentum"] == best["muon"]["momentum"]


@pytest.mark.parametrize("kept", [0.3, 0.6])
def test_a_damaged_database_of_trials_is_told_in_one_line(tmp_path, executed, kept):
    config = TuneConfig(output_dir=str(tmp_path), trials=1, extensions=0, methods="muon")
    module.tune(config)
    path = tmp_path / "optuna.db"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"optuna\.db cannot be used .*; delete it to search again") as error:
        module.tune(config)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"^--storage cannot be used .*; give another URL") as error:
        module.tune(TuneConfig(output_dir=str(tmp_path), methods="muon", storage="nosuch://user:secret@place"))
    assert "secret" not in str(error.value)


def test_first_trial_is_the_start(tmp_path, executed):
    module.tune(TuneConfig(output_dir=str(tmp_path), trials=1, extensions=0, methods="cegm"))
    (trial,) = trials(tmp_path)
    assert (trial["learning_rate"], trial["weight_decay"], trial["entanglement"]) == (0.01, 0.1, 0.05)


def test_an_optimum_beyond_the_edge_widens_and_gives_everybody_more_trials(tmp_path, executed):
    _, bowl = executed
    bowl["rate"] = 0.08  # beyond everybody's range
    module.tune(TuneConfig(output_dir=str(tmp_path), trials=9, extensions=2, methods="muon,adamw"))
    counts = [sum(t["method"] == m for t in trials(tmp_path)) for m in ("muon", "adamw")]
    assert counts[0] == counts[1] > 9
    ranges = json.loads((tmp_path / "trials.json").read_text())["ranges"]
    assert ranges["muon"]["learning_rate"][1] > 0.03
    assert ranges["adamw"]["learning_rate"][1] == 0.04  # doubled twice, which was all that was allowed
    assert "# adamw: the best trial lies at an edge of its range" in (tmp_path / "tuned.yaml").read_text()


def test_interrupted_search_goes_on_and_asks_for_the_same_trial_again(tmp_path, executed, monkeypatch):
    seen, _ = executed
    inner, calls = module.execute, []

    def breaks(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(*arguments)

    monkeypatch.setattr(module, "execute", breaks)
    config = TuneConfig(output_dir=str(tmp_path), trials=6, extensions=0, methods="muon", processes=1)
    with pytest.raises(KeyboardInterrupt):
        module.tune(config)
    module.tune(config)
    assert len(trials(tmp_path)) == 6
    assert len(seen) == 6
    assert [t["trial"] for t in trials(tmp_path)] == list(range(6))
    assert len({t["learning_rate"] for t in trials(tmp_path)}) == 6


def test_a_finished_search_repeats_nothing(tmp_path, executed):
    config = TuneConfig(output_dir=str(tmp_path), trials=3, methods="muon")
    seen, _ = executed
    module.tune(config)
    count, found = len(seen), (tmp_path / "trials.json").read_text()
    module.tune(config)
    assert len(seen) == count
    assert (tmp_path / "trials.json").read_text() == found


def test_failed_trials_count_and_cannot_win(tmp_path, executed):
    _, bowl = executed
    bowl["fail"] = {1, 3}
    module.tune(TuneConfig(output_dir=str(tmp_path), trials=5, extensions=0, methods="muon", processes=1))
    found = trials(tmp_path)
    assert [t["status"] for t in found].count("failed") == 2
    assert found[0]["loss"] is None
    best = yaml.safe_load((tmp_path / "tuned.yaml").read_text())["settings"]["muon"]
    assert best["learning_rate"] == min((t for t in found if t["loss"]), key=lambda t: t["loss"])["learning_rate"]


def test_a_region_that_fails_is_left_alone(tmp_path, executed, monkeypatch):
    """Loss falls with the rate up to a cliff: the search must not throw all its trials over it."""
    inner = module.execute

    def cliff(folder, runs, workers, watch):
        results = inner(folder, runs, workers, watch)
        for run in runs:
            fell = run.config["learning_rate"] > 0.015
            loss = 3 - run.config["learning_rate"]
            results[run.id] = {"status": "failed" if fell else "finished", "final_loss": loss}
        return results

    monkeypatch.setattr(module, "execute", cliff)
    module.tune(TuneConfig(output_dir=str(tmp_path), trials=12, extensions=0, methods="muon", processes=1))
    assert sum(t["status"] == "failed" for t in trials(tmp_path)) <= 5
    best = yaml.safe_load((tmp_path / "tuned.yaml").read_text())["settings"]["muon"]
    assert 0.01 <= best["learning_rate"] <= 0.015


def test_a_search_that_goes_on_draws_new_points_and_loses_none(tmp_path, executed):
    for count in (2, 4, 6):
        module.tune(TuneConfig(output_dir=str(tmp_path), trials=count, methods="muon", extensions=1, processes=1))
    found = [(t["learning_rate"], t["weight_decay"], t["momentum"]) for t in trials(tmp_path)]
    assert len(found) == len(set(found)) >= 6


def test_another_text_in_the_same_database_is_another_search(tmp_path, executed):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    for name, steps in (("a", 5), ("b", 6)):
        shared = {"max_steps": steps}
        module.tune(
            TuneConfig(
                output_dir=str(tmp_path / name), trials=2, methods="muon", storage=storage, extensions=0, shared=shared
            )
        )
    assert len(trials(tmp_path / "a")) == len(trials(tmp_path / "b")) == 2
    seen, _ = executed
    assert {run.config["max_steps"] for run in seen} == {5, 6}


def test_real_runs_in_a_few_steps(tmp_path):
    shared = {"max_steps": 2, "max_length": 32, "eval_rows": 2, "per_device_train_batch_size": 2}
    path = module.tune(TuneConfig(output_dir=str(tmp_path), trials=2, methods="muon", extensions=0, shared=shared))
    assert set(yaml.safe_load(path.read_text())["settings"]) == {"muon"}
    assert all(trial["loss"] > 0 for trial in trials(tmp_path))
