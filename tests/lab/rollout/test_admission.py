"""Unapproved, unsigned or altered releases do not serve; the trainer's key cannot approve; each in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytest.importorskip("cryptography")
pytest.importorskip("cyclonedx")
pytest.importorskip("uvicorn")

from cegm.lab.cli import main
from cegm.lab.release import keys
from cegm.lab.rollout import admission, rollout_state
from cegm.lab.rollout.rollout_state import RolloutFolder
from releases import written_run


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys, a release `signed` by its trainer and one that is `unsigned`; not to be changed."""
    root = tmp_path_factory.mktemp("signed")
    for name in ("trainer", "approver", "stranger"):
        keys.new(str(root / name))
    run = written_run(root / "run")
    assert main(["audit", str(run), "--output_dir", str(root / "signed"), "--key", str(root / "trainer.key")]) == 0
    assert main(["audit", str(run), "--output_dir", str(root / "unsigned")]) == 0
    return root


@pytest.fixture
def place(signed: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(signed, tmp_path / "place"))


def approve(place: Path, release: str = "signed", key: str = "approver", *more: str) -> list[str]:
    return ["rollout", "approve", str(place / release), "--key", str(place / f"{key}.key"), "--trainer_key",
            str(place / "trainer.pub"), "--output_dir", str(place / "rollout"), *more]  # fmt: skip


def serve(place: Path, release: str = "signed", approver: str = "approver") -> list[str]:
    return ["rollout", "serve", str(place / release), "--trainer_key", str(place / "trainer.pub"), "--approver_key",
            str(place / f"{approver}.pub"), "--output_dir", str(place / "rollout"), "--champion", "http://127.0.0.1:9",
            "--challenger", "http://127.0.0.1:9"]  # fmt: skip


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    return said.err


def listened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Apps that would have been served."""
    apps: list[object] = []
    monkeypatch.setattr("cegm.lab.rollout.serving._listen", lambda app, listener: apps.append(app))
    return apps


def stage(place: Path) -> str:
    return rollout_state.read(RolloutFolder(place / "rollout"))[0].stage


def test_a_signed_release_that_is_approved_serves(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apps = listened(monkeypatch)
    assert main(approve(place, "signed", "approver", "--approver", "B. Second")) == 0
    assert "approved by key" in capsys.readouterr().out
    assert (place / "signed" / "approver.sig").exists()
    assert main(serve(place)) == 0
    assert len(apps) == 1
    verify = ["audit", "--verify", str(place / "signed"), "--trainer_key", str(place / "trainer.pub")]
    assert main([*verify, "--approver_key", str(place / "approver.pub")]) == 0


def test_a_release_that_was_approved_before_serves_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, trainer = ["--key", str(place / "approver.key")], ["--trainer_key", str(place / "trainer.pub")]
    assert main(["audit", "--approve", str(place / "signed"), *key, *trainer]) == 0
    apps = listened(monkeypatch)
    assert main(approve(place)) == 0
    assert main(serve(place)) == 0
    assert len(apps) == 1


def test_nobody_serves_what_nobody_approved(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apps = listened(monkeypatch)
    assert "holds no roll-out; approve a release first" in refused(serve(place), capsys)
    assert main(approve(place)) == 0
    _another(place)
    assert "is another release" in refused(serve(place, "other"), capsys)
    assert "is missing" in refused(serve(place, "unsigned"), capsys)
    assert apps == []


def _another(place: Path) -> None:
    """Another release that the same people signed and approved, but not for this roll-out."""
    run = written_run(place / "run2", weights=b"others")
    key, trainer = ["--key", str(place / "approver.key")], ["--trainer_key", str(place / "trainer.pub")]
    assert main(["audit", str(run), "--output_dir", str(place / "other"), "--key", str(place / "trainer.key")]) == 0
    assert main(["audit", "--approve", str(place / "other"), *key, *trainer]) == 0


@pytest.mark.parametrize(
    ("release", "key", "said"),
    [
        ("unsigned", "approver", "trainer.sig is missing"),
        ("signed", "trainer", "the trainer's cannot approve"),
        ("nowhere", "approver", "is no folder"),
        ("signed", "nobody", "does not exist"),
        ("../../etc", "approver", "is no folder"),
    ],
)
def test_what_cannot_be_approved_is_refused_and_leaves_no_chain(
    place: Path, capsys: pytest.CaptureFixture[str], release: str, key: str, said: str
) -> None:
    assert said in refused(approve(place, release, key), capsys).replace(
        "which cannot approve", "the trainer's cannot approve"
    )
    assert not (place / "rollout" / "audit.jsonl").exists()
    assert not (place / "signed" / "approver.sig").exists()


@pytest.mark.parametrize(
    "name", ["model/model.safetensors", "evidence/card.md", "evidence/bom.cdx.json", "trainer.sig"]
)
def test_an_altered_release_is_neither_approved_nor_served(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    apps = listened(monkeypatch)
    approved = Path(shutil.copytree(place, place.parent / "approved"))
    assert main(approve(approved)) == 0
    for each in (place, approved):
        path = each / "signed" / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert Path(name).name in refused(approve(place), capsys) or name == "trainer.sig"
    assert "does not serve" in refused(serve(approved), capsys)
    assert apps == []


def test_in_traffic_an_altered_release_gives_way_to_the_champion(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apps = listened(monkeypatch)
    assert main(approve(place)) == 0
    rollout_state.record(RolloutFolder(place / "rollout"), "stage", stage="canary 25")
    (place / "signed" / "model" / "more.bin").write_bytes(b"x")
    assert main(serve(place)) == 0
    assert "the champion alone serves" in capsys.readouterr().out
    assert stage(place) == "back"
    assert len(apps) == 1


def test_an_approval_that_somebody_else_wrote_into_the_chain_does_not_serve(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may write into the folder can make a chain that holds, but not sign as the approver."""
    assert main(approve(place)) == 0
    folder = RolloutFolder(place / "rollout")
    event = rollout_state.read(folder)[1][0]
    folder.audit.unlink()
    facts = {name: event[name] for name in event.keys() - {"time", "event", "previous", "sha256"}}
    rollout_state.record(folder, "note")
    rollout_state.record(folder, "approve", **facts)
    apps = listened(monkeypatch)
    assert "is not by this approver_key" in refused(serve(place), capsys)
    assert apps == []


