"""The site is built strictly, loads nothing from elsewhere, and has what its pages link to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

import cegm

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 20
    assert not [found for page in pages for found in LOADED.findall(page.read_text(encoding="utf-8"))]
    assert not [sheet for sheet in site.rglob("*.css") if re.search(r"url\([\"']?(https?:)?//", sheet.read_text())]


def test_every_public_name_has_its_docstring(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    for name in set(cegm.__all__) - {"__version__"}:
        assert f'id="cegm.{name}"' in page
    assert "CEGMFactory" in page
    assert "Algorithm 1" in page


def test_pages_bring_the_logs_that_they_link_to(site: Path) -> None:
    page = (site / "results.html").read_text(encoding="utf-8")
    links = re.findall(r'href="(repository/[^"#]+)"', page) + re.findall(r'src="(repository/[^"]+)"', page)
    assert len(links) > 20
    assert not [link for link in links if not (site / link).exists()]


def test_a_folder_without_a_page_of_its_own_is_listed(site: Path) -> None:
    folder = "benchmarks/results/tuning"
    page = (site / "repository" / folder / "index.html").read_text(encoding="utf-8")
    assert not (ROOT / folder / "README.md").exists()
    assert all(each.name in page for each in (ROOT / folder).iterdir())
