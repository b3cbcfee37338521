"""What is planned, and how the results of planned runs become effects."""

import json

import pytest

pytest.importorskip("trl")
pytest.importorskip("statsmodels")

from cegm.compare import ablation, effects
from cegm.compare.ablation import AblationConfig, Arm, read_parts
from cegm.compare.config import from_names
from cegm.options import RECOMMENDED

CHANGES = """
- part: controls
  question: Does context do anything?
  changes: [{gradient_power: 0}, {scores: random}]
- part: memory
  question: How fresh?
  changes: [{refresh_every: 5, recurrence: 0.5}]
"""


@pytest.fixture
def changes(tmp_path):
    path = tmp_path / "changes.yaml"
    path.write_text(CHANGES)
    return str(path)


def results_of(config, loss):
    """Made-up results: `loss(arm name, seed)`, a string for a run that failed with it."""
    found = {}
    for arm in config.arms:
        for seed in config.seed_list:
            value, run = loss(arm.name, seed), config.planned(arm, seed)
            failed = isinstance(value, str)
            found[run.id] = {
                "status": "failed" if failed else "finished",
                "error": value if failed else None,
                "final_loss": None if failed else value,
                "optimizer_state_bytes": 700,
                "parameters": 100,
            }
    return found


# ---------------------------------------------------------------------- the plan


def test_every_arm_differs_from_the_base_by_its_change_alone(changes):
    config = AblationConfig(changes=changes, seeds="7,8")
    base = config.planned(config.arms[0], 7).config
    assert [arm.name for arm in config.arms] == [
        "base",
        "gradient_power=0",
        "scores=random",
        "refresh_every=5, recurrence=0.5",
    ]
    for arm in config.arms[1:]:
        run = config.planned(arm, 7).config
        assert {name for name in base if run[name] != base[name]} == {"optimizer_options"}
        options = {**base["optimizer_options"], **arm.changes}
        assert run["optimizer_options"] == options


def test_seeds_come_first_and_arms_of_one_seed_differ_in_nothing_else(changes):
    config = AblationConfig(changes=changes, seeds="7,8")
    runs = config.plan()
    assert [run.seed for run in runs] == [7] * 4 + [8] * 4
    assert len({run.id for run in runs}) == 8
    assert [run.id for run in AblationConfig(changes=changes, seeds="7,8").plan()] == [run.id for run in runs]


def test_parts_can_be_chosen(changes):
    assert [a.part for a in AblationConfig(changes=changes, parts="memory").arms] == ["base", "memory"]


def test_seeds_are_by_default_none_that_a_comparison_uses():
    assert min(AblationConfig().seed_list) >= 1000
    assert len(AblationConfig().seed_list) == 5


def test_the_built_in_changes_cover_the_method_and_change_something():
    parts = {entry["part"]: entry["changes"] for entry in read_parts("")}
    assert {"gradient_power": 0} in parts["controls"]
    assert {"scores": "random"} in parts["controls"]
    assert {"scores": "shuffled"} in parts["controls"]
    for name in ("power", "gradient_power"):
        tried = {change[name] for change in parts["powers"] if set(change) == {name}}
        assert tried | {RECOMMENDED[name], 0} == {-1, -0.5, -0.25, 0, 0.5, 1}
    for changed in parts.values():
        for change in changed:
            assert any(RECOMMENDED.get(name, object()) != value for name, value in change.items()), change


def test_a_faster_control_gets_the_base_s_training_time(changes):
    config = AblationConfig(changes=changes)
    config.add_equal_seconds({"gradient_power=0": 0.8, "scores=random": 0.97, "refresh_every=5, recurrence=0.5": 0.5})
    assert config.arms[-1] == Arm("controls", {"gradient_power": 0, "max_steps": 375})
    assert len(config.arms) == 5


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


# ---------------------------------------------------------------------- effects


def test_effects_are_paired_differences_with_a_word(changes):
    config = AblationConfig(changes=changes, seeds="5")
    effect = {"base": 0.0, "gradient_power=0": 0.1, "scores=random": 0.0, "refresh_every=5, recurrence=0.5": -0.2}

    def loss(name, seed):
        noise = 0.0 if name == "base" else 0.01 * (-1) ** seed
        return 2.0 + 0.5 * seed + effect[name] + noise  # seeds differ far more than arms

    found = effects.effects(config, results_of(config, loss), {})
    assert [arm["name"] for arm in found["arms"]] == [
        "refresh_every=5, recurrence=0.5",
        "scores=random",
        "gradient_power=0",
    ]
    assert [arm["word"] for arm in found["arms"]] == ["better", "no evidence", "worse"]
    assert found["arms"][0]["difference"]["estimate"] == pytest.approx(-0.2 + 0.01 / 5)
    assert found["arms"][0]["difference"]["p"] == pytest.approx(2 / 2**5)
    assert found["arms"][0]["p_holm"] == pytest.approx(3 * 2 / 2**5)
    assert found["base"]["losses"] == {str(seed): 2.0 + 0.5 * seed for seed in range(5)}
    assert found["base"]["state_bytes_per_weight"] == 7.0
    assert found["claim"] is False
    assert AblationConfig(changes=changes, seeds="8").seed_list == list(range(8))


