"""All axes, in the order of the paper, and the choice among them."""

from __future__ import annotations

from cegm.spelling import nearest
from cegm.tasks import (
    ambiguity,
    coherence,
    consistency,
    depth,
    domains,
    drift,
    faq,
    noise,
    reasoning,
    retention,
    search,
    senses,
    steps,
    summaries,
    syntax,
)
from cegm.tasks.axis import Axis

PAPER = (ambiguity, consistency, reasoning, senses, depth, retention, drift, noise, domains, steps, syntax, coherence)
PILOTS = (search, faq, summaries)
"""On real text only: what the paper's readers would build."""

AXES: dict[str, Axis] = {module.AXIS.name: module.AXIS for module in (*PAPER, *PILOTS)}
GENERATED = tuple(module.AXIS.name for module in PAPER)
"""Axes with a generated form."""


def chosen(names: str) -> list[Axis]:
    """Axes by their comma-separated names; `all` are those of the paper.

    Raises:
        ValueError: No such axis, or none at all.
    """
    wanted = [part.strip() for part in names.split(",") if part.strip()]
    if wanted == ["all"]:
        wanted = list(GENERATED)
    for name in wanted:
        if name not in AXES:
            raise ValueError(f"axis {name!r} does not exist; {nearest(name, AXES)}")
    if not wanted:
        raise ValueError("axes names no axis; give 'all', or names such as retention,noise")
    return [AXES[name] for name in dict.fromkeys(wanted)]
