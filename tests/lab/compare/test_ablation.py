"""An ablation is a comparison of changes with their base: what is planned, and how its runs are judged."""

import pandas as pd
import pytest

pytest.importorskip("trl")
pytest.importorskip("statsmodels")

from cegm.lab.compare.ablation import AblationConfig, read_parts
from cegm.lab.compare.arms import Arm, changed
from cegm.lab.compare.compare_config import from_names
from cegm.lab.compare.plan import plan_equal_seconds, plan_main, read_plan, write_plan
from cegm.lab.compare.verdict import judge
from cegm.options import RECOMMENDED

CHANGES = """
- part: controls
  question: Does context do anything?
  changes: [{gradient_power: 0}, {scores: random}]
- part: memory
  question: How fresh?
  changes: [{refresh_every: 5, recurrence: 0.5}]
"""
NAMES = ["gradient_power=0", "scores=random", "refresh_every=5, recurrence=0.5"]
EMPTY_CURVES = pd.DataFrame(columns=["id", "step", "tokens", "seconds", "loss", "bits_per_byte"])


@pytest.fixture
def changes(tmp_path):
    path = tmp_path / "changes.yaml"
    path.write_text(CHANGES)
    return str(path)


def comparison(**values):
    return AblationConfig(**values).comparison


def judged(config, loss, batches=lambda name: "b"):
    """The verdict over made-up results: `loss(arm name, seed)`, a string for a run that failed with it."""
    rows = []
    for seed in config.seed_list:
        for name in config.arms:
            value = loss(name, seed)
            row = {"id": f"{name}{seed}", "method": name, "seed": seed, "role": "main", "status": "finished"}
            numbers = {"final_loss": value, "bits_per_byte": value, "median_step_seconds": 0.1, "memory_bytes": 1e9}
            hashes = {"steps": 9, "initial_hash": f"w{seed}", "batch_hash": batches(name), "optimizer_state_bytes": 7.0}
            failed = {"status": "failed", "error": value}
            rows.append({**row, **(failed if isinstance(value, str) else {**numbers, **hashes, "error": None})})
    return judge(pd.DataFrame(rows), pd.DataFrame(), EMPTY_CURVES, False, config.parts)


def losses(verdict):
    """The entries of the loss by change; all of them are held against the base."""
    (measure,) = (measure for measure in verdict["measures"] if measure["name"] == "bits_per_byte")
    assert {entry["pair"][1] for entry in measure["pairs"]} == {"base"}
    return {entry["pair"][0]: entry for entry in measure["pairs"]}


# ---------------------------------------------------------------------- the plan


def test_every_arm_differs_from_the_base_by_its_change_alone(changes):
    config = comparison(changes=changes, seeds="7,8")
    assert list(config.arms) == ["base", *NAMES]
    base = config.run("base", 7).to_dict()
    for name in NAMES:
        run = config.run(name, 7).to_dict()
        assert {option for option in base if run[option] != base[option]} == {"optimizer_options"}
        assert run["optimizer_options"] == {**base["optimizer_options"], **config.arms[name].changes}


def test_seeds_come_first_and_arms_of_one_seed_differ_in_nothing_else(changes):
    runs = plan_main(comparison(changes=changes, seeds="7,8"))
    assert [(run.seed, run.arm) for run in runs] == [(seed, name) for seed in (7, 8) for name in ("base", *NAMES)]
    assert {run.method for run in runs} == {"cegm"}
    assert len({run.id for run in runs}) == 8
    assert [run.id for run in plan_main(comparison(changes=changes, seeds="7,8"))] == [run.id for run in runs]


def test_an_arm_survives_the_file_of_the_plan_and_does_not_name_a_run(changes, tmp_path):
    runs = plan_main(comparison(changes=changes, seeds="1"))
    write_plan(tmp_path, runs)
    assert read_plan(tmp_path) == runs
    (alone, *_) = plan_main(comparison(changes=changes, seeds="1", parts="memory"))
    assert alone.id == runs[0].id, "the base is the same run whatever it is compared with"


def test_parts_can_be_chosen(changes):
    assert list(comparison(changes=changes, parts="memory").arms) == ["base", NAMES[2]]


def test_a_part_may_stand_twice_and_a_change_of_nothing_is_the_run_of_its_base(tmp_path):
    path = tmp_path / "changes.yaml"
    path.write_text("- {part: a, changes: [{power: 0.5}]}\n- {part: a, changes: [{weight_decay: 0.25}]}")
    config = comparison(changes=str(path), seeds="1", shared={"weight_decay": 0.25})
    base, other, same = plan_main(config)
    assert [run.arm for run in (base, other, same)] == ["base", "power=0.5", "weight_decay=0.25"]
    assert same.id == base.id != other.id


