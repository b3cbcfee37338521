"""A signed and approved release, and the keys of its people."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytest.importorskip("cryptography")
pytest.importorskip("cyclonedx")

from cegm.lab.cli import main
from cegm.lab.release import keys
from releases import approve, written_comparison, written_run


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of a trainer, an approver and a stranger."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("trainer", "approver", "stranger"):
        keys.new(str(folder / name))
    return folder


@pytest.fixture(scope="session")
def template(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed and approved release of a run that a comparison judged; not to be changed."""
    root = tmp_path_factory.mktemp("template")
    said = {"operator": "Team A", "data_source": "made up", "data_licence": "CC0-1.0", "explain_rows": "2"}
    run, comparison, place = written_run(root / "run", said), written_comparison(root / "comparison"), root / "release"
    assert (
        main(["audit", str(run), str(comparison), "--output_dir", str(place), "--key", str(people / "trainer.key")])
        == 0
    )
    assert main([*approve(place, people), "--approver", "B. Second"]) == 0
    return place


@pytest.fixture
def release(template: Path, tmp_path: Path) -> Path:
    """The same at another path, to be changed."""
    return Path(shutil.copytree(template, tmp_path / "elsewhere" / "renamed"))
