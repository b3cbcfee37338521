"""`cegm audit RUN... --output_dir RELEASE`: copies the model and the records, writes what they say, signs."""

from __future__ import annotations

import shutil
from pathlib import Path

from cegm.durable import move_whole
from cegm.lab.release import keys, since
from cegm.lab.release.audit_config import AuditConfig
from cegm.lab.release.bill import bill
from cegm.lab.release.coverage import provided, table
from cegm.lab.release.evidence import read
from cegm.lab.release.examination import records
from cegm.lab.release.gathering import Gathered, gather
from cegm.lab.release.layout import PILOT, ReleaseFolder
from cegm.lab.release.model_card import model_card
from cegm.lab.train import verification

COPIED = ("audit.jsonl", "config.yaml", "metrics.jsonl", "result.json")
"""Of a run, beside what its finish names."""


def release(config: AuditConfig) -> Path:
    """Makes a release; nothing of it is there before all of it is.

    Raises:
        ValueError: A folder is not what it should be, a record or the model is damaged, or `output_dir` is taken.
    """
    place = Path(config.output_dir).expanduser()
    if place.exists():
        raise ValueError(f"output_dir {place} exists, and a release is never changed; give another one")
    signer = keys.private_key(config.key) if config.key else None
    earlier = since.release(Path(config.since)) if config.since else None
    gathered = gather(config.runs)
    written = place.with_name(f"{place.name}.writing")
    shutil.rmtree(written, ignore_errors=True)
    try:
        folder = ReleaseFolder(written)
        _copy(gathered, folder)
        for finding in records(folder):
            if finding.state != "whole":
                raise ValueError(
                    f"{_source(gathered, folder, finding.part)} {finding.detail}; cegm verify tells what is whole"
                )
        evidence = read(folder)
        changes = since.changes(earlier, evidence) if earlier is not None else []
        facts = provided(evidence, signer is not None, bool(changes))
        folder.bill.write_text(bill(evidence), encoding="utf-8")
        folder.coverage.write_text(table(facts), encoding="utf-8")
        card = model_card(evidence, facts, changes, gathered.unfinished)
        folder.card.write_text(card, encoding="utf-8")
        manifest = folder.manifest_text().encode("utf-8")
        folder.manifest.write_bytes(manifest)
        if signer is not None:
            folder.trainer_signature.write_bytes(keys.sign(signer, manifest))
        move_whole(written, place)
    finally:
        shutil.rmtree(written, ignore_errors=True)
    return place


def _copy(gathered: Gathered, folder: ReleaseFolder) -> None:
    shipped = gathered.runs[0]
    for name in verification.finished_files(shipped):
        if name.startswith("model/"):
            _put(shipped / name, folder.root / name)
    for number, run in enumerate(gathered.runs, start=1):
        for name in (*COPIED, *(n for n in verification.finished_files(run) if "/" not in n)):
            if (run / name).is_file():
                _put(run / name, folder.chains / str(number) / name)
    for number, pilot in enumerate(gathered.pilots, start=len(gathered.runs) + 1):
        for name in ("audit.jsonl", PILOT):
            _put(pilot / name, folder.chains / str(number) / name)
    if gathered.verdict is not None:
        _put(gathered.verdict, folder.verdict)


def _put(source: Path, place: Path) -> None:
    if not source.is_file():
        raise ValueError(f"{source} is missing; cegm verify tells what is whole")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, place)


def _source(gathered: Gathered, folder: ReleaseFolder, part: str) -> Path:
    """Where a part of a release that is being made came from."""
    chain = folder.relative(folder.chains) + "/"
    if not part.startswith(chain):
        return gathered.runs[0] / part
    number, _, name = part.removeprefix(chain).partition("/")
    return [*gathered.runs, *gathered.pilots][int(number) - 1] / name
