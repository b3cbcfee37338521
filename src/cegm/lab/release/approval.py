"""`approval.json`: who approved which release and when, and whether that is this release."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from cegm.durable import sha256
from cegm.lab.release import keys
from cegm.lab.release.layout import ReleaseFolder
from cegm.lab.train import audit
from cegm.lab.train.verification import Finding


class Approval(msgspec.Struct, kw_only=True):
    """What was approved, by whom and when.

    Attributes:
        approver: Name, as the approver gave it.
        approver_key: Fingerprint of the approver's public key.
        time: By the approver's clock.
        manifest: sha256 of `manifest.sha256`, hex.
        trainer_signature: sha256 of `trainer.sig`, hex.
        trainer_key: Fingerprint of the trainer's public key.
        chains: Hash of the last line of every audit chain, by its name in the release.
    """

    approver: str
    approver_key: str
    time: str
    manifest: str
    trainer_signature: str
    trainer_key: str
    chains: dict[str, str]


def chain_ends(folder: ReleaseFolder) -> dict[str, str]:
    """Hash of the last line of every audit chain of a release, by its name there; empty for a chain that is broken."""
    ends = {}
    for path in sorted(folder.chains.glob("*/audit.jsonl")):
        try:
            ends[folder.relative(path)] = audit.read(path)[1]
        except ValueError:
            ends[folder.relative(path)] = ""
    return ends


def findings(
    folder: ReleaseFolder, trainer: EllipticCurvePublicKey, approver: EllipticCurvePublicKey | None
) -> Iterator[Finding]:
    """What is found about the approval; nothing where there is none and none was asked for."""
    parts = (folder.approval, folder.approver_signature)
    there = [path for path in parts if folder.has(path)]
    if approver is None:
        for path in there:
            yield Finding(folder.relative(path), "unproven", "needs approver_key, the approver's public key")
        return
    for path in parts:
        if path not in there:
            yield Finding(folder.relative(path), "damaged", "is missing: nobody has approved")
    if len(there) < len(parts):
        return
    content, name = folder.approval.read_bytes(), folder.relative(folder.approver_signature)
    if keys.holds(approver, folder.approver_signature.read_bytes(), content):
        yield Finding(name, "whole", f"signs approval.json by key {keys.fingerprint(approver)[:16]}")
        yield _same(folder, trainer, content)
    else:
        yield Finding(name, "damaged", "is no signature of approval.json by this approver_key")


def _same(folder: ReleaseFolder, trainer: EllipticCurvePublicKey, content: bytes) -> Finding:
    """Whether what was approved is what lies here."""
    name = folder.relative(folder.approval)
    try:
        approval = msgspec.json.decode(content, type=Approval)
    except msgspec.DecodeError:
        return Finding(name, "damaged", "is signed, but is no approval")
    ends = chain_ends(folder)
    same = {
        folder.relative(folder.manifest): folder.has(folder.manifest) and sha256(folder.manifest) == approval.manifest,
        folder.relative(folder.trainer_signature): folder.has(folder.trainer_signature)
        and sha256(folder.trainer_signature) == approval.trainer_signature,
        "the trainer's key": keys.fingerprint(trainer) == approval.trainer_key,
        **{
            chain: ends.get(chain) == approval.chains.get(chain)
            for chain in sorted(ends.keys() | approval.chains.keys())
        },
    }
    others = [part for part, is_same in same.items() if not is_same]
    if others:
        return Finding(name, "damaged", f"approves something else than {', '.join(others)} here")
    return Finding(name, "whole", f"approved at {approval.time}, with the ends of {len(ends)} chains")