def test_serving_needs_the_approvers_key(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apps = listened(monkeypatch)
    assert main(approve(place)) == 0
    assert "is not by this approver_key" in refused(serve(place, approver="stranger"), capsys)
    assert "not by this approver_key" in refused(serve(place, approver="trainer"), capsys)
    assert apps == []


def test_a_stage_that_waits_goes_on_by_the_same_key_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(approve(place, "signed", "approver", "--approver", "B. Second")) == 0
    folder = RolloutFolder(place / "rollout")
    rollout_state.record(folder, "stage", stage="canary 5")
    assert "waits for nobody" in refused(approve(place), capsys)
    rollout_state.record(folder, "wait", reason="inconclusive")
    assert "is decided by key" in refused(approve(place, "signed", "stranger"), capsys)
    assert main(approve(place)) == 0
    assert "goes on to 'canary 25'" in capsys.readouterr().out
    state, events = rollout_state.read(folder)
    assert (state.stage, state.waiting, state.approver) == ("canary 25", False, "B. Second")
    public = keys.public_key(str(place / "trainer.pub")), keys.public_key(str(place / "approver.pub"))
    admission.require_admitted(state, events, place / "signed", *public)


def test_a_person_takes_it_back_with_a_reason(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(approve(place)) == 0
    here = ["--output_dir", str(place / "rollout")]
    assert "reason is missing" in refused(["rollout", "back", *here], capsys)
    assert main(["rollout", "back", str(place / "signed"), *here, "--reason", "complaints", "--who", "C. Third"]) == 0
    assert "approved -> back" in capsys.readouterr().out
    event = rollout_state.read(RolloutFolder(place / "rollout"))[1][-1]
    assert (event["reason"], event["who"]) == ("complaints", "C. Third")
    assert "is back already: complaints" in refused(["rollout", "back", *here, "--reason", "x"], capsys)
    assert "is the roll-out of" in refused(["rollout", "status", str(place / "unsigned"), *here], capsys)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--host", "0.0.0.0", "lets others in; give --api_key FILE"),
        ("--host", "not an address", "cannot listen on"),
        ("--champion", "ftp://127.0.0.1/", "is no URL of a server"),
        ("--champion", "http://user:secret@127.0.0.1/", "is no URL of a server"),
        ("--champion", "nowhere", "is neither a URL (http://...) nor a model folder"),
        ("--api_key", "nowhere", "api_key=nowhere is no file"),
        ("--port", "99999", "port=99999"),
        ("--most_errors", "2", "most_errors=2"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anybody_is_served(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    apps = listened(monkeypatch)
    assert main(approve(place)) == 0
    assert said in refused([*serve(place), option, value], capsys) or option == "--host"
    assert apps == []


def test_a_key_file_without_a_key_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(approve(place)) == 0
    for content in ("", "\nkey", "two words", "ключ"):
        (place / "key").write_text(content)
        assert "has no key of ASCII letters" in refused([*serve(place), "--api_key", str(place / "key")], capsys)


def test_two_routers_do_not_share_a_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cegm.durable import sole_writer

    listened(monkeypatch)
    assert main(approve(place)) == 0
    with sole_writer(place / "rollout"):
        assert "another process is writing" in refused(serve(place), capsys)


def test_a_state_that_disagrees_is_rebuilt_and_said_by_every_command(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listened(monkeypatch)
    assert main(approve(place)) == 0
    state = RolloutFolder(place / "rollout").state
    for words in (serve(place), ["rollout", "status", "--output_dir", str(place / "rollout")]):
        state.write_text('{"stage": "all"}')
        capsys.readouterr()
        assert main(words) == 0
        assert "says 'all', the chain 'approved'; it was rebuilt from the chain" in capsys.readouterr().out
    assert '"stage": "approved"' in state.read_text()
