"""Whether a release is what its trainer signed and its approver approved: offline, file by file, from the release and public keys alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from cegm.durable import sha256
from cegm.lab.release import approval, keys
from cegm.lab.release.layout import PILOT, ReleaseFolder, entries
from cegm.lab.train import audit, verification
from cegm.lab.train.verification import Finding


def examine(root: Path, trainer: EllipticCurvePublicKey, approver: EllipticCurvePublicKey | None) -> list[Finding]:
    """What is found about every part of a release; it holds only where all of them are `whole`.

    Raises:
        ValueError: It is no folder, or both keys are one.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; give the output_dir of cegm audit")
    if approver is not None and keys.pem(approver) == keys.pem(trainer):
        raise ValueError(
            "trainer_key and approver_key are one key, and the trainer's cannot approve; give the approver's"
        )
    folder = ReleaseFolder(root)
    findings = [*_signature(folder, trainer), *_files(folder)]
    if not folder.hold()[1]:  # reading a link leads elsewhere, and reading a pipe never ends
        findings += [*records(folder), *approval.findings(folder, trainer, approver)]
    return findings


def records(folder: ReleaseFolder) -> Iterator[Finding]:
    """What is found about every chain by itself, and about the model by the chain of its run."""
    if not folder.has(folder.shipped / "audit.jsonl"):
        yield Finding(folder.relative(folder.shipped / "audit.jsonl"), "damaged", "is missing")
    for place in sorted(path for path in folder.chains.glob("*") if path.is_dir()):
        found = [_pilot(place, folder.verdict)] if (place / PILOT).is_file() else verification.records(place)
        for each in found:
            yield Finding(f"{folder.relative(place)}/{each.part}", each.state, each.detail)
    yield from _model(folder)


def _signature(folder: ReleaseFolder, trainer: EllipticCurvePublicKey) -> Iterator[Finding]:
    parts = (folder.manifest, folder.trainer_signature)
    missing = [path for path in parts if not folder.has(path)]
    for path in missing:
        yield Finding(folder.relative(path), "damaged", "is missing")
    if missing:
        return
    manifest, signature = (path.read_bytes() for path in parts)
    name = folder.relative(folder.trainer_signature)
    if keys.holds(trainer, signature, manifest):
        yield Finding(name, "whole", f"signs manifest.sha256 by key {keys.fingerprint(trainer)[:16]}")
    else:
        yield Finding(name, "damaged", "is no signature of manifest.sha256 by this trainer_key")


def _files(folder: ReleaseFolder) -> Iterator[Finding]:
    """Every file against the manifest."""
    listed, strange = entries(folder.manifest.read_bytes() if folder.has(folder.manifest) else b"")
    files, others = folder.hold()
    damaged = [Finding(name, "damaged", "is neither a file nor a folder with files") for name in others]
    if strange:
        damaged.append(
            Finding(folder.relative(folder.manifest), "damaged", f"has {strange} lines without hash and name")
        )
    for name in sorted(files.keys() | listed.keys()):
        if name not in listed:
            damaged.append(Finding(name, "damaged", "is not in manifest.sha256"))
        elif name not in files:
            damaged.append(Finding(name, "damaged", "is missing"))
        elif sha256(files[name]) != listed[name]:
            damaged.append(Finding(name, "damaged", "differs from manifest.sha256"))
    yield from damaged or [
        Finding(folder.relative(folder.manifest), "whole", f"{len(files)} files fit it, and none is more")
    ]


def _pilot(place: Path, verdict: Path) -> Finding:
    """The chain of a pilot, whose events are its own; the last verdict that it knows is the one of the release."""
    try:
        events, end = audit.read(place / "audit.jsonl")
    except (ValueError, OSError) as error:
        return Finding("audit.jsonl", "damaged", str(error).removeprefix(f"{place / 'audit.jsonl'} "))
    known = [event["verdict_sha256"] for event in events if event["event"] == "verdict"]
    if known and (not verdict.is_file() or sha256(verdict) != known[-1]):
        return Finding("audit.jsonl", "damaged", f"knows another verdict of the pilot than {verdict.name}")
    return Finding("audit.jsonl", "whole", f"{len(events)} events of a pilot, chain ends in {end[:16]}")


def _model(folder: ReleaseFolder) -> Iterator[Finding]:
    wanted = {n: d for n, d in verification.finished_files(folder.shipped).items() if n.startswith("model/")}
    files = {name: path for name, path in folder.hold()[0].items() if name.startswith("model/")}
    run = folder.relative(folder.shipped)
    damaged = []
    for name in sorted(files.keys() | wanted.keys()):
        if name not in wanted:
            damaged.append(Finding(name, "damaged", f"is not of the run in {run}"))
        elif name not in files or sha256(files[name]) != wanted[name]:
            damaged.append(Finding(name, "damaged", f"is not as the run in {run} left it"))
    yield from damaged or [Finding("model", "whole", f"{len(wanted)} files are as the run in {run} left them")]
