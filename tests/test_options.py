import pytest
import torch

from cegm.options import PRESETS, RECOMMENDED, block_width, multiplies_bfloat16, polar_dtype, resolve


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
        ({"normalize": "svd"}, "use one of polar, spectral, frobenius, none"),
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
        ({"gradient_power": float("nan")}, "gradient_power=nan is no power"),
        ({"heads": 2.0}, "heads=2.0 must be a whole number"),
        ({"coefficient_range": (0.1,)}, "must be two numbers"),
        ({"aux_betas": 0.9}, "aux_betas=0.9 must be two numbers"),
        ({"damping": float("inf")}, "damping=inf"),
        ({"flow_time": -1.0}, "flow_time=-1.0"),
        ({"flow_time": 1.0, "gradient_power": 0.0}, "flow_time=1 has no map to flow through"),
        ({"coefficient": "cosin"}, "did you mean 'cosine'"),
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


def test_blocks_divide_their_side():
    assert block_width(128, 128, 4, 1, "w") == 32
    with pytest.raises(ValueError, match="heads=5 does not divide the 12 features of layer 3"):
        block_width(12, 12, 5, 1, "layer 3")


@pytest.mark.parametrize(("outputs", "inputs"), [(128, 128), (384, 128), (128, 384), (7, 7), (12, 100), (1, 3)])
@pytest.mark.parametrize("sharers", [1, 2, 4])
def test_automatic_blocks_are_the_widest_within_the_memory_of_the_momentum(outputs, inputs, sharers):
    width = block_width(outputs, inputs, None, sharers, "w")
    assert outputs % width == 0

    def bytes_per_weight(w):
        return 4 * w * outputs * sharers / (outputs * inputs)

    assert bytes_per_weight(width) <= 4 or width == 1
    wider = [w for w in range(width + 1, outputs + 1) if outputs % w == 0]
    assert not wider or bytes_per_weight(wider[0]) > 4


def test_muons_precision_is_torchs_when_the_options_are_muon():
    cpu = torch.device("cpu")
    muon = {**RECOMMENDED, "power": 0.0, "gradient_power": 0.0, "row_moment": False}
    assert polar_dtype(muon, cpu) == torch.bfloat16
    assert polar_dtype({**muon, "precision": "float32"}, cpu) == torch.float32
    assert polar_dtype(RECOMMENDED, torch.device("cuda")) == torch.bfloat16


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"amx_bf16": True}, True),
        ({"arm_bf16": True}, True),
        ({"avx512_bf16": True, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_only_matrix_instructions_make_bfloat16_worth_its_rounding(known, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert multiplies_bfloat16() is expected
    assert polar_dtype(RECOMMENDED, torch.device("cpu")) == (torch.bfloat16 if expected else torch.float32)
