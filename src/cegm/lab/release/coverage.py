"""`coverage.csv`: which piece of evidence speaks to which question of which framework; what is missing reads so. No legal conclusion."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

from cegm.lab.release.evidence import NOT_PROVIDED, Evidence
from cegm.lab.train.run_config import SAID

COLUMNS = ("framework", "reference", "asks", "evidence", "where")


def provided(evidence: Evidence, is_signed: bool, has_changes: bool) -> dict[str, bool]:
    """Whether a release has each piece of evidence; a signature by its approver can only come after this was written."""
    config = evidence.config
    given = {name: bool(config.get(name)) for name in SAID}
    facts = {
        **given,
        "trainer": is_signed,
        "changes": has_changes,
        "verdict": evidence.verdict is not None,
        "retention": bool(evidence.retention() or evidence.over_time("home")),
        "layers": bool(evidence.moved()),
        "rows": evidence.explanation is not None,
        "curve": bool(evidence.run.train),
    }
    return {name: facts.get(name, "where" in piece) for name, piece in _file()["evidence"].items()}


def table(facts: Mapping[str, bool]) -> str:
    """The table; nothing in it comes from data, so that no cell is a formula."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    pieces = _file()["evidence"]
    for framework, clauses in _file()["frameworks"].items():
        for reference, asks, name in clauses:
            where = pieces[name]["where"] if facts[name] else NOT_PROVIDED
            rows.writerow((framework, reference, asks, pieces[name]["what"], where))
    return text.getvalue()


def lacking(facts: Mapping[str, bool]) -> list[str]:
    """The pieces of evidence that a release has not, in words."""
    return [piece["what"] for name, piece in _file()["evidence"].items() if not facts[name]]


@functools.cache
def _file() -> dict[str, Any]:
    text = resources.files("cegm.lab.release").joinpath("coverage.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found
