"""What changed between two releases is told, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cegm.durable import sha256
from cegm.lab.cli import main
from cegm.lab.release.since import changes
from cegm.lab.release.since import release as released
from cegm.lab.train.audit import AuditLog, read
from cegm.lab.train.folder import RunFolder
from releases import HASH, written_comparison, written_run


def rewritten(root: Path, section: str, **values: Any) -> Path:
    """The same run with other values in a section of its configuration."""
    folder = RunFolder(root)
    described = yaml.safe_load(folder.config.read_text())
    described[section] |= values
    folder.config.write_text(yaml.safe_dump(described))
    finish = read(folder.audit)[0][-1]
    folder.audit.unlink()
    audit = AuditLog(folder.audit)
    audit.record("start", config=sha256(folder.config))
    audit.record("finish", final_hash=finish["final_hash"], files=finish["files"])
    return root


def release(root: Path, *sources: Path) -> Path:
    place = root / f"release of {sources[0].name}"
    assert main(["audit", *map(str, sources), "--output_dir", str(place)]) == 0
    return place


def test_of_the_same_run_nothing_changed(tmp_path: Path) -> None:
    one, other = (released(release(tmp_path, written_run(tmp_path / name))) for name in ("one", "other"))
    assert changes(one, other) == ["Nothing: data, options, versions and measures are the same."]


def test_data_options_versions_and_measures_are_told_with_both_values(tmp_path: Path) -> None:
    comparison = written_comparison(tmp_path / "comparison")
    one = released(release(tmp_path, written_run(tmp_path / "one", {"data_source": "here"}), comparison))
    run = written_run(tmp_path / "other", {"learning_rate": "0.25", "gradient_power": "0.5"}, loss=1.25)
    rewritten(run, "versions", torch="2.14.0")
    other = released(release(tmp_path, rewritten(run, "hashes", data="f" * 64, initial_weights=HASH)))
    told = changes(one, other)
    assert told == [
        "It starts from the weights of the earlier release.",
        f"The text is another: sha256 `{'f' * 64}`, before `{HASH}`.",
        "Option `learning_rate`: `0.25`, before `0.003`.",
        "Option `data_source`: `not provided`, before `here`.",
        "Option `gradient_power`: `0.5`, before `not provided`.",
        "Version of `torch`: `2.14.0`, before `2.13.0`.",
        "Validation loss: 1.25, before 1.5.",
        "Validation bits per byte: 0.625, before 0.75.",
        "Verdict on `Validation loss at equal steps`, `cegm` against `adamw`: `not provided`, before `better`.",
    ]


def test_a_card_tells_them_and_the_coverage_knows(tmp_path: Path) -> None:
    one = release(tmp_path, written_run(tmp_path / "one"))
    place = tmp_path / "second"
    run = written_run(tmp_path / "other", {"learning_rate": "0.25"})
    assert main(["audit", str(run), "--output_dir", str(place), "--since", str(one)]) == 0
    assert "- Option `learning_rate`: `0.25`, before `0.003`." in (place / "evidence" / "card.md").read_text()
    coverage = (place / "evidence" / "coverage.csv").read_text()
    assert "what changed since the last release,evidence/card.md" in coverage


def test_what_is_no_release_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no release"):
        released(tmp_path)
