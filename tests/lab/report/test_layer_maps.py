"""Figure 1: the logged ranks, stage beside stage, aligned between methods and on one colour scale."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from cegm.lab.report import layer_maps
from cegm.lab.report.layer_maps import GradientMap, gradient_maps, panels
from cegm.lab.report.layer_tables import Table
from cegm.lab.report.runs import read
from cegm.lab.report.words import told

KEYS = {"raw": "gradient_rank", "mapped": "mapped_rank", "step": "update_rank"}


@pytest.fixture(scope="module")
def maps(comparison: Path) -> dict[str, GradientMap]:
    return {one.method: one for one in layer_maps.all_maps(read(comparison))[0]}


def small(values: dict[str, float], method: str = "muon") -> dict[tuple[str, str], Table]:
    """Two layers, three steps, one value per key."""
    cells = [(layer, step) for layer in ("a.w", "b.w") for step in (1, 10, 20)]
    return {(key, method): {cell: [value] for cell in cells} for key, value in values.items()}


def meaning(one: GradientMap) -> str:
    return told("figures", "gradient_map", map=one, method=one.method)


@pytest.mark.parametrize("method", ["cegm", "muon", "adamw"])
def test_cells_are_means_of_the_logged_ranks(comparison: Path, maps: dict[str, GradientMap], method: str) -> None:
    expected: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for file in (comparison / "runs").glob(f"{method}-seed?-[!e]*/metrics.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            for layer, numbers in line.get("layers", {}).items():
                for stage in maps[method].stages:
                    name = layer.removeprefix("model.layers.")
                    expected[stage, name, line["step"]].append(numbers[KEYS[stage]])
    drawn = {(cell["stage"], cell["layer"], cell["step"]): cell["value"] for cell in maps[method].cells}
    assert drawn
    assert set(drawn) <= set(expected)
    assert all(value == pytest.approx(sum(expected[key]) / 3, rel=1e-3) for key, value in drawn.items())


def test_methods_are_aligned_and_share_one_scale(maps: dict[str, GradientMap]) -> None:
    assert list(maps) == ["cegm", "muon", "adamw"]
    assert [maps[method].stages for method in maps] == [("raw", "mapped", "step")] * 2 + [("raw", "step")]
    places = {
        method: {(cell["stage"], cell["step"]): cell["place"] for cell in one.cells} for method, one in maps.items()
    }
    assert places["cegm"] == places["muon"]
    assert {place for (stage, _), place in places["adamw"].items() if stage == "step"} == {
        place for (stage, _), place in places["cegm"].items() if stage == "mapped"
    }, "what a method lacks leaves no gap"
    assert len({one.most for one in maps.values()}) == 1
    assert maps["cegm"].most == pytest.approx(max(c["value"] for one in maps.values() for c in one.cells), rel=1e-3)


def test_panels_stand_side_by_side_with_a_gap() -> None:
    (one,) = gradient_maps(["muon"], small({"gradient_rank": 2.0, "mapped_rank": 4.0, "update_rank": 90.0}))
    places: dict[str, set[int]] = defaultdict(set)
    for cell in one.cells:
        places[cell["stage"]].add(cell["place"])
    assert places == {"raw": {0, 1, 2}, "mapped": {4, 5, 6}, "step": {8, 9, 10}}
    spec: dict[str, Any] = panels(one).to_dict()
    x, colour = (spec["layer"][0]["encoding"][channel] for channel in ("x", "color"))
    assert x["axis"]["values"] == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert x["axis"]["labelExpr"] == "({0: 1, 1: 10, 2: 20, 4: 1, 5: 10, 6: 20, 8: 1, 9: 10, 10: 20})[datum.value]"
    assert colour["scale"]["domain"] == [1, 90.0]
    assert colour["legend"]["values"] == [1, 3, 10, 30]


def test_a_method_is_said_to_map_only_if_it_has_a_context(maps: dict[str, GradientMap]) -> None:
    assert "after momentum and the map of its context, and as the step" in meaning(maps["cegm"])
    assert "as it comes, after momentum, and as the step" in meaning(maps["muon"])
    assert "as it comes, and as the step" in meaning(maps["adamw"])
    titles = {
        method: [row["title"] for rows in panels(one).to_dict()["datasets"].values() for row in rows if "title" in row]
        for method, one in maps.items()
    }
    assert titles["cegm"] == ["raw gradient", "after momentum and map", "step of the weights"]
    assert titles["muon"] == ["raw gradient", "after momentum", "step of the weights"]
    assert titles["adamw"] == ["raw gradient", "step of the weights"]


def test_a_gradient_of_zeros_is_white_and_told() -> None:
    found = small({"gradient_rank": 2.0, "update_rank": 3.0}, "adamw")
    (whole,) = gradient_maps(["adamw"], found)
    assert "White" not in meaning(whole)
    del found["gradient_rank", "adamw"]["a.w", 1]
    (partial,) = gradient_maps(["adamw"], found)
    assert "White: no gradient." in meaning(partial)
    assert len(partial.cells) == 11


def test_runs_without_ranks_have_no_figure_1() -> None:
    assert gradient_maps(["muon", "soap"], small({"cosine": 0.5})) == []
    assert gradient_maps(["soap"], {}) == []
