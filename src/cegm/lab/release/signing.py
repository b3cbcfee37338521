"""The signature of who approves a release: by another key than the trainer's, over what that one signed and the ends of all chains."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import msgspec

from cegm.durable import sha256, write_whole
from cegm.lab.release import keys
from cegm.lab.release.approval import Approval, chain_ends
from cegm.lab.release.examination import examine
from cegm.lab.release.layout import ReleaseFolder


def approve(root: Path, key: str, trainer_key: str, approver: str) -> Approval:
    """Signs a release that is whole and signed by its trainer.

    Args:
        root: The release.
        key: File of the approver's private key.
        trainer_key: File of the trainer's public key.
        approver: Name of who approves.

    Raises:
        ValueError: It is not whole, it is approved already, or the key is the trainer's.
    """
    folder = ReleaseFolder(root)
    signer, trainer = keys.private_key(key), keys.public_key(trainer_key)
    if keys.pem(signer.public_key()) == keys.pem(trainer):
        raise ValueError(
            f"key {key} is the trainer's, which cannot approve; another person signs with a key of their own"
        )
    for path in (folder.approval, folder.approver_signature):
        if path.exists():
            raise ValueError(f"{path} exists: the release has been approved; delete both files of it to approve anew")
    for finding in examine(root, trainer, None):
        if finding.state != "whole":
            raise ValueError(f"{root / finding.part} {finding.detail}; only a release that is whole can be approved")
    made = Approval(
        approver=approver,
        approver_key=keys.fingerprint(signer.public_key()),
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        manifest=sha256(folder.manifest),
        trainer_signature=sha256(folder.trainer_signature),
        trainer_key=keys.fingerprint(trainer),
        chains=chain_ends(folder),
    )
    content = msgspec.json.format(msgspec.json.encode(made), indent=1)
    write_whole(folder.approval, content)
    write_whole(folder.approver_signature, keys.sign(signer, content))
    return made
