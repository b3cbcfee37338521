"""The table of momentum kernels, from losses that are known."""

import json

import kernel_table
from cegm.lab.baselines import option_names
from logs import LOGS, MINUS


def line(arm, seed, loss, step=150):
    return {"method": arm, "seed": seed, "step": step, "validation": loss}


def test_final_losses_stand_beside_those_of_one_running_mean_seed_by_seed():
    log = [line("muon ema 0.2", seed, 9.0, step=25) for seed in (7, 8)]
    for arm, losses in {"muon ema 0.2": (2.0, 2.2), "muon two 0.2": (1.8, 2.25)}.items():
        log += [line(arm, seed, loss) for seed, loss in zip((7, 8), losses, strict=True)]
    *_, ema, two = kernel_table.table(log).strip().splitlines()
    assert ema == "| `muon` | `ema` | 2.000 | 2.200 |  |  |"
    assert two == f"| `muon` | `two` | 1.800 | 2.250 | {MINUS}0.200 | +0.050 |"


def test_every_kernel_had_the_rate_that_was_tuned_for_its_method():
    settings = json.loads((LOGS / "kernel/settings.json").read_text())
    tuned = json.loads((LOGS / "pretrain/settings.json").read_text())
    for arm, options in settings.items():
        method, kernel, _ = arm.split()
        assert (options["method"], options["momentum_kernel"]) == (method, kernel)
        assert options["lr"] == tuned[method]["lr"]
        assert set(options) - {"method"} <= set(option_names(method))
    assert len(settings) == 9
