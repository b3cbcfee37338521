"""The figures of the first screen: one forest of all measures, and the loss curve."""

from __future__ import annotations

from cegm.lab.report import all_measures, curves, endings, style
from cegm.lab.report.figures import Figure, figure
from cegm.lab.report.folder import Folder
from cegm.lab.report.judged import judged


def figures(folder: Folder) -> list[Figure]:
    """The forest, of an ablation that of its changes, and beside it the loss curve, which an ablation has too many arms for."""
    if folder.is_ablation:
        return endings.differences(folder, "bits_per_byte")
    return _forest(folder) + _curve(folder)


def _forest(folder: Folder) -> list[Figure]:
    verdict = judged(folder)
    if verdict is None:
        return []
    rows, left = all_measures.rows(verdict, folder.overhead)
    meaning = (
        f"{style.name(verdict.subject)} beside each other method, as a percentage of that method's mean, downwards as in the legend. "
        "Right of the dashed line it is better. Bars are 95 % intervals; where seeds are too few for one, each seed is a ring."
    )
    if left:
        meaning += f" No percentage, and so not shown: {', '.join(left)}."
    title, chart = "Every measure", all_measures.forest(rows, verdict.methods)
    return figure(title, meaning, chart, all_measures.height(rows))


def _curve(folder: Folder) -> list[Figure]:
    meaning = "Lower is better."
    if folder.is_comparison:
        meaning += " Lines are means over seeds, bands reach from the best seed to the worst."
    return figure("Validation loss", meaning, curves.learning_curves(folder))
