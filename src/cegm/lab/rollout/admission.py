"""Who may serve: a release that is whole, signed by its trainer and approved by another key, and decisions that the approver signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from cegm.durable import sha256
from cegm.lab.release import keys, signing
from cegm.lab.release.examination import examine
from cegm.lab.release.layout import ReleaseFolder
from cegm.lab.rollout import far_domain, rollout_state
from cegm.lab.rollout.rollout_config import NOT_PROVIDED, RolloutConfig
from cegm.lab.rollout.rollout_state import ALL, RolloutFolder, RolloutState


def require_given(config: RolloutConfig, *names: str) -> None:
    """Raises ValueError for the first option that is missing."""
    for name in names:
        if not getattr(config, name):
            raise ValueError(f"{name} is missing; give " + ("RELEASE" if name == "release" else f"--{name}"))


def approve(config: RolloutConfig) -> RolloutState:
    """Approves a release for its roll-out, or lets one that waits go on; signs both the release and the end of the chain.

    Raises:
        ValueError: The release is not whole or unsigned, the key is the trainer's, local texts are too far, or nothing waits.
    """
    require_given(config, "release", "key", "trainer_key")
    root, folder = Path(config.release).expanduser().resolve(), RolloutFolder(Path(config.output_dir).expanduser())
    signer, trainer = keys.private_key(config.key), keys.public_key(config.trainer_key)
    state = rollout_state.read(folder)[0] if folder.audit.exists() else RolloutState()
    if state.stage in rollout_state.STAGES and not state.waiting:
        raise ValueError(f"{folder.root} is in stage {state.stage!r} and waits for nobody; see cegm rollout status")
    if state.approver_key not in ("", keys.fingerprint(signer.public_key())):
        raise ValueError(
            f"{folder.root} is decided by key {state.approver_key[:16]}, not by {config.key}; use that one"
        )
    release, is_approved = ReleaseFolder(root), (root / "approver.sig").exists()
    _require_whole(root, trainer, signer.public_key() if is_approved else None)
    domain = far_domain.require_near(config, state.most_bits_per_byte, release.model)
    if not is_approved:
        signing.approve(root, config.key, config.trainer_key, config.approver)
    manifest = sha256(release.manifest)
    if state.waiting and manifest != state.manifest:
        raise ValueError(f"{root} is not the release that waits in {folder.root}; give another output_dir")
    stage = state.next_stage
    after = rollout_state.record(
        folder,
        "approve",
        after=state.end,
        stage=stage,
        release=str(root),
        manifest=manifest,
        approver=state.approver if config.approver == NOT_PROVIDED and state.approver else config.approver,
        approver_key=keys.fingerprint(signer.public_key()),
        trainer_key=keys.fingerprint(trainer),
        **domain,
        signature=keys.sign(signer, _statement(state.end, stage, manifest)).hex(),
    )
    if after.stage != stage or after.events != state.events + 1:
        raise ValueError(f"somebody decided in {folder.root} meanwhile; see cegm rollout status, and approve again")
    return after


def require_admitted(
    state: RolloutState,
    events: Sequence[Mapping[str, Any]],
    root: Path,
    trainer: EllipticCurvePublicKey,
    approver: EllipticCurvePublicKey,
) -> None:
    """Raises ValueError, which names the first fault, unless a release is whole and approved, and the chain's approvals too."""
    approvals = [event for event in events if event["event"] == "approve"]
    if not approvals:
        raise ValueError(f"{root} was not approved for this roll-out: cegm rollout approve {root}")
    for event in approvals:
        content = _statement(str(event["previous"]), str(event["stage"]), str(event["manifest"]))
        try:
            signature = bytes.fromhex(str(event.get("signature")))
        except ValueError:
            signature = b""
        if not keys.holds(approver, signature, content):
            raise ValueError(f"the approval of {event['time']} in the chain is not by this approver_key")
    _require_whole(root, trainer, approver)
    if sha256(ReleaseFolder(root).manifest) != state.manifest:
        raise ValueError(f"{root} is another release than the one that was approved for this roll-out; approve it")


def _require_whole(root: Path, trainer: EllipticCurvePublicKey, approver: EllipticCurvePublicKey | None) -> None:
    for finding in examine(root, trainer, approver):
        if finding.state != "whole":
            raise ValueError(f"{root / finding.part} {finding.detail}; such a release does not serve")


def _statement(end: str, stage: str, manifest: str) -> bytes:
    """What an approver signs: which release goes to which stage, behind which line of the chain."""
    return f"cegm rollout approve\n{manifest}\n{stage}\n{end}\n".encode()


def told(state: RolloutState) -> str:
    """An approval in one line."""
    goes_on = f"goes on to {state.stage!r}" if state.stage in rollout_state.STAGES else "may serve"
    last = ", the last stage" if state.stage == ALL else ""
    return f"{state.release}: approved by key {state.approver_key[:16]}, {goes_on}{last}"
