"""The report of an ablation: page, picture and terminal table, drawn from its `effects.json`."""

from __future__ import annotations

import textwrap
from pathlib import Path

import altair as alt

from cegm.aligned import aligned
from cegm.report import effect_chart, effect_words, page, picture, style, tables, terminal, words
from cegm.report.folder import Ablation, Record, read_ablation
from cegm.report.words import signed

WIDTH = 130
"""Characters of a line in the terminal."""

TITLE_WIDTH = 90
"""Characters of a line above the picture."""

INTERVAL, EACH = "[low, high]", "[low, high] or each seed"
COLUMNS = ("change", "part", "effect", INTERVAL, "word", f"step {words.TIMES}", "B/weight")


def write(folder: Path) -> Path:
    """Draws the page of an ablation folder into it.

    Args:
        folder: Ablation folder; it has `effects.json`.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: If one of its files is damaged.
    """
    return page.save(render(read_ablation(folder)), folder / page.FILE_NAME)


def render(ablation: Ablation) -> str:
    """The page as text."""
    chart = effect_chart.effects(ablation)
    meaning = (
        "Small dots are seeds, large marks their mean, bars the 95 % interval where seeds are enough for one; the dashed line is the base. "
        "A change far outside is cut at the edge, with its number."
    )
    return page.template("ablation.html.j2").render(
        title=ablation.path.resolve().name,
        headline=effect_words.headline(ablation),
        sign=effect_words.SIGN,
        measure=ablation.effects["measure"],
        costs=ablation.effects["costs"],
        warnings=effect_words.warnings(ablation),
        facts=facts(ablation),
        meaning=meaning,
        chart=None if chart is None else _specification(chart, meaning),
        rows=rows(ablation),
        parts=parts(ablation),
        failed=failed_runs(ablation),
        library=page.library(),
        config=style.CONFIG,
    )


def _specification(chart: alt.HConcatChart, meaning: str) -> Record:
    spec: Record = chart.properties(description=f"Effect of every change. {meaning}").to_dict()
    spec.pop("$schema")  # the page names the grammar itself; an address in it would only look like a download
    spec.pop("config", None)
    return spec


def rows(ablation: Ablation) -> list[Record]:
    """Every change as a line of the table, lowest effect first."""
    told = []
    for arm in ablation.arms:
        found, cost = arm["difference"], arm["cost"]
        smallest = found and found["smallest_detectable"]
        told.append(
            {
                "part": arm["part"],
                "change": arm["name"],
                "effect": words.NONE if found is None else signed(found["estimate"]),
                "interval": words.NONE if found is None else effect_words.spread(found),
                "method": "" if found is None else found["interval_method"],
                "p": tables.p_value(found and found["p"]),
                "p_holm": tables.p_value(arm["p_holm"]),
                "word": "not compared" if found is None else arm["word"],
                "smallest": words.NONE if smallest is None else f"{smallest:.4f}",
                "ratio": effect_words.ratio(cost),
                "ratio_spread": "" if cost is None else effect_words.blocks(cost),
                "state": effect_words.bytes_per_weight(arm),
                "failed": ", ".join(arm["failed"]),
            }
        )
    return told


def parts(ablation: Ablation) -> list[Record]:
    """Every part that was tried: its question, the answer, and for controls how far the base is from them."""
    told = []
    for entry in ablation.effects["parts"]:
        arms = [arm for arm in ablation.arms if arm["part"] == entry["part"]]
        if arms:
            are_controls = entry["part"] == effect_words.CONTROLS
            found = effect_words.control_answer(arms) if are_controls else effect_words.answer(arms)
            told.append({**entry, "answer": found, "controls": effect_words.controls(ablation) if are_controls else []})
    return told


def failed_runs(ablation: Ablation) -> list[Record]:
    """Every run that failed, with its error."""
    return [
        {"change": arm["name"], "seed": seed, "error": tables.shortened(error)}
        for arm in [ablation.effects["base"], *ablation.arms]
        for seed, error in arm["failed"].items()
    ]


