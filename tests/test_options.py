import inspect
import math

import pytest
from torch import nn

from cegm import CEGM
from cegm.lab.declarations import declared
from cegm.lab.train.run_config import OPTIMIZER_OPTIONS, RunConfig
from cegm.options import OPTIONS, PRESETS, RECOMMENDED, OptionValues, resolve


def test_presets_fill_in_and_given_options_win():
    assert resolve("recommended", {})["row_moment"] is RECOMMENDED["row_moment"]
    assert resolve("paper", {})["power"] == 1.0
    assert resolve("paper", {"power": -1.0, "damping": 0.1})["power"] == -1.0
    assert resolve("paper", {"power": None})["power"] == 1.0
    assert all(set(preset) <= set(RECOMMENDED) for preset in PRESETS.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0"),
        ({"scores": "unifrom"}, "did you mean 'uniform'"),
        ({"normalize": "svd"}, "use one of polar, product, spectral, frobenius, adam, none"),
        ({"hierarchy": "galaxy"}, "hierarchy='galaxy'"),
        ({"entanglement": 0.0}, "Muon's momentum"),
        ({"entanglement": 1.5}, "entanglement=1.5"),
        ({"recurrence": 1.0}, "recurrence=1"),
        ({"refresh_every": 0}, "refresh_every=0"),
        ({"heads": 2.5}, "heads=2.5"),
        ({"power": -0.5, "damping": 0.0}, "use damping above 0"),
        ({"gradient_power": 0.5, "damping": 0.0}, "gradient_power=0.5"),
        ({"aux_betas": (0.9, 1.0)}, "second"),
        ({"coefficient_range": (0.5, 0.1)}, "low <= high"),
        ({"damping": -0.1}, "damping=-0.1"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
        ({"gradient_power": float("nan")}, "gradient_power=nan is outside the finite numbers"),
        ({"heads": 2.0}, "heads=2.0 must be a whole number"),
        ({"coefficient_range": (0.1,)}, "must be two numbers"),
        ({"aux_betas": 0.9}, "aux_betas=0.9 must be two numbers"),
        ({"damping": float("inf")}, "damping=inf"),
        ({"flow_time": -1.0}, "flow_time=-1.0"),
        ({"flow_time": 1.0, "gradient_power": 0.0}, "flow_time=1 has no map to flow through"),
        ({"coefficient": "cosin"}, "did you mean 'cosine'"),
        ({"momentum_kernel": "too"}, "did you mean 'two'"),
        ({"momentum_kernel": "two", "normalize": "adam", "gradient_power": 0.0}, "set momentum_kernel='ema'"),
        ({"coefficient_period": 0}, "coefficient_period=0"),
    ],
)
def test_impossible_values_are_one_line_errors(given, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as error:
        resolve("recommended", given)
    assert "\n" not in str(error.value)


def test_unknown_preset_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'paper'"):
        resolve("papper", {})


def test_a_signature_has_every_option_as_a_keyword_and_no_other():
    parameters = dict(inspect.signature(CEGM).parameters)
    for name in ("params", "lr", "model", "preset", "retain", "group_patterns"):
        del parameters[name]
    assert list(parameters) == list(OPTIONS) == list(OptionValues.__annotations__)
    assert all(p.kind is p.KEYWORD_ONLY and p.annotation == OPTIONS[n].kind for n, p in parameters.items())
    with pytest.raises(TypeError, match="CEGM has no option 'gradient_powers'; did you mean 'gradient_power'"):
        CEGM(nn.Linear(3, 4), gradient_powers=0)


def test_the_command_line_offers_every_option_under_its_name():
    offered = {**OPTIMIZER_OPTIONS, **declared(RunConfig)}
    for name, option in OPTIONS.items():
        assert option.plain == offered[name].plain


@pytest.mark.parametrize("name", OPTIONS)
def test_every_default_is_inside_its_range_and_what_is_outside_is_refused(name):
    option = OPTIONS[name]
    for preset in PRESETS:
        resolve(preset, {})
    if option.choices:
        outside = ["svd"]
    elif option.plain is int:
        outside = [option.low - 1, 1.5]
    elif option.plain is float:
        outside = [math.nan, math.inf]
        outside += [option.low - 1] if option.low > -math.inf else []
        outside += [option.low] if option.above else []
        outside += [option.high] if option.below else []
    else:
        outside = []
    for value in outside:
        with pytest.raises(ValueError, match=f"{name}="):
            resolve("recommended", {name: value})
