"""What of the layers is shown: evenly picked, in the order of the model, within the page's budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from cegm.lab.report.layer_tables import FEWEST_COLUMNS, MOST_CELLS, MOST_COLUMNS, Table, extent, tables
from cegm.lab.report.runs import read
from cegm.lab.report.words import told


def table(layers: list[str], steps: list[int]) -> Table:
    return {(layer, step): [1.0, 2.0] for layer in layers for step in steps}


def test_everything_is_shown_when_it_fits() -> None:
    found = extent([table(["m.0.q.w", "m.0.k.w", "m.1.q.w"], [1, 10, 20])], panels=4)
    assert found.layers == {"m.0.q.w": "0.q", "m.0.k.w": "0.k", "m.1.q.w": "1.q"}
    assert found.steps == [1, 10, 20]
    assert (found.layers_in_all, found.height) == (3, 120)


@pytest.mark.parametrize(("layers", "steps", "panels"), [(14, 600, 12), (180, 30, 12), (28, 20, 3), (500, 500, 25)])
def test_all_panels_of_a_page_together_stay_within_its_budget(layers: int, steps: int, panels: int) -> None:
    names = [f"model.layers.{number}.weight" for number in range(layers)]
    found = extent([table(names, list(range(10, 10 * steps + 1, 10)))], panels)
    assert panels * len(found.layers) * len(found.steps) <= MOST_CELLS
    assert FEWEST_COLUMNS <= len(found.steps) <= MOST_COLUMNS
    assert list(found.layers) == [name for name in names if name in found.layers]
    assert (next(iter(found.layers)), list(found.layers)[-1]) == (names[0], names[-1])
    assert (found.steps[0], found.steps[-1]) == (10, 10 * steps)
    assert found.layers_in_all == layers
    assert told("figures", "cut", extent=found).strip() == (
        "" if len(found.layers) == layers else f"{len(found.layers)} of {layers} layers are shown."
    )


def test_tables_side_by_side_share_their_layers_and_steps() -> None:
    found = extent([table(["a.x", "b.x"], [10, 20]), table(["b.x", "c.x"], [20, 30])], panels=2)
    assert list(found.layers.values()) == ["a", "b", "c"]
    assert found.steps == [10, 20, 30]


def test_cells_are_means_over_seeds_and_none_stands_for_what_was_not_logged() -> None:
    found = {("a.x", 10): [1.0, 2.0], ("b.x", 20): [3.0]}
    assert extent([found], panels=1).cells(found) == [
        {"layer": "a", "step": 10, "value": 1.5},
        {"layer": "b", "step": 20, "value": 3.0},
    ]


def test_keys_that_no_run_logged_and_numbers_that_are_none_have_no_table(comparison: Path) -> None:
    found = tables(read(comparison), ["gradient_rank", "mapped_rank", "context_rank", "invented"])
    assert set(found) == {
        *(("gradient_rank", method) for method in ("adamw", "muon", "cegm")),
        *(("mapped_rank", method) for method in ("muon", "cegm")),
        ("context_rank", "cegm"),
    }
    assert all(len(values) == 3 for values in found["gradient_rank", "cegm"].values())  # seeds