def test_a_claim_needs_a_small_p_after_holm(changes):
    """With 8 seeds an interval that excludes zero is not enough when many changes were tried."""
    config = AblationConfig(changes=changes, seeds="8")

    def loss(name, seed):
        clear = {"gradient_power=0": 0.5, "scores=random": 0.01 * (seed != 0) - 0.002 * (seed == 0)}
        return 2.0 + clear.get(name, 0.0) + 1e-4 * seed * (name != "base")

    arms = {arm["name"]: arm for arm in effects.effects(config, results_of(config, loss), {})["arms"]}
    assert arms["gradient_power=0"]["word"] == "worse"
    assert arms["gradient_power=0"]["p_holm"] <= 0.05
    unsure = arms["scores=random"]
    assert unsure["difference"]["low"] > 0
    assert (unsure["word"] == "worse") == (unsure["p_holm"] <= 0.05)


@pytest.mark.parametrize("planned", [8, 9])
@pytest.mark.parametrize("paired", range(1, 10))
def test_a_claim_follows_the_paired_seeds_and_its_rule_the_planned_ones(changes, planned, paired):
    """The base lost the rest. Losing seeds must not make it easier to be called better or worse."""
    if paired > planned:
        return
    config = AblationConfig(changes=changes, seeds=str(planned))

    def loss(name, seed):
        if name == "base" and seed >= paired:
            return "loss is nan"
        return 2.0 + (0.5 + 0.001 * seed) * (name == "scores=random") + 1e-4 * seed * (name != "base")

    found = effects.effects(config, results_of(config, loss), {})
    assert found["claim"] is (paired >= 8)
    arms = {arm["name"]: arm for arm in found["arms"]}
    assert {arm["difference"]["seeds"] for arm in arms.values()} == {paired}
    p = arms["scores=random"]["p_holm"]
    assert arms["scores=random"]["word"] == ("worse" if p is not None and p <= 0.05 else "no evidence")


def test_a_change_of_which_every_run_failed_leaves_the_others_a_claim(changes):
    config = AblationConfig(changes=changes, seeds="8")

    def loss(name, seed):
        lost = name == "scores=random" or (name == "gradient_power=0" and seed > 0)
        return "loss is nan" if lost else 2.0 + 0.001 * seed + 0.5 * (name != "base")

    found = effects.effects(config, results_of(config, loss), {})
    assert found["claim"] is True
    assert {arm["name"]: arm["word"] for arm in found["arms"]} == {
        "refresh_every=5, recurrence=0.5": "worse",
        "gradient_power=0": "no evidence",
        "scores=random": "failed",
    }


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
def test_few_seeds_have_points_in_place_of_an_interval(changes, seeds):
    config = AblationConfig(changes=changes, seeds=str(seeds))
    found = effects.effects(
        config, results_of(config, lambda name, seed: len(name) + 0.01 * seed * (name != "base")), {}
    )
    for arm in found["arms"]:
        difference = arm["difference"]
        assert [difference[name] is None for name in ("low", "high", "smallest_detectable")] == [seeds < 5] * 3
        assert difference["points"] == pytest.approx([len(arm["name"]) - 4 + 0.01 * seed for seed in range(seeds)])
        assert arm["word"] == "worse"


def test_costs_that_were_switched_off_are_not_shown(changes, tmp_path):
    ratio = {"estimate": 1.5, "low": 1.4, "high": 1.6}
    (tmp_path / "costs.json").write_text(json.dumps({"how": "timed", "ratios": {"gradient_power=0": ratio}}))
    for costs in (True, False):
        config = AblationConfig(changes=changes, seeds="2", costs=costs)
        found = json.loads(effects.write_effects(tmp_path, config, results_of(config, lambda *_: 2.0)).read_text())
        assert found["costs"] == ("timed" if costs else None)
        assert {arm["name"]: arm["cost"] for arm in found["arms"]}["gradient_power=0"] == (ratio if costs else None)


def test_a_change_under_which_a_run_failed_is_never_better(changes):
    config = AblationConfig(changes=changes, seeds="4")

    def loss(name, seed):
        if name == "base":
            return 2.0
        if name == "gradient_power=0":
            return "loss is nan" if seed == 1 else 1.0 + 0.001 * seed
        return "loss is nan"

    arms = {arm["name"]: arm for arm in effects.effects(config, results_of(config, loss), {})["arms"]}
    assert arms["gradient_power=0"]["word"] == "no evidence"
    assert arms["gradient_power=0"]["failed"] == {"1": "loss is nan"}
    assert arms["gradient_power=0"]["difference"]["seeds"] == 3
    assert arms["scores=random"]["word"] == "failed"
    assert arms["scores=random"]["difference"] is None


def test_one_seed_has_effects_without_intervals(changes):
    config = AblationConfig(changes=changes, seeds="1")
    found = effects.effects(config, results_of(config, lambda name, seed: 1.0 + len(name)), {"how": "x", "ratios": {}})
    assert {arm["word"] for arm in found["arms"]} == {"no evidence"}
    assert found["costs"] == "x"
    assert all(arm["cost"] is None for arm in found["arms"])


def test_values_are_shown_as_they_are_written():
    assert Arm("a", {"map_first": True, "power": -0.25, "scores": "random", "heads": 4}).name == (
        "map_first=true, power=-0.25, scores=random, heads=4"
    )
    assert Arm("base", {}).name == ablation.BASE
