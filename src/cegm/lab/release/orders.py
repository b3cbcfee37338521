"""What `cegm audit` and `cegm keys` do and print."""

from __future__ import annotations

from pathlib import Path

from cegm.lab.release import keys
from cegm.lab.release.audit_config import AuditConfig
from cegm.lab.release.examination import examine
from cegm.lab.release.signing import approve
from cegm.lab.train import verification

AGAINST_IT = 1
"""Exit code where something does not hold."""


def audit(config: AuditConfig) -> int:
    """Makes, approves or verifies a release."""
    if config.verify:
        return _verify(config)
    if config.approve:
        approval = approve(Path(config.approve), config.key, config.trainer_key, config.approver)
        key, ends = approval.approver_key[:16], len(approval.chains)
        print(f"{config.approve}: approved by key {key} with the ends of {ends} chains")
        return 0
    from cegm.lab.release.dossier import release  # an auditor needs nothing of what writes bills

    signed = f"signed with {config.key}" if config.key else "not signed, for want of --key"
    print(f"release: {release(config)}, {signed}")
    return 0


def _verify(config: AuditConfig) -> int:
    folder = Path(config.verify)
    approver = keys.public_key(config.approver_key) if config.approver_key else None
    findings = examine(folder, keys.public_key(config.trainer_key), approver)
    wrong = sum(finding.state != "whole" for finding in findings)
    print(verification.table(findings))
    print(f"\n{folder}: {f'{wrong} findings against it' if wrong else 'all of it holds'}")
    if config.since and not wrong:
        from cegm.lab.release import since

        changes = since.changes(since.release(Path(config.since)), since.release(folder))
        print("\n".join(f"since {config.since}: {change}" for change in changes))
    return AGAINST_IT if wrong else 0


def new_keys(name: str) -> int:
    """Makes a pair of keys, and says what to do with each."""
    private, public = keys.new(name)
    print(f"{private}: keep it to yourself. {public}: give it to whoever verifies, by a way of its own")
    print(f"fingerprint: {keys.fingerprint(keys.public_key(str(public)))}")
    return 0
