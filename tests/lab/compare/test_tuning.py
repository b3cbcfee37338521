import pytest

pytest.importorskip("optuna")

from cegm.lab.baselines import METHODS
from cegm.lab.baselines.space import KNOBS, Space
from cegm.lab.compare.compare_config import CompareConfig, from_names
from cegm.lab.compare.tuning import TuneConfig, read_spaces, settings

POINT = {"learning_rate": 0.012345, "weight_decay": 0.1, "one_minus_momentum": 0.2}


def test_every_method_has_a_space_with_its_start_inside():
    spaces = read_spaces("", list(METHODS))
    assert list(spaces) == list(METHODS)
    for space in spaces.values():
        for name in KNOBS:
            low, high = space.ranges[name]
            assert low <= space.start[name] <= high


@pytest.mark.parametrize(
    ("method", "own"),
    [("adamw", {"betas": [0.8, 0.95]}), ("muon", {"momentum": 0.8}), ("cegm", {"entanglement": 0.2})],
)
def test_momentum_in_the_methods_own_words(method, own):
    assert settings(method, POINT) == {"learning_rate": 0.0123, "weight_decay": 0.1, **own}


def test_ranges_double_only_at_the_edge_where_the_best_trial_lies():
    ranges = {"learning_rate": (0.001, 0.1), "weight_decay": (0.01, 1.0), "one_minus_momentum": (0.05, 0.8)}
    space = Space(ranges, {}, {})
    middle = {"learning_rate": 0.01, "weight_decay": 0.1, "one_minus_momentum": 0.2}
    assert space.widened(middle) == space
    low = space.widened({**middle, "learning_rate": 0.0011}).ranges
    assert low == {**ranges, "learning_rate": (0.0005, 0.1)}
    high = space.widened({**middle, "weight_decay": 0.9, "one_minus_momentum": 0.79}).ranges
    assert high == {**ranges, "weight_decay": (0.01, 2.0), "one_minus_momentum": (0.05, 0.9)}  # some divide by it


def test_seeds_are_always_a_list():
    assert TuneConfig(seeds="1000").runs.seed_list == [1000]
    assert TuneConfig(seeds="7,8").runs.seed_list == [7, 8]
    assert CompareConfig(seeds="2").seed_list == [0, 1]


def test_schedule_free_keeps_its_rate():
    (run,) = TuneConfig(methods="schedule_free").planned("schedule_free", POINT)
    assert run.config["lr_scheduler_type"] == "constant_with_warmup"


def test_trials_share_everything_but_the_point():
    config = from_names(
        TuneConfig, {"methods": "muon,cegm", "seeds": "7,8", "max_steps": 5, "trials": "3", "aux_lr": 0.1}
    )
    runs = [run for method in ("muon", "cegm") for run in config.planned(method, POINT)]
    assert [(run.method, run.seed) for run in runs] == [("muon", 7), ("muon", 8), ("cegm", 7), ("cegm", 8)]
    assert {(r.config["max_steps"], r.config["aux_lr"], r.config["learning_rate"]) for r in runs} == {(5, 0.1, 0.0123)}
    assert config.trials == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": 0}, "trials=0"),
        ({"extensions": -1}, "extensions=-1"),
        ({"methods": "moun"}, "did you mean 'muon'"),
        ({"space": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ({"max_stepz": 1}, "did you mean 'max_steps'"),
        ({"learning_rate": 0.1}, "'learning_rate' is what the search sets"),
        ({"entanglement": 0.1}, "'entanglement' is what the search sets"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(values, message):
    with pytest.raises(ValueError, match=message) as error:
        from_names(TuneConfig, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "muon: 3",
        "muon: {learning_rate: [0.1, 0.2]}",
        "muon: {start: {learning_rate: 1, weight_decay: 1, one_minus_momentum: 0.5}, learning_rate: [a, 3],"
        " weight_decay: [1, 2], one_minus_momentum: [0.1, 0.9]}",
        "adamw: {}",
        "muon: {start: {learning_rate: 1, weight_decay: 1, one_minus_momentum: 1}, learning_rate: [2, 3],"
        " weight_decay: [1, 2], one_minus_momentum: [0.5, 1]}",
    ],
)
def test_a_space_without_ranges_names_the_method(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="must give muon a start, and a range"):
        read_spaces(str(path), ["muon"])


def test_a_broken_file_is_one_line(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("muon: [1,\n2")
    with pytest.raises(ValueError, match="is not valid YAML") as error:
        read_spaces(str(path), ["muon"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("rank", "kind"), [(0, "trained"), ("8", "adapters")])
def test_a_search_from_trained_weights_lies_about_their_default(rank, kind):
    given = {"model_name_or_path": "some/model", "lora_r": rank, "max_steps": 5}
    fresh, trained = (TuneConfig(methods=",".join(METHODS), shared=shared) for shared in ({"max_steps": 5}, given))
    for method in METHODS:
        before, space = fresh.spaces[method], trained.spaces[method]
        rate = getattr(METHODS[method].rates, kind)
        assert space.start == {**before.start, "learning_rate": rate}
        assert space.ranges["learning_rate"][0] < rate < space.ranges["learning_rate"][1] < 0.01
        assert {**space.ranges, "learning_rate": before.ranges["learning_rate"]} == before.ranges
        (run,) = trained.planned(method, space.start)
        assert run.config["aux_lr"] == METHODS["adamw"].rates.trained


def test_a_declared_space_holds_for_trained_weights_as_it_stands(tmp_path):
    path = tmp_path / "space.yaml"
    ranges = "learning_rate: [0.1, 9], weight_decay: [0.5, 2], one_minus_momentum: [0.1, 0.9]"
    path.write_text(f"muon: {{start: {{learning_rate: 1, weight_decay: 1, one_minus_momentum: 0.5}}, {ranges}}}")
    config = TuneConfig(methods="muon", space=str(path), shared={"model_name_or_path": "some/model"})
    assert config.spaces["muon"].ranges["learning_rate"] == (0.1, 9.0)
