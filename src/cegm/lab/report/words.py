"""Numbers as people read them, and the sentences around them, whose words stand in the templates."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from cegm.lab.report import style
from cegm.lab.report.runs import Record, finite
from cegm.pages import MINUS, templates

TIMES = "\N{MULTIPLICATION SIGN}"
NONE = "\N{EN DASH}"
MEBIBYTE = 2**20

LONGEST_TEXT = 400
"""Characters of an error or a configuration value that are shown; the folder has the rest."""

FORMATS = {
    "bits_per_byte": (1, ".4f", ""),
    "equal_seconds": (1, ".4f", ""),
    "retention": (100, ".1f", " %"),
    "step_time": (1000, ".1f", " ms"),
    "memory": (1 / MEBIBYTE, ",.1f", " MiB"),
    "optimizer_state": (1 / MEBIBYTE, ",.1f", " MiB"),
}
"""Factor, format and unit of a method's own value, by measure; others are whole numbers."""


TEMPLATES = templates("cegm.lab.report")
TEMPLATES.globals |= {"words": sys.modules[__name__], "style": style}


def told(file: str, sentence: str, **values: Any) -> str:
    """A macro of `FILE.txt.j2` with these values: plain text, which a page escapes."""
    return str(getattr(TEMPLATES.get_template(f"{file}.txt.j2").module, sentence)(**values))


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


def spread_named(measure: Record, entry: Record) -> str:
    """The spread and what it is; nothing where a number has none."""
    found = spread(measure, entry)
    if found == NONE or entry["p"] is None:
        return ""
    return f"{'95 % interval' if entry['interval'] else 'by seed'} {found}"


def effect_unit(measure: Record) -> str:
    """Unit of an effect: that of the measure, percentage points, or a factor."""
    if measure["effect"] == "ratio":
        return "factor"
    return "percentage points" if measure["unit"] == "accuracy" else str(measure["unit"])


def value(measure: str, number: float | None) -> str:
    """A method's own value of a measure, with its unit where the number alone would not tell."""
    factor, form, unit = FORMATS.get(measure, (1, ",.0f", ""))
    return NONE if number is None else f"{number * factor:{form}}{unit}"


def shown(number: Any, form: str, unit: float = 1) -> str:
    """A number in so many units; a dash for what is none."""
    known = finite(number)
    return NONE if known is None else f"{known / unit:{form}}"


def mean(numbers: Iterable[Any]) -> float | None:
    """The mean of what are numbers; None without any."""
    known = [number for each in numbers if (number := finite(each)) is not None]
    return fmean(known) if known else None


def p_value(number: float | None) -> str:
    """A p-value as a table shows it."""
    return NONE if number is None else f"{number:.3f}" if number >= 0.001 else "< 0.001"


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


def names(methods: Iterable[str]) -> list[str]:
    """Methods as people write them."""
    return list(map(style.name, methods))


def count(number: int, noun: str) -> str:
    """So many of something."""
    return f"{number} {noun}{'s' * (number != 1)}"


def begun(text: str) -> str:
    """The text as a sentence begins."""
    return text[:1].upper() + text[1:]


def shortened(text: str) -> str:
    """The text, cut at `LONGEST_TEXT` characters."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."


def failures(failed: list[Record]) -> list[str]:
    """Failed seeds by method, such as "Muon seed 2"."""
    seeds: dict[str, list[str]] = {}
    for run in failed:
        seeds.setdefault(style.name(run["method"]), []).append(str(run["seed"]))
    return [f"{method} seed{'s' * (len(own) > 1)} {', '.join(own)}" for method, own in seeds.items()]
