"""Numbers of a verdict as people read them."""

from __future__ import annotations

from typing import Any

from cegm.lab.report.folder import Record
from cegm.pages import MINUS

TIMES = "\N{MULTIPLICATION SIGN}"
NONE = "\N{EN DASH}"


def difference(measure: Record, entry: Record) -> str:
    """The effect with its sign and unit, or as a factor."""
    unit = "" if measure["effect"] == "ratio" else f" {effect_unit(measure)}"
    return effect(measure, entry["effect"]) + unit


def effect(measure: Record, number: float) -> str:
    """A size of an effect, with its sign, or as a factor."""
    if measure["effect"] == "ratio":
        return f"{number:.3f} {TIMES}"
    scale, digits = {"accuracy": (100, 1), "steps": (1, 0)}.get(measure["unit"], (1, 4))
    return signed(scale * number, digits)


def signed(number: float, digits: int = 4) -> str:
    """A number with its sign; nothing in front of a zero."""
    shown = f"{abs(number):,.{digits}f}"
    return ("" if float(shown.replace(",", "")) == 0 else MINUS if number < 0 else "+") + shown


def spread(measure: Record, entry: Record) -> str:
    """The ends of the 95 % interval, or where seeds are too few for one the effect on each; a dash with one seed."""
    shown = [
        effect(measure, number).removesuffix(f" {TIMES}") for number in entry["interval"] or entry.get("points", ())
    ]
    if len(shown) < 2:
        return NONE
    return " to ".join(shown) if entry["interval"] else ", ".join(shown)


def effect_unit(measure: Record) -> str:
    """Unit of an effect: that of the measure, percentage points, or a factor."""
    if measure["effect"] == "ratio":
        return "factor"
    return "percentage points" if measure["unit"] == "accuracy" else str(measure["unit"])


def value(measure: str, number: Any) -> str:
    """A method's own value of a measure, with its unit where the number alone would not tell."""
    if number is None:
        return NONE
    if measure in ("bits_per_byte", "equal_seconds"):
        return f"{number:.4f}"
    if measure == "retention":
        return f"{100 * number:.1f} %"
    if measure == "step_time":
        return f"{1000 * number:.1f} ms"
    if measure in ("memory", "optimizer_state"):
        return f"{number / 2**20:,.1f} MiB"
    return f"{number:,.0f}"


def steps(needed: list[float | None]) -> str:
    """Mean steps to a target; how many runs missed it where any did, since a mean over the others would reward that."""
    reached = [number for number in needed if number is not None]
    if len(reached) < len(needed):
        return f"{len(needed) - len(reached)} of {len(needed)} missed"
    return f"{sum(reached) / len(reached):,.0f}" if reached else NONE


def axis_value(measure: Record, number: float | None) -> str:
    """A value of a measure in the unit that `unit` names."""
    if number is None:
        return NONE
    return f"{100 * number:.1f}" if measure["unit"] == "accuracy" else f"{number:.3f}"


def unit(measure: Record) -> str:
    """Unit of the values of a measure, short enough for the head of a column."""
    return {"accuracy": "%", "bits per byte": "bits/byte"}.get(measure["unit"], str(measure["unit"]))


def listed(names: list[str], word: str) -> str:
    """Names in a row, with a word in front of the last."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
