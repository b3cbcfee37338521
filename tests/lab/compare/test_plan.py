import json
from pathlib import Path

import pytest

pytest.importorskip("yaml")

from cegm import options
from cegm.lab.compare.compare_config import CompareConfig, from_names
from cegm.lab.compare.plan import (
    CONCLUSIONS,
    PlannedRun,
    kept_equal_seconds,
    plan_equal_seconds,
    plan_main,
    read_plan,
    write_plan,
)
from cegm.lab.train.run_config import from_mapping

STORED = Path(__file__).parents[3] / "benchmarks" / "results" / "world" / "plan.jsonl"


def config(**values):
    return from_names(CompareConfig, {"max_steps": 100, "seeds": "2", **values})


def finished(runs, seconds):
    return {
        run.id: {"method": run.method, "status": "finished", "steps": 100, "median_step_seconds": seconds[run.method]}
        for run in runs
    }


def test_every_method_meets_every_seed_once():
    runs = plan_main(config())
    assert sorted((r.method, r.seed) for r in runs) == [(m, s) for m in ("adamw", "cegm", "muon") for s in (0, 1)]
    assert len({r.id for r in runs}) == 6


def test_planning_twice_gives_the_same_ids_wherever_the_results_go():
    assert [r.id for r in plan_main(config())] == [r.id for r in plan_main(config(output_dir="elsewhere"))]


def test_checkpoints_decide_nothing():
    kept = {"save_steps": 25, "save_total_limit": 2}
    assert [r.id for r in plan_main(config())] == [r.id for r in plan_main(config(**kept))]
    assert [r.config["save_steps"] for r in plan_main(config(**kept))] == [25] * 6


@pytest.mark.parametrize(
    "change", [{"max_steps": 101}, {"weight_decay": 0.2}, {"items": 32}, {"axes": "none"}, {"on_nonfinite": "skip"}]
)
def test_whatever_decides_the_result_is_in_the_id(change):
    assert not {r.id for r in plan_main(config())} & {r.id for r in plan_main(config(**change))}


@pytest.mark.parametrize("given", [{}, {"beta": 0.0, "kernel": "dot", "stop_gradient": "context"}])
def test_runs_that_were_planned_before_there_was_a_loss_option_keep_their_ids(given):
    for line in map(json.loads, STORED.read_text(encoding="utf-8").splitlines()):
        assert not {"beta", "kernel", "stop_gradient"} & set(line["config"])
        now = from_mapping({**line["config"], **given}, "test").to_dict()
        run = PlannedRun(**{**{k: v for k, v in line.items() if k != "id"}, "config": now})
        assert "beta" in run.config
        # CEGM's preset has changed since
        assert (run.id == line["id"]) == (run.method != "cegm")


def test_a_preset_that_changed_is_another_run(monkeypatch):
    def ids():
        return {run.method: run.id for run in plan_main(config())}

    before = ids()
    monkeypatch.setitem(options.RECOMMENDED, "damping", 0.2)
    assert {method for method, found in ids().items() if found != before[method]} == {"cegm"}


def test_an_option_at_its_default_is_the_same_run_as_none():
    given = config(**{"cegm.gradient_power": options.RECOMMENDED["gradient_power"]})
    assert {run.id for run in plan_main(given)} == {run.id for run in plan_main(config())}


def test_with_beta_all_options_of_the_loss_are_in_the_id():
    changes = ({}, {"beta": 0.1}, {"beta": 0.1, "kernel": "dot"}, {"beta": 0.1, "stop_gradient": "context"})
    assert len({plan_main(config(**change))[0].id for change in changes}) == 4


def test_a_change_for_one_method_renames_only_its_runs():
    before, after = ({(r.method, r.seed): r.id for r in plan_main(config(**c))} for c in ({}, {"cegm.heads": 2}))
    assert [key for key in before if before[key] != after[key]] == [("cegm", 0), ("cegm", 1)]


def test_the_plan_survives_its_file(tmp_path):
    runs = plan_main(config())
    write_plan(tmp_path, runs)
    assert read_plan(tmp_path) == runs
    assert read_plan(tmp_path / "nowhere") == []


@pytest.mark.parametrize("text", ['{"method": "mu', "[]\n", '{"method": "muon"}\n', "\x00"])
def test_a_damaged_plan_is_told_in_one_line(tmp_path, text):
    write_plan(tmp_path, plan_main(config()))
    path = tmp_path / "plan.jsonl"
    path.write_text(path.read_text() + text)
    with pytest.raises(ValueError, match=r"plan\.jsonl is damaged .* delete it to plan again") as error:
        read_plan(tmp_path)
    assert "\n" not in str(error.value)


def test_conclusions_go_with_their_plan(tmp_path):
    """An interrupted command must not leave an old verdict beside new runs."""
    write_plan(tmp_path, plan_main(config()))
    for name in (*CONCLUSIONS, "drill.json"):
        (tmp_path / name).touch()
    write_plan(tmp_path, plan_main(config()))
    assert len(list(tmp_path.iterdir())) == len(CONCLUSIONS) + 2
    write_plan(tmp_path, plan_main(config(weight_decay=0.3)))
    assert {path.name for path in tmp_path.iterdir()} == {"plan.jsonl", "drill.json"}


def test_equal_seconds_scale_the_steps_of_the_others():
    runs = plan_main(config())
    extra = plan_equal_seconds(config(), runs, finished(runs, {"adamw": 0.08, "muon": 0.098, "cegm": 0.1}))
    assert {(r.method, r.role, r.config["max_steps"]) for r in extra} == {("adamw", "equal_seconds", 125)}
    assert [r.seed for r in extra] == [0, 1]


def test_a_slower_baseline_gets_fewer_steps():
    runs = plan_main(config())
    extra = plan_equal_seconds(config(), runs, finished(runs, {"adamw": 0.1, "muon": 0.2, "cegm": 0.1}))
    assert {(r.method, r.config["max_steps"]) for r in extra} == {("muon", 50)}


def test_without_cegm_or_when_all_its_runs_failed_nothing_is_added():
    two = config(methods="adamw,muon")
    assert plan_equal_seconds(two, plan_main(two), finished(plan_main(two), {"adamw": 1, "muon": 2})) == []
    results = finished(plan_main(config()), {"adamw": 1, "muon": 2, "cegm": 3})
    for result in results.values():
        result["status"] = "failed" if result["method"] == "cegm" else "finished"
    assert plan_equal_seconds(config(), plan_main(config()), results) == []


def test_a_repeated_comparison_keeps_its_equal_seconds_runs():
    runs = plan_main(config())
    extra = plan_equal_seconds(config(), runs, finished(runs, {"adamw": 0.08, "muon": 0.1, "cegm": 0.1}))
    assert kept_equal_seconds(config(), runs + extra, runs) == extra
    assert kept_equal_seconds(config(), runs, runs) is None
    assert kept_equal_seconds(config(), runs + extra, plan_main(config(max_steps=5))) is None
    assert kept_equal_seconds(config(equal_seconds=False), runs + extra, runs) is None
