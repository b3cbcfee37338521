"""Configuration: sources, types, and every value that is refused."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from cegm.lab.baselines import METHODS, option_names
from cegm.lab.declarations import read_yaml
from cegm.lab.train.run_config import OPTIMIZER_OPTIONS, RunConfig, from_mapping


def test_text_and_typed_values_mean_the_same() -> None:
    as_text = from_mapping(
        {
            "max_steps": "7",
            "learning_rate": "3e-3",
            "bf16": "true",
            "heads": "4",
            "aux_betas": "0.9,0.95",
            "aux_lr": "none",
        },
        "flags",
    )
    typed = from_mapping(
        {"max_steps": 7, "learning_rate": 0.003, "bf16": True, "heads": 4, "aux_betas": [0.9, 0.95], "aux_lr": None},
        "yaml",
    )
    assert as_text == typed
    assert typed.optimizer_options == {"heads": 4, "aux_betas": (0.9, 0.95)}


def test_configuration_survives_yaml() -> None:
    config = RunConfig(method="muon", aux_lr=1e-3, optimizer_options={"momentum": 0.9, "aux_betas": (0.8, 0.9)})
    assert from_mapping(yaml.safe_load(yaml.safe_dump(config.to_dict())), "file") == config


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_model_begins_at_the_rate_of_fresh_models(method: str) -> None:
    config = RunConfig("reader", method=method)
    begins = (config.learning_rate, config.aux_lr, config.weight_decay, config.warmup_steps)
    assert begins == (METHODS[method].rates.fresh, None, 0.1, 0.05)
    assert config.lr_scheduler_type == METHODS[method].schedule


@pytest.mark.parametrize("method", METHODS)
def test_trained_weights_go_on_far_below_that(method: str) -> None:
    whole, adapted = (RunConfig("some/model", method=method, lora_r=rank) for rank in (0, 8))
    assert (whole.learning_rate, adapted.learning_rate) == (
        METHODS[method].rates.trained,
        METHODS[method].rates.adapters,
    )
    assert whole.learning_rate < adapted.learning_rate < 1e-3
    for config in (whole, adapted):
        assert (config.aux_lr, config.weight_decay, config.warmup_steps) == (METHODS["adamw"].rates.trained, 0.0, 10)
        assert from_mapping(yaml.safe_load(yaml.safe_dump(config.to_dict())), "file") == config


@pytest.mark.parametrize("name", ["tiny", "some/model"])
def test_what_is_given_wins_over_every_default(name: str) -> None:
    given = {"learning_rate": 0.5, "weight_decay": 0.25, "warmup_steps": 3, "lr_scheduler_type": "linear"}
    config = RunConfig(name, method="muon", **given)  # type: ignore[arg-type]
    assert {option: getattr(config, option) for option in given} == given
    assert config.aux_lr is None  # a rate that is given holds for all weights
    assert RunConfig(name, aux_lr=0.125).aux_lr == 0.125
    zero = RunConfig(name, learning_rate=0.0, warmup_steps=0, weight_decay=0.0)
    assert (zero.learning_rate, zero.warmup_steps, zero.weight_decay) == (0.0, 0, 0.0)


def test_the_pace_of_a_run_says_what_was_resolved() -> None:
    assert RunConfig("some/model", method="muon").pace == (
        "muon from trained weights: learning rate 5e-05 (2e-05 outside matrices), cosine after a warm-up of 10 steps, weight decay 0"
    )
    assert RunConfig(learning_rate=0.01, warmup_steps=0.1).pace == (
        "cegm from random weights: learning rate 0.01, cosine after a warm-up of 10% of the steps, weight decay 0.1"
    )


def test_schedule_free_takes_no_other_schedule() -> None:
    with pytest.raises(ValueError, match="use constant_with_warmup"):
        RunConfig(method="schedule_free", lr_scheduler_type="cosine")


@pytest.mark.parametrize("name", ["output_dir", "model_name_or_path"])
def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_trained(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}='a.udcff' is not UTF-8"):
        from_mapping({name: "a\udcff"}, "command line")
    assert getattr(from_mapping({name: "caf\xe9"}, "command line"), name) == "caf\xe9"
    assert from_mapping({"data": "a\udcff"}, "command line").data == "a\udcff"  # which only Python reads


def test_flat_option_wins_over_nested_one() -> None:
    config = from_mapping({"heads": 8, "optimizer_options": {"heads": 2, "power": 0.5}}, "file")
    assert config.optimizer_options == {"heads": 8, "power": 0.5}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rte": 1}, "did you mean 'learning_rate'"),
        ({"gradient_powr": 1}, "did you mean 'gradient_power'"),
        ({"optimizer_options": {"hads": 1}}, "did you mean 'heads'"),
        ({"optimizer_options": 3}, "names and values"),
        ({"learning_rate": -1}, "learning_rate=-1.0 must be at least 0"),
        ({"learning_rate": "fast"}, "learning_rate='fast' is not of type float"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"max_steps": 0}, "max_steps=0 must be at least 1"),
        ({"max_steps": 1.5}, "max_steps=1.5 is not of type int"),
        ({"max_length": 1}, "max_length=1 must be at least 2"),
        ({"seed": -1}, "seed=-1"),
        ({"on_nonfinite": "skp"}, "on_nonfinite='skp' does not exist; did you mean 'skip'"),
        ({"method": "mun"}, "did you mean 'muon'"),
        ({"beta": "nan"}, "beta='nan' is not of type float"),
        ({"beta": -1.5, "kernel": "dot"}, "beta=-1.5 with kernel 'dot' has no minimum"),
        ({"kernel": "cosin"}, "kernel 'cosin' does not exist; did you mean 'cosine'?"),
        ({"stop_gradient": "h"}, "stop_gradient 'h' does not exist; use one of none, context, gradient"),
        ({"bf16": "perhaps"}, "bf16='perhaps' is not of type bool"),
        ({"aux_betas": "0.9"}, "two numbers"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"num_train_epochs": 2}, "give max_steps"),
        ({"data": "x.txt", "num_train_epochs": 0}, "num_train_epochs=0.0 must be above 0"),
    ],
)
def test_bad_values_are_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as raised:
        from_mapping(values, "command line")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), ("a: [", "not valid YAML"), ("- 1", "must hold"), ("", "must hold")],
)
def test_bad_yaml_file(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        read_yaml(str(path))
    assert "\n" not in str(raised.value)


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: !!python/object/apply:os.getpid []")
    with pytest.raises(ValueError, match="not valid YAML"):
        read_yaml(str(path))


def test_every_optimizer_option_is_offered_and_none_is_invented() -> None:
    fields = set(inspect.signature(RunConfig).parameters) | {"lr", "group_patterns"}
    known = {name for method in METHODS for name in option_names(method)} - fields
    assert known == set(OPTIMIZER_OPTIONS)
