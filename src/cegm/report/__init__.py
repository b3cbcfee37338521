"""One offline page, one picture and one terminal table, from the folder of a comparison, an ablation or a run alone."""

from __future__ import annotations

from pathlib import Path

try:
    from cegm.report import ablation, page, picture, terminal
except ImportError as error:
    raise ImportError(f"the report needs {error.name}: pip install 'cegm[report]'") from error
from cegm.report.folder import is_ablation

__all__ = ["export_picture", "table", "write"]


def write(folder: Path) -> Path:
    """Draws the page of a comparison, ablation or run folder into it.

    Args:
        folder: The folder.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: If the folder is none of these, or damaged.
    """
    return ablation.write(Path(folder)) if is_ablation(Path(folder)) else page.write(folder)


def table(folder: Path) -> str:
    """The end of `cegm compare` and `cegm ablate`: one aligned table and the sentences that matter.

    Args:
        folder: Comparison, ablation or run folder.

    Returns:
        Plain text, several lines, no trailing newline.

    Raises:
        ValueError: If the folder is none of these, or damaged.
    """
    return ablation.table(Path(folder)) if is_ablation(Path(folder)) else terminal.table(folder)


def export_picture(folder: Path, path: Path) -> Path:
    """Draws the main picture of a comparison or an ablation.

    Args:
        folder: Comparison or ablation folder.
        path: Where to, ending in `.svg` or `.png` (twice the pixels).

    Returns:
        The path.

    Raises:
        ValueError: If the ending is another one or the folder has nothing to draw.
    """
    draw = ablation.export_picture if is_ablation(Path(folder)) else picture.export_picture
    return draw(Path(folder), Path(path))
