"""A whole pilot from three lines to its page, and what is refused of its results: older than the fix, a seed or an item left out."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cegm.durable import sha256
from cegm.lab.cli import main
from cegm.lab.compare.compare_config import from_names
from cegm.lab.declarations import read_yaml
from cegm.lab.pilot.conduct import comparison_of, conclude, read_verdict
from cegm.lab.pilot.fixing import PilotFolder, require_as_fixed
from cegm.lab.pilot.pilot_config import PilotConfig
from cegm.lab.train.audit import AuditLog, read


def config(folder: Path) -> PilotConfig:
    return from_names(PilotConfig, {**read_yaml(str(folder / "pilot.yaml")), "output_dir": str(folder)})


def concluded(folder: Path) -> str:
    """What is said of a pilot's results."""
    with pytest.raises(ValueError, match=r"\S") as raised:
        conclude(config(folder), require_as_fixed(config(folder)))
    return str(raised.value)


def test_a_pilot_leaves_verdict_page_and_chain(finished: Path) -> None:
    assert [event["event"] for event in read(finished / "audit.jsonl")[0]] == ["fix", "base", "verdict"]
    verdict, before, end = read_verdict(config(finished))
    assert verdict.decision.word in ("GO", "HOLD", "STOP")
    assert (verdict.decision.count, verdict.checkpoint.decision.count, verdict.items) == (2, 10, 10)
    assert set(verdict.means) == {"base", "adamw", "cegm"}
    assert set(verdict.means["cegm"]) == {"chosen", "embedded", "answered", "control"}
    page = (finished / "page.html").read_text("utf-8")
    assert "&lt;b&gt;Desk&lt;/b&gt; &amp; answers" in page
    assert before.criteria_sha256[:16] in page
    assert end[:16] in page


def test_effects_are_those_of_the_comparison_and_of_its_items(finished: Path) -> None:
    verdict, _, _ = read_verdict(config(finished))
    items = pd.read_parquet(finished / "comparison" / "items.parquet")
    shares = items[items["subset"] == "chosen"].groupby(["method", "seed"])["score"].mean()
    assert verdict.points == pytest.approx([shares["cegm", seed] - shares["adamw", seed] for seed in (0, 1)])
    results = pd.read_parquet(finished / "comparison" / "results.parquet")
    ours = results[results["method"] == "cegm"]
    assert verdict.checkpoint.seed == ours.loc[ours["bits_per_byte"].idxmin(), "seed"]


def test_computing_is_part_of_what_is_paid_once(finished: Path) -> None:
    verdict, _, _ = read_verdict(config(finished))
    extra = verdict.training_seconds["cegm"] - verdict.training_seconds["adamw"]
    assert verdict.money.once == pytest.approx(50.0 * extra / 3600)
    assert verdict.pilot_cost > 0


def test_what_was_run_is_not_run_again(pilot: Path, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in (pilot / "comparison" / "runs").rglob("result.json")}
    assert main(["pilot", "page", str(pilot / "pilot.yaml"), "--output_dir", str(pilot)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (pilot / "comparison" / "runs").rglob("result.json")}
    assert str(pilot / "page.html") in capsys.readouterr().out


def test_a_seed_that_was_left_out_is_named(pilot: Path) -> None:
    path = pilot / "comparison" / "results.parquet"
    results = pd.read_parquet(path)
    results[~((results["method"] == "cegm") & (results["seed"] == 1))].to_parquet(path)
    assert "seed 1 of cegm has no result; no seed may be left out" in concluded(pilot)
    results.assign(status=["failed", *results["status"][1:]], error="out of memory").to_parquet(path)
    assert "failed (out of memory); no seed may be left out" in concluded(pilot)


def test_an_item_that_was_not_asked_is_named(pilot: Path) -> None:
    path = pilot / "comparison" / "items.parquet"
    items = pd.read_parquet(path)
    gone = items[items["method"] == "cegm"].iloc[0]["item"]
    items[~((items["method"] == "cegm") & (items["item"] == gone))].to_parquet(path)
    assert f"item {gone} was not asked of cegm seed 0" in concluded(pilot)


def test_a_run_from_before_the_fix_is_named(pilot: Path) -> None:
    events = read(pilot / "audit.jsonl")[0]
    (pilot / "audit.jsonl").unlink()
    log = AuditLog(pilot / "audit.jsonl")
    for event in events:
        facts = {name: each for name, each in event.items() if name not in ("time", "event", "previous", "sha256")}
        log.record(event["event"], **facts)
    told = concluded(pilot)
    assert told.startswith("seed 0 of adamw ran at 20")
    assert "before the fix at" in told


def test_a_verdict_or_base_that_was_edited_is_refused(pilot: Path) -> None:
    path = pilot / "verdict.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "points": [1.0, 1.0]}))
    with pytest.raises(ValueError, match="was changed after it was written"):
        read_verdict(config(pilot))
    (pilot / "base" / "items.parquet").write_bytes(b"other")
    assert "is not what the chain knows" in concluded(pilot)


def test_without_a_verdict_there_is_no_page(pilot: Path) -> None:
    (pilot / "verdict.json").unlink()
    with pytest.raises(ValueError, match="has no verdict yet: cegm pilot run"):
        read_verdict(config(pilot))


def test_the_comparison_trains_on_the_lessons_and_asks_the_fixed_rows(finished: Path) -> None:
    planned = comparison_of(config(finished), PilotFolder(finished))
    run = planned.run("cegm", 1)
    assert run.data == str(finished / "data" / "lessons.jsonl")
    assert sha256(Path(run.data)) == read(finished / "audit.jsonl")[0][0]["files"]["lessons.jsonl"]
    assert planned.examination == {"axes": ["company"], "source": str(finished / "data"), "items": 10}
    assert (run.lora_r, planned.seed_list, planned.equal_seconds) == (2, [0, 1], False)
