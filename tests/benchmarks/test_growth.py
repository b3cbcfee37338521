"""Exponents of power laws that are known."""

import json

import numpy as np
import pytest

pytest.importorskip("altair")

import growth


def line(seconds, **size):
    """One size of a log, with two methods; the arithmetic of both is the same quadratic law in the width."""
    whole = {"hidden": 64, "tokens": 2048, "length": 256, "layers": 2} | size
    each = whole["hidden"] ** 2 * whole["tokens"]
    floor = {"forward_backward": each, "step": each, "capture": 20 * each, "refresh": 30 * each}
    rounds = [seconds * f for f in (0.99, 1.0, 1.01)]
    found = {"seconds_per_step": seconds, "rounds": rounds, "floor_operations": floor, "refresh_every": 50}
    methods = {"muon": found, "soap": {**found, "floor_operations": None}}
    return {**whole, "threads": 1, "device": "cpu", "methods": methods}


def test_a_power_law_has_its_exponent():
    curve = [line(3e-6 * width**1.5 * 2048, hidden=width) for width in (64, 128, 256)]
    row = growth.exponent(curve, "hidden", "muon", np.random.default_rng(0))
    assert row["measured"].startswith("+1.50 [+1.")
    assert row["arithmetic"] == "+2.00"
    assert growth.exponent(curve, "hidden", "soap", np.random.default_rng(0))["arithmetic"] == ""


def test_a_refresh_counts_once_in_its_interval():
    assert growth.operations(line(1.0, hidden=1, tokens=1)["methods"]["muon"]) == 1 + 1 + (20 + 30) / 50


def test_cost_per_token_falls_where_a_fixed_part_is_shared_by_more_tokens():
    curve = [line(2.0, tokens=tokens) for tokens in (1024, 2048, 4096)]
    assert growth.exponent(curve, "tokens", "soap", np.random.default_rng(0))["measured"].startswith("-1.00")


def test_only_sizes_that_differ_in_one_axis_are_a_curve():
    lines = [line(1.0, hidden=width) for width in (256, 64, 128)] + [
        line(1.0, layers=4),
        line(1.0, layers=8, hidden=32),
    ]
    lines += [{**line(1.0, hidden=512), "device": "cuda"}, line(1.0, tokens=4096), line(1.0, tokens=4096)]
    found = growth.curves(lines)
    assert list(found) == ["hidden"]
    assert [each["hidden"] for each in found["hidden"]] == [64, 128, 256]


def test_table_and_picture_are_written(tmp_path, monkeypatch, capsys):
    log = tmp_path / "a.jsonl"
    log.write_text("".join(json.dumps(line(1e-3 * width, hidden=width)) + "\n" for width in (64, 128, 256)))
    monkeypatch.setattr("sys.argv", ["growth.py", str(log), "--output", str(tmp_path / "g.svg")])
    growth.main()
    assert "hidden width" in capsys.readouterr().out
    assert (tmp_path / "g.svg").read_text().startswith("<svg")
    assert (tmp_path / "g.csv").read_text().startswith("axis,")


def test_too_few_sizes_say_so(tmp_path, monkeypatch):
    log = tmp_path / "a.jsonl"
    log.write_text(json.dumps(line(1.0)) + "\n")
    monkeypatch.setattr("sys.argv", ["growth.py", str(log)])
    with pytest.raises(SystemExit, match="3 sizes"):
        growth.main()