def facts(ablation: Ablation) -> list[tuple[str, str]]:
    """What was changed, and on what, in a few words each."""
    effects, base = ablation.effects, ablation.base
    told = [
        ("Changes", len(ablation.arms)),
        ("Seeds", ", ".join(str(seed) for seed in effects["seeds"])),
        ("Base: mean loss (lowest to highest seed)", effect_words.base_loss(ablation)),
        ("Base: state, bytes per weight", effect_words.bytes_per_weight(effects["base"])),
        ("Model", base.get("model_name_or_path")),
        ("Data", base.get("data")),
        ("Steps", base.get("max_steps")),
        ("Base: learning rate", base.get("learning_rate")),
    ]
    return [(name, tables.shortened(str(text))) for name, text in told if text is not None]


def export_picture(folder: Path, path: Path) -> Path:
    """Draws the effect of every change, with what it costs.

    Args:
        folder: Ablation folder.
        path: Where to, ending in `.svg` or `.png` (twice the pixels).

    Returns:
        The path.

    Raises:
        ValueError: If the ending is another one or the ablation has no change.
    """
    picture.require_ending(path)
    ablation = read_ablation(folder)
    chart = effect_chart.effects(ablation)
    if chart is None:
        raise ValueError(f"{folder} has no change to draw: its effects.json lists none")
    small = "Small dots: seeds; large marks: their mean, with 95 % interval where seeds are enough for one; dashed line: base."
    title = alt.Title(
        textwrap.wrap(effect_words.headline(ablation), TITLE_WIDTH),
        subtitle=small,
        anchor="start",
        offset=14,
        subtitleFontSize=11.5,
    )
    return picture.save(chart.properties(title=title), path)


def table(folder: Path) -> str:
    """Effects and costs of all changes, lowest effect first, then the headline and the failed runs.

    Args:
        folder: Ablation folder.

    Returns:
        Plain text, several lines of at most `WIDTH` characters, no trailing newline.

    Raises:
        ValueError: If one of its files is damaged.
    """
    ablation = read_ablation(folder)
    few = any(arm["difference"] and arm["difference"]["low"] is None for arm in ablation.arms)
    head = tuple(EACH if few and column == INTERVAL else column for column in COLUMNS)
    lines = [*aligned(_fitting([head, *map(_cells, ablation.arms)]), {0, 1, 4}), ""]
    lines += _filled(effect_words.headline(ablation)) + _filled(effect_words.SIGN)
    for run in failed_runs(ablation):
        lines += _filled(f"failed: {run['change']}, seed {run['seed']}: {run['error']}")
    return "\n".join(lines)


def _cells(arm: Record) -> tuple[str, ...]:
    found = arm["difference"]
    return (
        arm["name"],
        arm["part"],
        words.NONE if found is None else signed(found["estimate"]),
        words.NONE if found is None else _spread(found),
        "not compared" if found is None else arm["word"],
        effect_words.ratio(arm["cost"]).removesuffix(f" {words.TIMES}"),
        effect_words.bytes_per_weight(arm),
    )


def _spread(found: Record) -> str:
    if found["low"] is None:
        return effect_words.spread(found)
    return f"[{signed(found['low']):>7}, {signed(found['high']):>7}]"


def _fitting(cells: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Printable cells, names cut to keep within the width."""
    cells = [tuple(map(terminal.printable, row)) for row in cells]
    cells = [(name, _cut(part, 24), *rest) for name, part, *rest in cells]
    others = sum(2 + max(map(len, column)) for column in list(zip(*cells, strict=True))[1:])
    return [(_cut(name, WIDTH - others), *rest) for name, *rest in cells]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _filled(text: str) -> list[str]:
    return textwrap.wrap(terminal.printable(text), WIDTH, subsequent_indent="  ")
