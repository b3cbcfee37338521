"""The claims are those of the paper, and every one of them has a place where it is measured."""

from __future__ import annotations

import pytest

from cegm.lab.report.claims import Claim, claims, source
from cegm.lab.tasks.axes import PAPER

BY_PLACE = {claim.place: claim for claim in claims()}


def test_tables_and_figures_come_in_the_order_of_the_text() -> None:
    order = "Table I, Figure 2, Table II, Figure 3, Table III, Figure 4, Table IV, Figure 5, Figure 6, Table V"
    assert [claim.place for claim in claims()] == order.split(", ")
    assert "2502.00048" in source()


@pytest.mark.parametrize(
    ("place", "numbers"),
    [
        ("Table I", "78.5 85.7 81.3 88.4 74.6 83.2 76.2 84.5 77.7 85.5"),
        ("Table II", "82.1 88.6 78.3 86.7 71.5 81.2 65.8 78.3 54.2 72.9"),
        ("Table III", "89.2 92.5 83.5 88.4 76.8 83.7 65.7 75.3 48.3 63.9"),
        ("Table IV", "72.4 80.8 68.1 78.5 74.9 82.3 58.7 70.4 62.3 73.2"),
        ("Table V", "0.74 0.82 0.68 0.77 0.62 0.73 0.59 0.71 0.64 0.76"),
    ],
)
def test_numbers_are_those_of_the_protocol(place: str, numbers: str) -> None:
    assert [number for row in BY_PLACE[place].rows for number in row.claimed] == list(map(float, numbers.split()))


def test_average_is_that_of_the_rows_above_it() -> None:
    *rows, average = BY_PLACE["Table I"].rows
    assert not average.axis
    for side in (0, 1):
        assert average.claimed[side] == pytest.approx(sum(row.claimed[side] for row in rows) / 4, abs=0.051)


def test_every_generated_axis_stands_for_one_claim() -> None:
    named = [axis for claim in claims() for axis in claim.axes]
    assert sorted(named) == sorted(PAPER)
    for claim in claims():
        assert {row.axis for row in claim.rows} <= {*claim.axes, ""}


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: str(claim.place))
def test_a_table_has_numbers_and_a_figure_has_none(claim: Claim) -> None:
    assert bool(claim.rows) == claim.place.startswith("Table") == bool(claim.claimed_unit)
    assert claim.says.endswith(".")
    assert claim.ours.endswith(".")
