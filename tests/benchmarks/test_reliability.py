"""The table of faults is what its log says, and the log shows nothing silently wrong and no step lost beyond the last checkpoint."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import reliability
from faults import SAVE

REPOSITORY = Path(__file__).parents[2]
LOG = REPOSITORY / "benchmarks" / "results" / "reliability" / "faults.jsonl"
PAGE = REPOSITORY / "docs" / "reliability.md"


def line(**changes: Any) -> dict[str, Any]:
    base = {"fault": "killed", "side": "cegm", "ended": True, "same": True, "said": [], "lost": 2, "hanging": False}
    return {**base, **changes}


def test_cells_are_counted() -> None:
    lines = [
        line(),
        line(lost=0),
        line(same=False),
        line(same=False, said=["x is damaged"]),
        line(ended=False, same=False, lost=None),
    ]
    assert reliability.happened(lines) == (
        "2 of 5 as undisturbed, to the bit; 1 of 5 stopped with an error and did not go on; "
        "1 of 5 other weights, and said so; 1 of 5 **silently wrong**"
    )
    assert reliability.lost(lines) == "0 to 2 steps"
    assert reliability.lost([line(lost=None)]) == "nothing"
    assert reliability.lost([line(same=False)]) == "not told"
    assert reliability.happened([]) == "not tried"
    assert reliability.happened([line(ended=False, same=False, hanging=True)]) == "1 of 1 **hung**"


def test_the_table_stands_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{reliability.BEGIN}\nold\n{reliability.END}\nafter\n")
    reliability.put_table(page, [line()])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{reliability.END}\nafter\n")
    assert "old" not in text
    assert "| killed | 1 of 1 as undisturbed, to the bit | 2 steps | not tried |  |" in text


@pytest.mark.parametrize("how", ["cut", "flipped", "missing"])
def test_damage(tmp_path: Path, how: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    reliability.damage(path, how, random.Random(0))
    if how == "missing":
        assert not path.exists()
    elif how == "cut":
        assert path.read_bytes() == bytes(range(50))
    else:
        changed = [(a, b) for a, b in zip(path.read_bytes(), range(100), strict=True) if a != b]
        assert len(changed) == 1
        assert (changed[0][0] ^ changed[0][1]).bit_count() == 1


@pytest.mark.skipif(not LOG.exists(), reason="the faults have not been run yet")
def test_nothing_was_silently_wrong_and_no_step_lost_beyond_the_last_checkpoint() -> None:
    settings, *lines = [json.loads(text) for text in LOG.read_text().splitlines()]
    own = [each for each in lines if each["side"] == "cegm"]
    assert len([each for each in own if each["fault"].startswith("killed")]) == settings["kills"] == 20
    assert not [each for each in own if reliability.silently_wrong(each) or each["hanging"]]
    resumed = [each for each in own if each.get("resumed_at") is not None]
    assert len(resumed) > 20
    for each in resumed:
        assert each["resumed_at"] == (each["newest_whole"] or 0)
        spared = 2 * SAVE if each["fault"].startswith("file") else SAVE
        assert each["lost"] <= spared
        assert each["same"]


@pytest.mark.skipif(not LOG.exists(), reason="the faults have not been run yet")
def test_the_page_has_the_table_of_the_log(tmp_path: Path) -> None:
    _, *lines = [json.loads(text) for text in LOG.read_text().splitlines()]
    assert reliability.table(lines) in PAGE.read_text()
