"""Losses whose table is known, and a measurement at toy size that goes on where it stopped."""

import json
import random

import pytest

pytest.importorskip("trl")

import trained_defaults


def line(rate, text, steps, change, **more):
    point = {"model": "tiny", "method": "adamw", "rank": 0, "rate": rate, "steps": steps, "text": text, **more}
    return {**point, "before": {"own": 2.0, "new": 3.0}, "after": {"own": 2.0 + change, "new": 3.0 + change}}


def test_a_rate_is_harmless_if_it_and_all_below_never_raise_the_loss_of_the_own_text():
    changes = {1e-4: (-0.001, 0.009), 3e-4: (0.011, -0.2), 1e-3: (0.0, 0.0)}
    lines = [line(rate, "own", 5, first) for rate, (first, _) in changes.items()]
    lines += [line(rate, "own", 60, last) for rate, (_, last) in changes.items()]
    lines += [line(rate, "new", 60, -0.5) for rate in changes]
    lines += [line(1e-4, "own", 5, 0.5, rank=8)]
    whole, adapted = trained_defaults.table(lines).to_dict("records")
    assert (whole["harmless"], adapted["harmless"]) == (1e-4, 0.0)
    assert (whole["0.0001"], whole["0.0003"]) == ("+0.009 -0.50", "+0.011 -0.50")


def test_a_line_that_the_log_holds_is_not_measured_again(tmp_path, monkeypatch, capsys):
    words = random.Random(0).choices(["the", "cat", "sees", "a", "dog", "over", "there"], k=2000)
    for folder in ("own", "new"):
        (tmp_path / folder).mkdir()
        for index in range(24):
            text = " ".join(words[index:] if folder == "own" else reversed(words[index:]))
            (tmp_path / folder / f"{index}.txt").write_text(text, encoding="utf-8")
    sizes = {
        "BASE_STEPS": 2,
        "BASE_ROWS": 1,
        "LENGTH": 16,
        "WAYS": (("own", 1), ("new", 2)),
        "RATES": {0: (1e-3,), 8: (1e-3,)},
    }
    for name, value in sizes.items():
        monkeypatch.setattr(trained_defaults, name, value)
    log = tmp_path / "log.jsonl"
    places = ["--own", str(tmp_path / "own"), "--new", str(tmp_path / "new"), "--output", str(log)]
    command = ["trained_defaults.py", *places, "--models", "tiny", "--methods"]
    measured = []
    for methods in ("adamw", "adamw", "adamw,schedule_free"):
        monkeypatch.setattr("sys.argv", [*command, methods])
        trained_defaults.main()
        measured.append(log.read_text(encoding="utf-8").splitlines())
    assert measured[0] == measured[1] == measured[2][:5]
    assert len(measured[2]) == 9
    assert json.loads(measured[2][5])["before"] == json.loads(measured[2][1])["before"]  # the same base again
    monkeypatch.setattr("sys.argv", [*command, "adamw", "--weight_decay", "0.5"])
    with pytest.raises(SystemExit, match="other settings"):
        trained_defaults.main()
    monkeypatch.setattr("sys.argv", ["trained_defaults.py", "--output", str(log), "--table"])
    capsys.readouterr()
    trained_defaults.main()
    assert "schedule_free" in capsys.readouterr().out
