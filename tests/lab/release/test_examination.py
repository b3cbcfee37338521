"""A release that was moved holds; one of which anything was changed is refused, and what was changed is named."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cegm.durable import sha256
from cegm.lab.cli import main
from cegm.lab.release import keys
from cegm.lab.release.examination import examine
from cegm.lab.release.layout import ReleaseFolder
from cegm.lab.release.signing import approve as approved
from cegm.lab.train.audit import AuditLog, read
from cegm.lab.train.verification import Finding
from mutations import counts, mutated
from releases import approve, verify

Mutation = Callable[[Path, random.Random, Path], set[str]]


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def change_bytes(root: Path, draw: random.Random, people: Path) -> set[str]:
    path = draw.choice(files(root))
    before = path.read_bytes()
    while (after := mutated(before, draw)) == before:
        pass
    path.write_bytes(after)
    return {name(root, path)}


def flip_a_bit(root: Path, draw: random.Random, people: Path) -> set[str]:
    path = draw.choice(files(root))
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return {name(root, path)}


def add(root: Path, draw: random.Random, people: Path) -> set[str]:
    place = draw.choice([root, *(path for path in root.rglob("*") if path.is_dir())])
    path = place / draw.choice(["new", ".hidden", "model.bin", "trainer.sig.old", "a b\n", "ü"])
    kind = draw.randrange(3)
    if kind == 0:
        path.write_bytes(draw.randbytes(draw.randrange(20)))
    elif kind == 1:
        path.mkdir()
    else:
        path.symlink_to(draw.choice(files(root)))
    return {name(root, path)}


def remove(root: Path, draw: random.Random, people: Path) -> set[str]:
    path = draw.choice(files(root))
    path.unlink()
    return {name(root, path)}


def rename(root: Path, draw: random.Random, people: Path) -> set[str]:
    path = draw.choice(files(root))
    target = draw.choice([path.with_name(f"{path.name}x"), root / "model" / "moved", root / path.name.upper()])
    path.rename(target)
    return {name(root, path)}


def exchange_files(root: Path, draw: random.Random, people: Path) -> set[str]:
    paths = {sha256(path): path for path in files(root)}  # of equal ones nothing would change
    one, other = draw.sample(sorted(paths.values()), 2)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return {name(root, one), name(root, other)}


def exchange_signatures(root: Path, draw: random.Random, people: Path) -> set[str]:
    folder = ReleaseFolder(root)
    stranger = keys.private_key(str(people / "stranger.key"))
    kind = draw.randrange(4)
    if kind == 0:
        return exchange(folder.trainer_signature, folder.approver_signature)
    if kind == 1:  # signed anew by somebody else
        folder.trainer_signature.write_bytes(keys.sign(stranger, folder.manifest.read_bytes()))
        return {"trainer.sig"}
    if kind == 2:  # the trainer approves
        trainer = keys.private_key(str(people / "trainer.key"))
        folder.approver_signature.write_bytes(keys.sign(trainer, folder.approval.read_bytes()))
        return {"approver.sig"}
    folder.approver_signature.write_bytes(keys.sign(stranger, draw.randbytes(8)))
    return {"approver.sig"}


def exchange(one: Path, other: Path) -> set[str]:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return {one.name, other.name}


def cut_the_chain(root: Path, draw: random.Random, people: Path) -> set[str]:
    path = draw.choice(sorted(root.rglob("audit.jsonl")))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: draw.randrange(len(lines))]))
    return {name(root, path)}


def rechain(root: Path, draw: random.Random, people: Path) -> set[str]:
    """Writes a chain anew with another fact in it, so that it holds by itself, and with luck the manifest, too."""
    path = draw.choice(sorted(root.rglob("audit.jsonl")))
    events, _ = read(path)
    chosen = draw.choice(events)
    chosen[draw.choice(["operator", "seed", "step", "note"])] = draw.randrange(10**9)
    path.unlink()
    log = AuditLog(path)
    for event in events:
        kept = {key: value for key, value in event.items() if key not in ("time", "event", "previous", "sha256")}
        log.record(event["event"], **kept)
    if draw.randrange(2):
        return {name(root, path)}
    folder = ReleaseFolder(root)
    folder.manifest.write_text(folder.manifest_text())
    return {"manifest.sha256"}


MUTATIONS: tuple[Mutation, ...] = (
    change_bytes, flip_a_bit, add, remove, rename, exchange_files, exchange_signatures, cut_the_chain, rechain,
)  # fmt: skip


def outcome(root: Path, people: Path) -> list[Finding]:
    trainer, approver = (keys.public_key(str(people / f"{who}.pub")) for who in ("trainer", "approver"))
    return [finding for finding in examine(root, trainer, approver) if finding.state != "whole"]


def test_a_release_holds_wherever_it_lies(release: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(verify(release, people)) == 0
    printed = capsys.readouterr().out
    assert "damaged" not in printed
    assert printed.endswith("all of it holds\n")
    for part in (
        "trainer.sig",
        "manifest.sha256",
        "model",
        "evidence/chains/1/audit.jsonl",
        "approver.sig",
        "approval.json",
    ):
        assert any(line.startswith(part) and " whole " in line for line in printed.splitlines()), part


@counts(90, 2000)
def test_every_mutated_release_is_refused_and_what_was_changed_is_named(
    template: Path, people: Path, tmp_path: Path, count: int
) -> None:
    """CEGM_AUDIT_LOG names the file that shall have the count, as benchmarks/results/audit/mutations.json has it."""
    tally: dict[str, int] = {}
    for number in range(count):
        draw = random.Random(number)
        mutation = MUTATIONS[number % len(MUTATIONS)]
        root = Path(shutil.copytree(template, tmp_path / f"{number}"))
        changed = mutation(root, draw, people)
        wrong = outcome(root, people)
        assert wrong, (number, mutation.__name__, changed)
        told = " ".join(f"{finding.part} {finding.detail}" for finding in wrong)
        assert all(part in told for part in changed), (number, mutation.__name__, changed, told)
        tally[mutation.__name__] = tally.get(mutation.__name__, 0) + 1
        shutil.rmtree(root)
    assert outcome(template, people) == []
    if log := os.environ.get("CEGM_AUDIT_LOG"):
        content = {"releases": count, "refused and named": tally, "unmutated one accepted": True}
        Path(log).write_text(json.dumps(content, indent=1) + "\n")


def test_a_pipe_is_named_and_not_waited_for(release: Path, people: Path) -> None:
    path = release / "evidence" / "chains" / "1" / "audit.jsonl"
    path.unlink()
    os.mkfifo(path)
    assert "evidence/chains/1/audit.jsonl" in {finding.part for finding in outcome(release, people)}


def test_the_trainer_s_key_cannot_approve(release: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("approval.json", "approver.sig"):
        (release / part).unlink()
    trainer = ["--key", str(people / "trainer.key"), "--trainer_key", str(people / "trainer.pub")]
    assert main(["audit", "--approve", str(release), *trainer]) == 2
    assert "which cannot approve" in capsys.readouterr().err
    one_key = ["--trainer_key", str(people / "trainer.pub"), "--approver_key", str(people / "trainer.pub")]
    assert main(["audit", "--verify", str(release), *one_key]) == 2
    assert "cannot approve" in capsys.readouterr().err


def test_an_unapproved_release_holds_by_its_trainer_alone_and_not_where_an_approver_is_asked_for(
    release: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = ["audit", "--verify", str(release), "--trainer_key", str(people / "trainer.pub")]
    assert main(alone) == 1  # what nobody gave a key for does not hold
    assert "needs approver_key" in capsys.readouterr().out
    for part in ("approval.json", "approver.sig"):
        (release / part).unlink()
    assert main(alone) == 0
    assert main(verify(release, people)) == 1
    assert "nobody has approved" in capsys.readouterr().out


def test_only_a_whole_release_is_approved_and_only_once(
    release: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(approve(release, people)) == 2
    assert "has been approved" in capsys.readouterr().err
    for part in ("approval.json", "approver.sig"):
        (release / part).unlink()
    (release / "evidence" / "card.md").write_text("nicer words")
    assert main(approve(release, people)) == 2
    assert "evidence/card.md differs" in capsys.readouterr().err
    assert not (release / "approver.sig").exists()


def test_the_approval_of_one_release_is_none_of_another(
    release: Path, template: Path, people: Path, tmp_path: Path
) -> None:
    """Its trainer signs a chain anew; the ends that the approver signed tell."""
    rechain(release, random.Random(1), people)
    folder = ReleaseFolder(release)
    folder.manifest.write_text(folder.manifest_text())
    trainer = keys.private_key(str(people / "trainer.key"))
    folder.trainer_signature.write_bytes(keys.sign(trainer, folder.manifest.read_bytes()))
    wrong = outcome(release, people)
    assert [finding.part for finding in wrong] == ["approval.json"]
    assert "audit.jsonl" in wrong[0].detail
    assert "manifest.sha256" in wrong[0].detail


def test_who_approved_and_when_is_signed(release: Path, people: Path) -> None:
    content = json.loads((release / "approval.json").read_text())
    assert content["approver"] == "B. Second"
    assert len(content["chains"]) == 3
    for part in ("approval.json", "approver.sig"):
        (release / part).unlink()
    made = approved(release, str(people / "approver.key"), str(people / "trainer.pub"), "C")
    assert made.manifest == content["manifest"]


def test_what_is_no_release_is_told_in_one_line(
    tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(verify(tmp_path / "nothing", people)) == 2
    assert "is no folder" in capsys.readouterr().err
    assert main(verify(tmp_path, people)) == 1
    assert "trainer.sig" in capsys.readouterr().out
    assert main(["audit"]) == 2
    assert "one of them" in capsys.readouterr().err
    assert main(["audit", "--verify", str(tmp_path)]) == 2
    assert "trainer_key is missing" in capsys.readouterr().err
