"""Pages lead where they say, fit a screen, and are all found from the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cegm.lab.baselines import METHODS
from cegm.lab.tasks.axes import AXES

ROOT = Path(__file__).parents[2]
README, INDEX, DIARY = ROOT / "README.md", ROOT / "docs/index.md", ROOT / "docs/diary.md"
CONTRIBUTING, CHANGELOG = ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"
PAGES = sorted(
    [README, CONTRIBUTING, CHANGELOG, *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks/results").rglob("README.md")]
)
WIDTH = 120
LINK = re.compile(r"\]\(([^)\s]+)\)")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(text: str) -> list[str]:
    """The lines of a page outside of code."""
    kept, fenced = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            kept.append(line)
    return kept


def anchors(page: Path) -> set[str]:
    """What a link may name behind `#`, as GitHub and the site make it of headings."""
    headings = [line.lstrip("# ") for line in prose(page.read_text(encoding="utf-8")) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in LINK.findall("\n".join(prose(page.read_text(encoding="utf-8")))):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@every_page
def test_prose_is_wrapped(page: Path) -> None:
    long = [line for line in prose(page.read_text(encoding="utf-8")) if len(line) > WIDTH]
    assert not [line for line in long if not line.startswith("|")]


def test_the_first_page_fits_a_screen_or_three() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.encode()) <= 7000
    assert max(map(len, text.splitlines())) <= WIDTH


def test_contributing_fits_a_screen() -> None:
    assert len(CONTRIBUTING.read_text(encoding="utf-8").splitlines()) <= 60


def test_the_index_has_one_line_for_every_page() -> None:
    listed = re.findall(r"^- \[[^\]]+\]\((\w+\.md)\)", INDEX.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md") if page != INDEX)


@pytest.mark.parametrize(("page", "names"), [("peers.md", METHODS), ("axes.md", AXES)])
def test_every_method_and_axis_has_a_row_of_its_own(page: str, names: dict[str, object]) -> None:
    rows = [line.split("|")[1] for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("| `")]
    assert names.keys() - {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set()


def test_every_entry_of_the_diary_has_a_date_a_verdict_and_what_comes_next() -> None:
    _, *entries = re.split(r"^## ", DIARY.read_text(encoding="utf-8"), flags=re.MULTILINE)
    dates = [re.match(r"\d{4}-\d\d-\d\d(?=: )", entry) for entry in entries]
    assert all(dates)
    assert [date[0] for date in dates if date] == sorted((date[0] for date in dates if date), reverse=True)
    for entry in entries:
        assert entry.count("**Verdict**:") == 1, entry[:60]
        assert entry.count("**Next**:") == 1, entry[:60]
