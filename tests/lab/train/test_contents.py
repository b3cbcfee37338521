"""Hashes follow what is read: every change of it changes them, and nothing else does."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("trl")

from cegm.lab.train import contents
from cegm.lab.train.contents import file_hash, model_hash, sets_hash, text_hash


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.md", "deep/c.txt"):
        (folder / name).write_text(f"text of {name}")
    return folder


def test_a_text_is_its_content_wherever_it_lies(texts: Path, tmp_path: Path) -> None:
    before = text_hash(str(texts))
    assert before is not None
    shutil.copytree(texts, tmp_path / "elsewhere")
    assert text_hash(str(tmp_path / "elsewhere")) == before
    (tmp_path / "link").symlink_to(texts)
    assert text_hash(str(tmp_path / "link")) == before
    one = text_hash(str(texts / "a.txt"))
    shutil.copy(texts / "a.txt", tmp_path / "other name.TXT")
    assert text_hash(str(tmp_path / "other name.TXT")) == one != before


def test_what_is_not_read_changes_nothing(texts: Path) -> None:
    before = text_hash(str(texts))
    (texts / ".git").mkdir()
    (texts / ".git" / "x.txt").write_text("hidden")
    (texts / "picture.png").write_bytes(b"1234")
    (texts / "rows.jsonl").write_text('{"text": "row"}')
    (texts / "again.txt").symlink_to(texts / "a.txt")
    assert text_hash(str(texts)) == before


def exchange(one: Path, other: Path) -> None:
    before = one.read_text()
    one.write_text(other.read_text())
    other.write_text(before)


def move_a_byte(folder: Path) -> None:
    (folder / "a.txt").write_text("text of a.txtt")
    (folder / "b.md").write_text("ext of b.md")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a letter": lambda folder: (folder / "a.txt").write_text("test of a.txt"),
    "a file more": lambda folder: (folder / "d.TXT").write_text("more"),
    "a file less": lambda folder: (folder / "deep" / "c.txt").unlink(),
    "two files for each other": lambda folder: exchange(folder / "a.txt", folder / "deep" / "c.txt"),
    "markup for text": lambda folder: (folder / "b.md").rename(folder / "b.txt"),
    "a byte moved over the border": move_a_byte,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_read_changes_it(texts: Path, change: str) -> None:
    before = text_hash(str(texts))
    CHANGES[change](texts)
    assert text_hash(str(texts)) != before


def test_a_file_that_looks_the_same_is_read_again_unless_it_has_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    for content in ("one", "two", "six"):  # as fast as the clock of the file system may be coarse
        path.write_text(content)
        os.utime(path, ns=(10**18, 10**18))
        assert file_hash(path) == contents.sha256(path)
    now = time.time()
    monkeypatch.setattr(contents.time, "time", lambda: now + 60)
    first = file_hash(path)
    with monkeypatch.context() as patch:
        patch.setattr(contents, "sha256", lambda _: pytest.fail("read twice"))
        assert file_hash(path) == first
    path.write_text("ten")
    os.utime(path, ns=(10**18, 10**18))  # a copy that keeps times: the time of the change itself cannot be set
    assert file_hash(path) != first


def test_what_is_no_file_here_has_no_hash(tmp_path: Path) -> None:
    assert text_hash("world") is None
    assert text_hash("owner/name") is None
    assert text_hash(str(tmp_path / "missing.txt")) is None
    assert model_hash("tiny") is None
    assert model_hash("owner/name") is None


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "optimizer.pt", "README.md"):
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "added.model", "code/part.py"])
def test_every_file_of_a_model_counts(model: Path, name: str) -> None:
    before = model_hash(str(model))
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("other")
    assert model_hash(str(model)) != before


def test_what_lies_beside_a_model_does_not(model: Path, tmp_path: Path) -> None:
    before = model_hash(str(model))
    for name in ("optimizer.pt", "README.md", "trainer_state.json", ".cache/x", "original/weights.pth"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("other")
    assert model_hash(str(model)) == before
    model.rename(tmp_path / "moved")
    assert model_hash(str(tmp_path / "moved")) == before


def test_adapters_are_those_of_their_model(model: Path, tmp_path: Path) -> None:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    before = model_hash(str(adapters))
    (model / "model.safetensors").write_text("trained on")
    assert model_hash(str(adapters)) != before


def test_of_public_sets_only_those_count_that_are_read(tmp_path: Path) -> None:
    for name in ("babi/en/1.txt", "bbh/bbh/x.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    one, both = sets_hash(tmp_path, ["babi"]), sets_hash(tmp_path, ["bbh", "babi"])
    assert both == sets_hash(tmp_path, ["babi", "bbh", "bbh", "missing"]) != one
    (tmp_path / "bbh" / "bbh" / "x.json").write_text("other")
    assert sets_hash(tmp_path, ["babi"]) == one
    assert sets_hash(tmp_path, ["bbh", "babi"]) != both