def test_seeds_are_by_default_none_that_a_comparison_uses():
    assert min(comparison().seed_list) >= 1000
    assert len(comparison().seed_list) == 5


def test_the_built_in_changes_cover_the_method_and_change_something():
    parts = {part.name: [arm.changes for arm in part.arms] for part in read_parts("")}
    assert {"gradient_power": 0} in parts["controls"]
    assert {"scores": "random"} in parts["controls"]
    assert {"scores": "shuffled"} in parts["controls"]
    for name in ("power", "gradient_power"):
        tried = {change[name] for change in parts["powers"] if set(change) == {name}}
        assert tried | {RECOMMENDED[name], 0} == {-1, -0.5, -0.25, 0, 0.5, 1}
    for changed_options in parts.values():
        for change in changed_options:
            assert any(RECOMMENDED.get(name, object()) != value for name, value in change.items()), change


def test_controls_get_the_base_s_training_time_and_other_changes_do_not(changes):
    config = comparison(changes=changes, seeds="1,2")
    ratios = {"base": 1.0, "gradient_power=0": 0.8, "scores=random": 0.97, NAMES[2]: 0.5}
    runs = plan_main(config)
    results = {run.id: {"status": "finished", "steps": 300, "median_step_seconds": 1.0} for run in runs}
    extra = plan_equal_seconds(config, runs, results, ratios)
    assert [(run.arm, run.role, run.seed, run.config["max_steps"]) for run in extra] == [
        ("gradient_power=0", "equal_seconds", seed, 375) for seed in (1, 2)
    ]
    assert {run.config["optimizer_options"]["gradient_power"] for run in extra} == {0}
    assert not comparison(changes=changes, costs=False).equal_seconds


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"changes": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ({"parts": "power"}, "did you mean 'powers'"),
        ({"seeds": "1,1"}, "none twice"),
        ({"scores": "unifrom", "beta": "x"}, "beta='x' is not of type float"),
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"method": "muon"}, "'method' is set by the comparison itself"),
    ],
)
def test_what_cannot_run_is_one_line(values, message):
    with pytest.raises(ValueError, match=message) as error:
        from_names(AblationConfig, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {part: a}", "must list entries"),
        ("[", "not valid YAML"),
        ("- {part: a, changes: [{heads: two}]}", "heads='two'"),
        ("- {part: a, changes: [{warp: 9}]}", "unknown option 'warp'"),
        ("- {part: a, changes: [{}]}", "must list entries"),
    ],
)
def test_a_broken_changes_file_is_one_line(text, message, tmp_path):
    path = tmp_path / "changes.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        AblationConfig(changes=str(path))
    assert "\n" not in str(error.value)


def test_values_are_shown_as_they_are_written():
    changes = {"map_first": True, "power": -0.25, "scores": "random", "heads": 4}
    assert changed("cegm", changes) == Arm("map_first=true, power=-0.25, scores=random, heads=4", "cegm", changes)


# ---------------------------------------------------------------------- the verdict


def test_effects_are_paired_differences_with_a_word(changes):
    config = comparison(changes=changes, seeds="5")
    effect = {"base": 0.0, "gradient_power=0": 0.1, "scores=random": 0.0, NAMES[2]: -0.2}

    def loss(name, seed):
        noise = 0.0 if name == "base" else 0.01 * (-1) ** seed
        return 2.0 + 0.5 * seed + effect[name] + noise  # seeds differ far more than arms

    verdict = judged(config, loss)
    found = losses(verdict)
    assert verdict["methods"] == [*NAMES, "base"]
    assert {name: entry["word"] for name, entry in found.items()} == {
        "gradient_power=0": "worse",
        "scores=random": "no evidence",
        NAMES[2]: "better",
    }
    assert found[NAMES[2]]["effect"] == pytest.approx(-0.2 + 0.01 / 5)
    assert found[NAMES[2]]["p"] == pytest.approx(2 / 2**5)
    assert found[NAMES[2]]["p_holm"] == pytest.approx(3 * 2 / 2**5), "three changes were tried"
    assert verdict["screening"] is True
    assert "of 3 without any difference, 0.2 would be called better or worse" in verdict["statement"]
    assert [(part["part"], part["arms"]) for part in verdict["parts"]] == [
        ("controls", NAMES[:2]),
        ("memory", NAMES[2:]),
    ]


