"""Where things lie in a release, and its manifest, as `sha256sum -c` reads it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cegm.durable import sha256

PILOT = "pilot.yaml"
"""Tells the records of a pilot from those of a run."""

ENTRY = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True)
class ReleaseFolder:
    """Places in the folder of one release.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def model(self) -> Path:
        """The model that is released."""
        return self.root / "model"

    @property
    def evidence(self) -> Path:
        """All that is said of the model."""
        return self.root / "evidence"

    @property
    def card(self) -> Path:
        """The model card, in words."""
        return self.evidence / "card.md"

    @property
    def bill(self) -> Path:
        """The bill of materials, CycloneDX 1.6."""
        return self.evidence / "bom.cdx.json"

    @property
    def coverage(self) -> Path:
        """Which evidence answers which question of which framework."""
        return self.evidence / "coverage.csv"

    @property
    def verdict(self) -> Path:
        """What a comparison or a pilot decided, as it wrote it."""
        return self.evidence / "verdict.json"

    @property
    def chains(self) -> Path:
        """Records of runs, one folder each."""
        return self.evidence / "chains"

    @property
    def shipped(self) -> Path:
        """Records of the run whose model this is."""
        return self.chains / "1"

    @property
    def manifest(self) -> Path:
        """Hash and path of every file but those that are named below."""
        return self.root / "manifest.sha256"

    @property
    def trainer_signature(self) -> Path:
        """The trainer's, over the manifest."""
        return self.root / "trainer.sig"

    @property
    def approval(self) -> Path:
        """Who approved what and when."""
        return self.root / "approval.json"

    @property
    def approver_signature(self) -> Path:
        """The approver's, over the approval."""
        return self.root / "approver.sig"

    @property
    def signed_otherwise(self) -> tuple[str, ...]:
        """Files that the manifest cannot hold: itself, and what came after it."""
        after = (self.manifest, self.trainer_signature, self.approval, self.approver_signature)
        return tuple(path.name for path in after)

    def has(self, path: Path) -> bool:
        """Whether a part is there as a file of its own."""
        return path.is_file() and not path.is_symlink()

    def relative(self, path: Path) -> str:
        """The name of a part as findings and the manifest have it."""
        return path.relative_to(self.root).as_posix()

    def hold(self) -> tuple[dict[str, Path], list[str]]:
        """The files of the manifest by name, and names of what a release has none of: links, pipes, empty folders."""
        files: dict[str, Path] = {}
        others = []
        for place, folders, names in os.walk(self.root):
            here = Path(place)
            if not folders and not names and here != self.root:
                others.append(self.relative(here))
            for path in (here / name for name in sorted((*folders, *names))):
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    others.append(self.relative(path))
                elif path.is_file() and self.relative(path) not in self.signed_otherwise:
                    files[self.relative(path)] = path
        return files, others

    def manifest_text(self) -> str:
        """The manifest of what lies here; ValueError where a name cannot stand in a line of it."""
        files, others = self.hold()
        for name in (*files, *others):
            if name in others or not name.isprintable() or "\\" in name:
                raise ValueError(f"{name!r} can be no file of a release; rename or remove it")
        return "".join(f"{sha256(path)}  {name}\n" for name, path in sorted(files.items()))


def entries(manifest: bytes) -> tuple[dict[str, str], int]:
    """Hashes by name of a manifest, and how many of its lines are none."""
    lines = manifest.decode("utf-8", "replace").removesuffix("\n").split("\n")
    found = [match.groups() for match in map(ENTRY.fullmatch, lines) if match]
    return {name: digest for digest, name in found}, len(lines) - len(found)
