"""`AuditConfig`: what `cegm audit` is asked to do. No heavy import here: the command line reads this file to print its help."""

from __future__ import annotations

from dataclasses import dataclass, field

from cegm.lab.declarations import Declared, option


@dataclass
class AuditConfig(Declared):
    """Makes a release of `runs`, or verifies or approves one that is there.

    Raises:
        ValueError: Two of these at once or none, or something that is needed for it is missing.
    """

    output_dir: str = option("", "release folder to make; must not exist")
    key: str = option(
        "", "private key to sign with, NAME.key of cegm keys new: the trainer's, or to approve the approver's"
    )
    since: str = option("", "earlier release: says in words what changed since")
    verify: str = option("", "release folder to verify: a line per finding, exit code 0 only when all of it holds")
    approve: str = option("", "release folder to approve, by another key than the trainer's")
    trainer_key: str = option("", "public key of the trainer, NAME.pub")
    approver_key: str = option("", "public key of the approver, NAME.pub")
    approver: str = option("not provided", "name of who approves")
    runs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        asked = [name for name in ("runs", "verify", "approve") if getattr(self, name)]
        if len(asked) != 1:
            raise ValueError(
                "cegm audit wants runs to release, or --verify RELEASE, or --approve RELEASE, and one of them"
            )
        needed = {"runs": ("output_dir",), "verify": ("trainer_key",), "approve": ("key", "trainer_key")}[asked[0]]
        for name in needed:
            if not getattr(self, name):
                raise ValueError(f"{name} is missing; give --{name}")
