"""Figures of where the runs end: every seed, and the difference of every pair."""

from __future__ import annotations

from cegm.lab.report import dots
from cegm.lab.report.figures import Figure, figure
from cegm.lab.report.folder import Folder

WITHIN = "Mean within seeds, with its 95 % interval, or a ring for each seed where they are too few for one."


def final(folder: Folder) -> list[Figure]:
    """The loss after equal steps."""
    meaning = "Each mark is one seed, the upright bar is the mean, and thin lines join runs of the same seed."
    chart = dots.every_seed(folder, "bits_per_byte", "bits per byte; lower is better")
    return figure("Final validation loss", meaning, chart, 200) + differences(folder, "bits_per_byte")


def differences(folder: Folder, measure: str) -> list[Figure]:
    """The effect of every pair, of an ablation as wide as the page."""
    title, unit = "Difference between methods", "bits per byte, first minus second"
    meaning = f"{WITHIN} Left of the dashed line favours the first; across it, nothing."
    if folder.is_ablation:
        title, unit = "Effect of every change", "bits per byte, change minus base"
        meaning = (
            "Small dots are seeds, large marks their mean, bars the 95 % interval where seeds are enough for one. Left of the "
            "dashed line is better than the base. What lies far outside stands at the edge, with its number."
        )
    if measure == "equal_seconds":
        title = f"{title} at equal seconds"
    rows = dots.difference_points(folder, measure)
    return figure(title, meaning, dots.forest(rows, unit), dots.rows_height(rows), wide=folder.is_ablation)


def equal_seconds(folder: Folder) -> list[Figure]:
    """The loss in equal training time."""
    meaning = "Every method trains as long as CEGM does, with more or fewer steps. Each mark is one seed."
    chart = dots.every_seed(folder, "equal_seconds", "bits per byte; lower is better")
    return figure("Loss at equal seconds", meaning, chart, 200) + differences(folder, "equal_seconds")
