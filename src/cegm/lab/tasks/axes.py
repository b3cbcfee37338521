"""All axes in the order of the paper, then the pilots, and the choice among them."""

from __future__ import annotations

from importlib import import_module

from cegm.lab.tasks.axis import PILOT, Axis
from cegm.spelling import nearest

MODULES = (
    "ambiguity",
    "consistency",
    "reasoning",
    "disambiguation",
    "efficiency",
    "retention",
    "drift",
    "noise",
    "domains",
    "steps",
    "complexity",
    "coherence",
    "search",
    "faq",
    "summaries",
    "company",
)
"""Each of these modules states one axis of its name as `AXIS`; a new axis is a file and a line here."""

AXES: dict[str, Axis] = {name: import_module(f"cegm.lab.tasks.{name}").AXIS for name in MODULES}
PAPER = tuple(name for name, axis in AXES.items() if axis.paper != PILOT)


def chosen(names: str) -> list[Axis]:
    """Axes by their comma-separated names; `all` are those of the paper.

    Raises:
        ValueError: No such axis, or none at all.
    """
    wanted = [part.strip() for part in names.split(",") if part.strip()]
    if wanted == ["all"]:
        wanted = list(PAPER)
    for name in wanted:
        if name not in AXES:
            raise ValueError(f"axis {name!r} does not exist; {nearest(name, AXES)}")
    if not wanted:
        raise ValueError("axes names no axis; give 'all', or names such as retention,noise")
    return [AXES[name] for name in dict.fromkeys(wanted)]
