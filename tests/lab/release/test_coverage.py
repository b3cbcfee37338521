"""The coverage table points at files that are there, and says where there is nothing."""

from __future__ import annotations

import csv
from pathlib import Path

from cegm.lab.cli import main
from cegm.lab.release.coverage import COLUMNS
from releases import written_run


def rows(release: Path) -> list[dict[str, str]]:
    with (release / "evidence" / "coverage.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_names_a_file_of_the_release_or_that_there_is_none(template: Path) -> None:
    found = rows(template)
    assert tuple(found[0]) == COLUMNS
    assert {row["framework"].split(" ")[0] for row in found} == {"EU", "Japan", "NIST", "ISO/IEC"}
    for row in found:
        assert row["where"] == "not provided" or (template / row["where"]).is_file(), row
        assert all(not cell.startswith(("=", "+", "-", "@")) for cell in row.values())
    assert {row["where"] for row in found if row["reference"] == "Annex IV 1(a)" and "purpose" in row["asks"]} == {
        "not provided"
    }


def test_what_a_run_did_not_say_is_not_covered(template: Path, tmp_path: Path) -> None:
    bare = tmp_path / "release"
    assert main(["audit", str(written_run(tmp_path / "run")), "--output_dir", str(bare)]) == 0
    where = [{(row["reference"], row["evidence"]): row["where"] for row in rows(each)} for each in (template, bare)]
    lost = {name[1] for name in where[0] if where[0][name] != where[1][name]}
    assert lost == {
        "who answers for the run",
        "signature of the trainer over every file",
        "where the text comes from",
        "under which licence the text is used",
        "comparison or pilot with intervals and its criteria",
        "which rows of the text drove the updates",
    }
    assert all(where[1][name] == "not provided" for name in where[1] if name[1] in lost)


def test_a_log_of_use_and_an_approval_are_never_claimed(template: Path) -> None:
    for row in rows(template):
        if row["evidence"].startswith(("log of the use", "signature of a second", "monitoring in use")):
            assert row["where"] == "not provided"
