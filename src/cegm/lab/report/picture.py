"""The main picture of a comparison as a file: how the runs end, every seed, and recall by length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from cegm.durable import write_whole
from cegm.lab.report import curves, dots, forest, overhead_chart, style
from cegm.lab.report.runs import Folder, read
from cegm.lab.report.sentences import headline

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""Version of Vega-Lite that altair writes, as vl-convert names it."""

PANEL = (300, 230)
"""Width and height of a panel in pixels."""


def export_picture(comparison_dir: Path, path: Path) -> Path:
    """Draws learning curves, final losses and context retention side by side; of an ablation, the effect of every change.

    Args:
        comparison_dir: Comparison folder.
        path: Where to, ending in `.svg` or `.png` (twice the pixels).

    Returns:
        The path.

    Raises:
        ValueError: If the ending is another one or the folder has nothing to draw.
    """
    require_ending(path)
    folder = read(Path(comparison_dir))
    panels, height = _panels(folder)
    drawn = [
        chart.properties(title=title, width=PANEL[0], height=height) for title, chart in panels if chart is not None
    ]
    if not drawn:
        raise ValueError(f"{comparison_dir} has nothing to draw: see its result.json files for the errors")
    chart = alt.hconcat(*drawn, spacing=40)
    return save(chart if folder.is_ablation else chart.resolve_scale(color="shared"), path)


def require_ending(path: Path) -> None:
    """Raises ValueError unless the name ends in `.svg` or `.png`."""
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"cannot write a picture to {path.name}: end the name in .svg or .png")


def _panels(folder: Folder) -> tuple[list[tuple[str, style.Drawing | None]], int]:
    """What is drawn side by side with its titles, and how high it is."""
    if folder.is_ablation:
        rows = forest.difference_points(folder, "bits_per_byte")
        effects = forest.pairs(rows, "bits per byte, change minus base")
        costs = (
            None if folder.overhead is None else overhead_chart.changes(folder.overhead, [row["pair"] for row in rows])
        )
        return [(headline(folder), effects), ("Time of a step", costs)], forest.rows_height(rows)
    panels = [
        ("Validation loss, second half of training", curves.learning_curves(folder, ending=True)),
        ("Final validation loss, every seed", dots.every_seed(folder, "bits_per_byte", "bits per byte")),
        ("Recall over distance", curves.retention(folder)),
    ]
    return panels, PANEL[1]


def save(chart: Any, path: Path) -> Path:
    """Writes a chart as its ending says; a `.png` has twice the pixels."""
    spec: dict[str, Any] = chart.to_dict()
    spec["padding"] = 12
    if path.suffix == ".svg":
        return write_whole(path, vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, config=style.CONFIG))
    return write_whole(path, vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, config=style.CONFIG, scale=2))
