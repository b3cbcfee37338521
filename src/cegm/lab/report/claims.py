"""What the paper claims, table by table and figure by figure, from `claims.yaml`; none of it was measured here."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from cegm.lab.tasks.axes import AXES


@dataclass(frozen=True)
class ClaimedRow:
    """A row of a table of the paper.

    Attributes:
        name: As the paper names it.
        claimed: Baseline and CEGM, in the unit of the table.
        axis: Axis that the row stands for; empty where the table has a single one, and for the average of its rows.
        subset: Part of the axis that it stands for; empty for none.
        level: Level of the axis that it stands for; None for none.
    """

    name: str
    claimed: tuple[float, float]
    axis: str = ""
    subset: str = ""
    level: float | None = None


@dataclass(frozen=True)
class Claim:
    """A table or figure of the paper.

    Attributes:
        place: Such as `Table II`.
        title: What it is about.
        axes: Axes that say they measure the same here; none for convergence, which every comparison measures.
        columns: Headings of the one or two columns that name a row; the second may be empty.
        says: What the paper claims, in a sentence.
        ours: What is measured here instead, in a sentence or two.
        rows: Rows of a table; none for a figure, whose numbers the paper does not print.
        claimed_unit: Unit of the claimed numbers.
    """

    place: str
    title: str
    axes: tuple[str, ...]
    columns: tuple[str, str]
    says: str
    ours: str
    rows: tuple[ClaimedRow, ...] = ()
    claimed_unit: str = ""

    @property
    def anchor(self) -> str:
        """Name of its place on the page, such as `table-ii`."""
        return self.place.lower().replace(" ", "-")


@functools.cache
def claims() -> tuple[Claim, ...]:
    """All tables and figures in the order of the paper's text."""
    return tuple(map(_claim, _file()["exhibits"]))


def _claim(entry: dict[str, Any]) -> Claim:
    axes = tuple(name for name, axis in AXES.items() if axis.paper == entry["place"])
    rows = tuple(ClaimedRow(**{**row, "claimed": tuple(row["claimed"])}) for row in entry.get("rows", ()))
    return Claim(**{**entry, "axes": axes, "columns": tuple(entry["columns"]), "rows": rows})


def source() -> str:
    """Where the claims stand."""
    return str(_file()["source"])


@functools.cache
def _file() -> dict[str, Any]:
    text = resources.files("cegm.lab.report").joinpath("claims.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found
