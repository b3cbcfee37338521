"""What `cegm audit` makes of runs: whole or not at all, from what lies in it alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cegm.durable import sha256
from cegm.lab.cli import main
from cegm.lab.release.evidence import read
from cegm.lab.release.layout import ReleaseFolder
from cegm.lab.train.audit import AuditLog
from releases import verify, written_comparison, written_run


def test_a_release_has_model_evidence_and_signatures(template: Path) -> None:
    names = {path.relative_to(template).as_posix() for path in template.rglob("*") if path.is_file()}
    chain = {"audit.jsonl", "config.yaml", "metrics.jsonl"}
    assert names == {
        "model/model.safetensors",
        "model/config.json",
        *(f"evidence/{name}" for name in ("card.md", "bom.cdx.json", "coverage.csv", "verdict.json")),
        *(f"evidence/chains/1/{name}" for name in (*chain, "explanation.json")),
        *(f"evidence/chains/{n}/{name}" for n in (2, 3) for name in (*chain, "result.json")),
        *("manifest.sha256", "trainer.sig", "approval.json", "approver.sig"),
    }


def test_the_auditor_s_table_is_answered_from_the_release_alone(template: Path) -> None:
    evidence = read(ReleaseFolder(template))
    card = (template / "evidence" / "card.md").read_text()
    for answer in (
        "Operator: `Team A`",
        "Source: `made up`",
        "Licence: `CC0-1.0`",
        evidence.described.hashes.data,
        evidence.end,
    ):
        assert answer in card
    assert "`torch` `2.13.0`" in card
    assert "`cegm` against `adamw`: -0.25, 95 % interval -0.5 to -0.125, `better`" in card
    assert "Row `0`, score 0.5, most at `sea`: `by the sea 0`" in card
    layers = [card.index(f"`{name}`: ") for name in ("layers.1.q", "head", "layers.0.q")]
    assert layers == sorted(layers)  # the one that moved most first
    assert "layers' inputs, median over layers: 3 at step 1, 5 at step 3, 6 at step 4." in card
    assert "layers' output gradients, median over layers: 8 at step 1, 6 at step 3, 5 at step 4." in card
    assert "0.5 at step 1, 0.1667 at step 3, 0.125 at step 4" in card  # home
    assert json.loads((template / "approval.json").read_text())["approver"] == "B. Second"


def test_what_nobody_said_reads_not_provided(tmp_path: Path) -> None:
    run, place = written_run(tmp_path / "run"), tmp_path / "release"
    assert main(["audit", str(run), "--output_dir", str(place)]) == 0
    card = (place / "evidence" / "card.md").read_text()
    for question in ("Operator", "Source", "Licence", "Verdict of a comparison or a pilot"):
        assert f"- {question}: not provided" in card
    assert not (place / "trainer.sig").exists()
    assert '"value": "not provided"' in (place / "evidence" / "bom.cdx.json").read_text()


def test_the_word_that_is_for_courts_is_nowhere(template: Path) -> None:
    word = "compli" + "ant"
    for path in template.rglob("*"):
        assert path.is_dir() or word.encode() not in path.read_bytes().lower(), path


def test_a_run_among_those_of_the_verdict_is_told_from_another(tmp_path: Path, template: Path) -> None:
    comparison = written_comparison(tmp_path / "comparison", loss=1.5)
    inside, other = comparison / "runs" / "cegm-seed0", written_run(tmp_path / "other", loss=1.25)
    for run, said in ((inside, "this run is one of those"), (other, "cannot be told from its numbers")):
        place = tmp_path / f"release of {run.name}"
        assert main(["audit", str(run), str(comparison), "--output_dir", str(place)]) == 0
        assert said in (place / "evidence" / "card.md").read_text()
    assert sorted(path.name for path in (tmp_path / "release of cegm-seed0" / "evidence" / "chains").iterdir()) == [
        "1",
        "2",
    ]


def test_runs_that_have_not_finished_are_counted_and_left_out(tmp_path: Path) -> None:
    comparison = written_comparison(tmp_path / "comparison")
    log = comparison / "runs" / "adamw-seed0" / "audit.jsonl"
    AuditLog(log).record("resume", config="x", manifest="y")
    place = tmp_path / "release"
    assert main(["audit", str(comparison / "runs" / "cegm-seed0"), str(comparison), "--output_dir", str(place)]) == 0
    assert "1 runs of the comparison have not finished" in (place / "evidence" / "card.md").read_text()


def test_the_chain_of_a_pilot_comes_along_and_is_verified(tmp_path: Path, people: Path) -> None:
    run, pilot, place = written_run(tmp_path / "run"), tmp_path / "pilot", tmp_path / "release"
    pilot.mkdir()
    (pilot / "pilot.yaml").write_text("task: faq\n")
    (pilot / "verdict.json").write_text(json.dumps({"kpi": "accuracy", "decision": {"word": "HOLD", "effect": 0.004}}))
    AuditLog(pilot / "audit.jsonl").record("fix", criteria="hash")
    signed = ["--output_dir", str(place), "--key", str(people / "trainer.key")]
    assert main(["audit", str(run), str(pilot), *signed]) == 0
    assert "`decision.word`: `HOLD`" in (place / "evidence" / "card.md").read_text()
    alone = ["audit", "--verify", str(place), "--trainer_key", str(people / "trainer.pub")]
    assert main(alone) == 0
    log = place / "evidence" / "chains" / "2" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"hash", b"Hash"))
    assert main(alone) == 1


def test_a_verdict_that_was_changed_after_the_pilot_wrote_it_becomes_no_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pilot, place = written_run(tmp_path / "run"), tmp_path / "pilot", tmp_path / "release"
    pilot.mkdir()
    (pilot / "pilot.yaml").write_text("task: faq\n")
    verdict = pilot / "verdict.json"
    verdict.write_text(json.dumps({"decision": {"word": "HOLD"}}))
    AuditLog(pilot / "audit.jsonl").record("verdict", word="HOLD", verdict_sha256=sha256(verdict))
    words = ["audit", str(run), str(pilot), "--output_dir", str(place)]
    assert main(words) == 0
    shutil.rmtree(place)
    verdict.write_text(json.dumps({"decision": {"word": "GO"}}))
    assert main(words) == 2
    assert f"{pilot / 'audit.jsonl'} knows another verdict" in capsys.readouterr().err
    verdict.unlink()
    assert main(words) == 2


@pytest.mark.parametrize("part", ["model/model.safetensors", "metrics.jsonl", "config.yaml"])
def test_a_damaged_run_becomes_no_release(tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = written_run(tmp_path / "run")
    (run / part).write_bytes((run / part).read_bytes() + b" ")
    assert main(["audit", str(run), "--output_dir", str(tmp_path / "release")]) == 2
    assert f"{run / part} " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_what_cannot_be_released_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, comparison = written_run(tmp_path / "run"), written_comparison(tmp_path / "comparison")
    other = written_comparison(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    begun = written_run(tmp_path / "begun")
    AuditLog(begun / "audit.jsonl").record("resume", config="x", manifest="y")
    for words, told in (
        ([comparison], "name the run first"),
        ([tmp_path / "nobody"], "is no folder"),
        ([begun], "has not finished"),
        ([run, tmp_path / "empty"], "holds neither a run nor a verdict"),
        ([run, comparison, other], "two verdicts"),
    ):
        assert main(["audit", *map(str, words), "--output_dir", str(tmp_path / "release")]) == 2
        assert told in capsys.readouterr().err
    assert main(["audit", str(run), "--output_dir", str(tmp_path / "empty")]) == 2
    assert "a release is never changed" in capsys.readouterr().err
    assert main(["audit", str(run)]) == 2
    assert "output_dir is missing" in capsys.readouterr().err
    (comparison / "verdict.json").write_text('{"measures": [{"name": 3}]}')
    assert main(["audit", str(run), str(comparison), "--output_dir", str(tmp_path / "release")]) == 2
    assert "verdict.json is not as it was written" in capsys.readouterr().err
    assert not (tmp_path / "release").exists()


def test_a_name_that_no_line_of_a_manifest_holds_is_refused(tmp_path: Path) -> None:
    folder = ReleaseFolder(tmp_path)
    (tmp_path / "a\nb").write_text("x")
    with pytest.raises(ValueError, match="can be no file of a release"):
        folder.manifest_text()


def test_what_is_missing_is_told_with_its_remedy() -> None:
    code = (
        "import sys\nsys.modules['cryptography'] = None\nfrom cegm.lab.cli import main\n"
        "sys.exit(main(['keys', 'new', 'anna']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'cegm[audit]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_of_audit_needs_none_of_its_packages() -> None:
    code = (
        "import sys\nfrom cegm.lab.cli import main\ntry:\n    main(['audit', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(any(n in sys.modules for n in ('torch', 'cryptography', 'cyclonedx')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_verification_says_what_changed_since_another_release(
    release: Path, tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, earlier = written_run(tmp_path / "run", {"learning_rate": "0.5"}), tmp_path / "earlier"
    assert main(["audit", str(run), "--output_dir", str(earlier)]) == 0
    assert main(verify(release, people, "--since", str(earlier))) == 0
    assert "Option `learning_rate`: `0.003`, before `0.5`." in capsys.readouterr().out