def test_a_claim_needs_a_small_p_after_holm(changes):
    """With 8 seeds an interval that excludes zero is not enough when many changes were tried."""

    def loss(name, seed):
        clear = {"gradient_power=0": 0.5, "scores=random": 0.01 * (seed != 0) - 0.002 * (seed == 0)}
        return 2.0 + clear.get(name, 0.0) + 1e-4 * seed * (name != "base")

    found = losses(judged(comparison(changes=changes, seeds="8"), loss))
    assert found["gradient_power=0"]["word"] == "worse"
    assert found["gradient_power=0"]["p_holm"] <= 0.05
    unsure = found["scores=random"]
    assert unsure["interval"][0] > 0
    assert (unsure["word"] == "worse") == (unsure["p_holm"] <= 0.05)


@pytest.mark.parametrize("planned", [8, 9])
@pytest.mark.parametrize("paired", range(1, 10))
def test_a_claim_follows_the_paired_seeds_and_its_rule_the_planned_ones(changes, planned, paired):
    """The changes lost the rest. Losing seeds must not make it easier to be called better or worse."""
    if paired > planned:
        return

    def loss(name, seed):
        if name != "base" and seed >= paired:
            return "loss is nan"
        return 2.0 + (0.5 + 0.001 * seed) * (name == "scores=random") + 1e-4 * seed * (name != "base")

    verdict = judged(comparison(changes=changes, seeds=str(planned)), loss)
    assert verdict["screening"] is (paired < 8)
    found = losses(verdict)
    assert {entry["n"] for entry in found.values()} == {paired}
    p = found["scores=random"]["p_holm"]
    assert found["scores=random"]["word"] == ("worse" if p is not None and p <= 0.05 else "no evidence")


def test_a_change_under_which_a_run_failed_is_never_better_nor_one_worse_than_a_base_that_failed(changes):
    def loss(name, seed):
        lost = {"gradient_power=0": seed == 1, NAMES[2]: True}.get(name, False)
        return "loss is nan" if lost else {"gradient_power=0": 1.0, "scores=random": 3.0}.get(name, 2.0) + 0.001 * seed

    verdict = judged(comparison(changes=changes, seeds="4"), loss)
    found = losses(verdict)
    assert (found["gradient_power=0"]["word"], found["gradient_power=0"]["n"]) == ("no evidence", 3)
    assert found["gradient_power=0"]["failed"] == [{"method": "gradient_power=0", "seed": 1}]
    assert found["scores=random"]["word"] == "worse"
    assert (found[NAMES[2]]["effect"], found[NAMES[2]]["n"]) == (None, 0)
    assert verdict["failed_methods"] == [NAMES[2]]
    broken = judged(comparison(changes=changes, seeds="4"), lambda n, s: "nan" if (n, s) == ("base", 0) else loss(n, s))
    assert losses(broken)["scores=random"]["word"] == "no evidence"


def test_a_change_of_which_every_run_failed_leaves_the_others_a_claim(changes):
    verdict = judged(
        comparison(changes=changes, seeds="8"),
        lambda name, seed: "loss is nan" if name == "scores=random" else 2.0 + 0.001 * seed + 0.5 * (name != "base"),
    )
    assert verdict["screening"] is False
    assert {name: entry["word"] for name, entry in losses(verdict).items()} == {
        NAMES[0]: "worse",
        NAMES[1]: "no evidence",
        NAMES[2]: "worse",
    }


@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5])
def test_few_seeds_have_points_in_place_of_an_interval(changes, seeds):
    verdict = judged(
        comparison(changes=changes, seeds=str(seeds)), lambda name, seed: len(name) + 0.01 * seed * (name != "base")
    )
    for name, entry in losses(verdict).items():
        assert [entry[key] is None for key in ("interval", "smallest_detectable")] == [seeds < 5] * 2
        assert entry["points"] == pytest.approx([len(name) - 4 + 0.01 * seed for seed in range(seeds)])
        assert entry["word"] == ("worse" if seeds > 1 else "no evidence")


def test_batches_may_differ_only_where_a_change_was_declared_to_alter_them(tmp_path):
    path = tmp_path / "changes.yaml"
    path.write_text("- {part: a, changes: [{heads: 2}, {max_length: 64, heads: 2}]}")
    config = comparison(changes=str(path), seeds="3")
    verdict = judged(config, lambda name, seed: len(name) + 0.1 * seed, batches=lambda name: name)
    assert {name: entry["n"] for name, entry in losses(verdict).items()} == {"heads=2": 0, "max_length=64, heads=2": 3}
    assert {tuple(line["pair"]) for line in verdict["refused"]} == {("heads=2", "base")}
