"""Sealed checkpoints: complete or not there, and every damage is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from cegm.train.checkpoints import MANIFEST, find, seal, verify


def write(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 50)
    (folder / "sub" / "state.json").write_text("{}")
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    place = tmp_path / "run" / "checkpoints" / "step-3"
    seal(write(tmp_path / "written"), place)
    return place


def test_sealed_checkpoint_is_whole_and_moved(checkpoint: Path, tmp_path: Path) -> None:
    verify(checkpoint)
    assert not (tmp_path / "written").exists()


def test_every_damage_is_seen(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    good = weights.read_bytes()
    for position in (0, len(good) // 2, len(good) - 1):
        weights.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(ValueError, match=r"is damaged: model\.safetensors differs"):
            verify(checkpoint)
    weights.write_bytes(good[:-1])
    with pytest.raises(ValueError, match="differs"):
        verify(checkpoint)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        verify(checkpoint)
    weights.write_bytes(good)
    (checkpoint / "extra").write_text("x")
    with pytest.raises(ValueError, match="extra is not in the manifest"):
        verify(checkpoint)


@pytest.mark.parametrize("content", [None, "", "[]", '{"other": 1}'])
def test_unreadable_manifest(checkpoint: Path, content: str | None) -> None:
    (checkpoint / MANIFEST).unlink()
    if content is not None:
        (checkpoint / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=r"no readable manifest\.json"):
        verify(checkpoint)


def test_latest_is_by_number_and_ignores_half_written_ones(checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    seal(write(tmp_path / "again"), run / "checkpoints" / "step-20")
    write(run / "checkpoints" / ".writing" / "checkpoint-30")
    assert find("latest", run).name == "step-20"
    assert find(str(checkpoint), run) == checkpoint


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no checkpoint to resume from"):
        find("latest", tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        find(str(tmp_path / "step-1"), tmp_path)
