"""Sealed checkpoints: complete or not there, every damage is seen and named, and nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cegm.lab.train import checkpoints
from cegm.lab.train.checkpoints import MANIFEST, WRITING, DamagedError, newest, numbered, remove, seal, verify

NAMES = ["model.safetensors", "sub/state.json", "empty.txt"]

DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "first byte flipped": lambda good: bytes([good[0] ^ 1]) + good[1:],
    "middle byte flipped": lambda good: good[: len(good) // 2] + bytes([good[len(good) // 2] ^ 1]) + good[len(good) // 2 + 1 :],
    "last byte flipped": lambda good: good[:-1] + bytes([good[-1] ^ 1]),
    "truncated": lambda good: good[: len(good) // 2],
    "emptied": lambda good: b"",
    "longer": lambda good: good + b" ",
    "missing": lambda good: None,
}  # fmt: skip


def write(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 50)
    (folder / "sub" / "state.json").write_text('{"step": 3}')
    (folder / "empty.txt").write_text("")
    return folder


def make(run: Path, step: int) -> Path:
    place = run / "checkpoints" / f"step-{step}"
    seal(write(run / "checkpoints" / WRITING / f"checkpoint-{step}"), place, step)
    return place


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make(tmp_path / "run", 3)


def test_sealed_checkpoint_is_whole_and_moved(checkpoint: Path) -> None:
    assert verify(checkpoint) == 3
    assert not list((checkpoint.parent / WRITING).iterdir())
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    assert manifest["step"] == 3
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == dict(
        zip(sorted(NAMES), [0, 12800, 11], strict=True)
    )
    assert manifest["files"]["empty.txt"]["sha256"].startswith("e3b0c44298fc1c14")  # sha256 of nothing


def test_sealing_again_replaces_a_damaged_one(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert make(checkpoint.parent.parent, 3) == checkpoint
    assert verify(checkpoint) == 3


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["model.safetensors", "sub/state.json", MANIFEST])
def test_every_damage_is_seen_and_named(checkpoint: Path, name: str, how: str) -> None:
    path = checkpoint / name
    damaged = DAMAGE[how](path.read_bytes())
    if damaged is None:
        path.unlink()
    else:
        path.write_bytes(damaged)
    with pytest.raises(DamagedError) as raised:
        verify(checkpoint)
    assert raised.value.reason.startswith(f"{name} ")
    assert str(checkpoint) in str(raised.value)


def test_every_single_byte_of_a_manifest_counts(checkpoint: Path) -> None:
    path = checkpoint / MANIFEST
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(DamagedError, match=r"manifest\.json is not what was written"):
            verify(checkpoint)


def test_files_that_nobody_wrote_are_seen(checkpoint: Path) -> None:
    (checkpoint / "extra").write_text("x")
    with pytest.raises(DamagedError, match="extra is not in the manifest"):
        verify(checkpoint)
    (checkpoint / "extra").unlink()
    (checkpoint / "sub" / "link").symlink_to(checkpoint / "sub", target_is_directory=True)
    with pytest.raises(DamagedError, match="sub/link is not in the manifest"):
        verify(checkpoint)


def test_a_link_to_the_same_bytes_is_not_the_file(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").rename(tmp_path / "elsewhere")
    (checkpoint / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match=r"model\.safetensors differs"):
        verify(checkpoint)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"other": 1}', '{"step": 1, "files": [1]}', "[" * 100_000, "\ud800"]
)
def test_anything_for_a_manifest(checkpoint: Path, content: str) -> None:
    (checkpoint / MANIFEST).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DamagedError, match=r"manifest\.json is not what was written"):
        verify(checkpoint)


@pytest.mark.parametrize("entries", [{"a": 1}, {"a": "sha256size"}, {"a": ["sha256", "size"]}, {"a": {"size": 0}}, "a"])
def test_a_manifest_of_another_kind_with_a_right_hash(checkpoint: Path, entries: object) -> None:
    (checkpoint / MANIFEST).write_bytes(checkpoints._manifest(3, entries))
    with pytest.raises(DamagedError, match=r"manifest\.json is not what was written"):
        verify(checkpoint)


def test_a_sealed_pickle_is_refused(tmp_path: Path) -> None:
    written = write(tmp_path / "written")
    (written / "pytorch_model.bin").write_bytes(b"x")
    seal(written, tmp_path / "step-1", 1)
    with pytest.raises(DamagedError, match=r"pytorch_model\.bin is a pickle, which is never loaded"):
        verify(tmp_path / "step-1")


def test_what_may_be_missing(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert verify(checkpoint, may_lack=("model.safetensors",)) == 3
    (checkpoint / "sub" / "state.json").unlink()
    with pytest.raises(DamagedError, match=r"sub/state\.json is missing"):
        verify(checkpoint, may_lack=("model.safetensors",))


def test_no_checkpoint_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"step-1 does not exist; give a folder step-N"):
        verify(tmp_path / "step-1")


def test_the_newest_whole_one_is_by_number(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (3, 20, 100):
        make(run, step)
    write(run / "checkpoints" / WRITING / "checkpoint-200")
    (run / "checkpoints" / "step-x").mkdir()
    assert [path.name for path in numbered(run / "checkpoints")] == ["step-100", "step-20", "step-3"]
    assert newest(run / "checkpoints", verify) == (run / "checkpoints" / "step-100", [])
    (run / "checkpoints" / "step-100" / "model.safetensors").unlink()
    (run / "checkpoints" / "step-20" / MANIFEST).write_text("")
    found, passed_over = newest(run / "checkpoints", verify)
    assert found == run / "checkpoints" / "step-3"
    assert passed_over == [
        "step-100 is damaged: model.safetensors is missing",
        "step-20 is damaged: manifest.json is not what was written",
    ]
    assert newest(tmp_path, verify) == (None, [])


def test_removing_leaves_nothing(checkpoint: Path) -> None:
    remove(checkpoint)
    assert numbered(checkpoint.parent) == []
    assert not list((checkpoint.parent / WRITING).iterdir())
