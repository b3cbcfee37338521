"""Losses whose dependence on the rate is known."""

import json

import pytest

pytest.importorskip("altair")

import sensitivity


def logs(folder, rates=(0.5, 1, 2), seeds=3):
    """CEGM is .1 better than Muon at the tuned rate and equal at the others."""
    paths = []
    for rate in rates:
        lines = [{"steps": 10, "rate": rate, "settings": {"cegm": {"lr": 0.02}, "muon": {"lr": 0.03}}}]
        for seed in range(seeds):
            for method in ("cegm", "muon"):
                loss = 2 + 0.01 * seed - (0.1 if method == "cegm" and rate == 1 else 0)
                lines += [{"method": method, "seed": seed, "step": s, "validation": loss} for s in (5, 10)]
        paths.append(folder / f"{rate}.jsonl")
        paths[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
    return paths


def test_the_table_shows_where_a_claim_holds(tmp_path):
    runs = sensitivity.read(logs(tmp_path))
    assert len(runs) == 3 * 3 * 2
    found = sensitivity.table(runs).set_index(["rate", "method"])["CEGM - this"]
    assert found["x 1", "Muon"].startswith("-0.1000")
    assert found["x 2", "Muon"].startswith("+0.0000")
    assert found["x 1", "CEGM"] == ""


def test_each_method_is_seen_around_its_own_best_rate(tmp_path):
    runs = sensitivity.read(logs(tmp_path, rates=(0.5, 1, 2, 4)))
    runs.loc[(runs["method"] == "muon") & (runs["rate"] == 2), "loss"] -= 0.5
    found = sensitivity.around_best(runs).set_index("method")
    assert list(found.index) == ["Muon", "CEGM"]
    assert dict(found.loc["Muon"]) == {"best rate": "0.06", "x 0.5": "2.0100", "x 1": "1.5100", "x 2": "2.0100"}
    assert found.loc["CEGM", "best rate"] == "0.02"
    runs.loc[(runs["method"] == "muon") & (runs["rate"] == 2) & (runs["seed"] == 1), "loss"] = float("nan")
    assert sensitivity.around_best(runs).set_index("method").loc["Muon", "best rate"] != "0.06"  # one seed diverged
    runs.loc[runs["method"] == "muon", "loss"] = float("nan")
    assert list(sensitivity.around_best(runs)["method"]) == ["CEGM"]
    alone = sensitivity.around_best(runs[runs["rate"] == 2])
    assert set(alone["x 2"]) == {""}  # not measured


def test_picture_and_table_are_written(tmp_path, monkeypatch, capsys):
    paths = logs(tmp_path)
    monkeypatch.setattr("sys.argv", ["sensitivity.py", *map(str, paths), "--output", str(tmp_path / "s.svg")])
    sensitivity.main()
    assert "x 0.5" in capsys.readouterr().out
    assert (tmp_path / "s.svg").read_text().startswith("<svg")
    assert (tmp_path / "s.csv").read_text().startswith("rate,")


def test_a_run_that_diverged_is_shown_as_such(tmp_path):
    paths = logs(tmp_path)
    paths[-1].write_text(paths[-1].read_text().replace("2.02", "NaN"))
    found = sensitivity.table(sensitivity.read(paths)).set_index(["rate", "method"])
    assert found.loc[("x 2", "Muon"), "final loss"] == "1 diverged"
    assert found.loc[("x 2", "Muon"), "CEGM - this"] == ""
    assert found.loc[("x 1", "Muon"), "CEGM - this"].startswith("-0.1")


def test_logs_of_different_jobs_are_not_mixed(tmp_path):
    paths = logs(tmp_path)
    paths[1].write_text(paths[1].read_text().replace('"steps": 10', '"steps": 20', 1))
    with pytest.raises(SystemExit, match="more than --rate"):
        sensitivity.read(paths)


def test_logs_without_a_finished_run_say_so(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"steps": 5, "rate": 1}) + "\n")
    with pytest.raises(SystemExit, match="no finished run"):
        sensitivity.read([path])
