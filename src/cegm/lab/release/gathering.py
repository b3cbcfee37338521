"""What `cegm audit` is given: runs, and comparisons or pilots with their verdict and the chains of all their runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cegm.lab.release.layout import PILOT
from cegm.lab.report.runs import VERDICT
from cegm.lab.train import verification


@dataclass(frozen=True)
class Gathered:
    """Folders that become evidence.

    Attributes:
        runs: Of finished runs, the one whose model is released first.
        pilots: Of pilots, whose chain tells what was fixed when.
        verdict: File of the verdict; None where there is none.
        unfinished: How many runs of comparisons have not finished.
    """

    runs: list[Path]
    pilots: list[Path]
    verdict: Path | None
    unfinished: int


def gather(sources: Sequence[str]) -> Gathered:
    """The folders below those that were given.

    Raises:
        ValueError: The first is no finished run, another is none of all, or there are two verdicts.
    """
    roots = [Path(source).expanduser().resolve() for source in sources]
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"{root} is no folder; give the output_dir of a run, a comparison or a pilot")
    shipped = roots[0]
    if not (shipped / "audit.jsonl").is_file() or not (shipped / "config.yaml").is_file():
        raise ValueError(
            f"{shipped} is no run, so there is no model to release; name the run first, then what judged it"
        )
    if not verification.finished_files(shipped):
        raise ValueError(
            f"{shipped} has not finished, or its audit.jsonl is damaged; cegm verify {shipped} tells which"
        )
    logs = [log.parent for root in roots for log in sorted(root.rglob("audit.jsonl"))]
    found = list(dict.fromkeys(logs))
    runs = [place for place in found if (place / "config.yaml").is_file()]
    finished = [place for place in runs if verification.finished_files(place)]
    verdicts = [root / VERDICT for root in roots if (root / VERDICT).is_file()]
    if len(verdicts) > 1:
        raise ValueError(
            f"{verdicts[0]} and {verdicts[1]} are two verdicts, and a release has one; leave one folder out"
        )
    for root in roots[1:]:
        if root / VERDICT not in verdicts and not any(place.is_relative_to(root) for place in found):
            raise ValueError(f"{root} holds neither a run nor a verdict; leave it out")
    pilots = [place for place in found if (place / PILOT).is_file()]
    return Gathered(finished, pilots, verdicts[0] if verdicts else None, len(runs) - len(finished))
