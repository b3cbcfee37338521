"""A method is said once: whatever asks about methods asks its record."""

import dataclasses

import pytest
import torch

import models
from cegm.lab import baselines
from cegm.lab.baselines import METHODS, build_optimizer, ordered
from cegm.lab.baselines.space import KNOBS

pytest.importorskip("transformers")

MINE = dataclasses.replace(
    METHODS["muon"],
    title="Mine",
    home="torch.optim:SGD",
    look=baselines.Look("#123456", (9, 9), "stroke"),
    space=baselines.usual((0.5, 2.0), 1.0, 0.2),
    options={"momentum": (float, "weight of the past"), "mine_alone": (int, "how often")},
)


@pytest.fixture
def mine(monkeypatch):
    """A tenth method, of which nothing but its record is told."""
    monkeypatch.setitem(METHODS, "mine", MINE)


def test_a_record_is_all_that_a_new_method_takes(mine):
    from cegm.lab.compare.compare_config import CompareConfig, from_names
    from cegm.lab.compare.tuning import TuneConfig, settings
    from cegm.lab.forecast.plan_config import PlanConfig
    from cegm.lab.report import style
    from cegm.lab.train.run_config import RunConfig

    assert RunConfig(method="mine").learning_rate == MINE.rates.fresh
    assert (
        from_names(CompareConfig, {"methods": "mine,adamw", "mine.learning_rate": 0.5}).run("mine", 0).learning_rate
        == 0.5
    )
    search = TuneConfig(methods="mine")
    assert search.spaces["mine"].ranges["learning_rate"] == (0.5, 2.0)
    assert settings("mine", search.spaces["mine"].start)["momentum"] == 0.8
    assert PlanConfig(methods="mine").method_list == ["mine"]
    assert style.name("mine") == "Mine"
    assert style.looks(["cegm", "mine"])[1].colour == "#123456"
    assert ordered(["adamw", "mine", "cegm"]) == ["cegm", "mine", "adamw"]


def test_an_option_of_its_own_is_told_with_the_methods_that_take_it(mine):
    told = baselines.own_options()
    assert told["mine_alone"] == (int, "how often, of mine")
    assert told["momentum"][1].endswith(", mine")


def test_its_optimizer_is_found_where_the_record_says(mine):
    optimizer = baselines._builder("mine")(models.llama().parameters(), lr=0.1)
    assert isinstance(optimizer, torch.optim.SGD)


@pytest.mark.parametrize("method", METHODS)
def test_the_declared_momentum_is_an_option_of_the_method(method):
    model = models.llama()
    value = {"betas": (0.8, 0.95)}.get(METHODS[method].momentum, 0.1)
    assert build_optimizer(method, model, **{METHODS[method].momentum: value})


def test_every_space_names_every_knob_and_holds_its_start():
    for method in METHODS.values():
        assert list(method.space.ranges) == list(method.space.start) == list(KNOBS)
        for name, (low, high) in method.space.ranges.items():
            assert 0 < low <= method.space.start[name] <= high
