"""Verdicts made by hand, so that pages and sentences are held against numbers that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cegm.lab.report.runs import Folder, Run


def axis(
    name: str,
    words: dict[str, str],
    levels: list[tuple[str, float, float | None, dict[str, float]]] | None = None,
    *,
    title: str = "",
    unit: str = "accuracy",
    better: str = "higher",
    effects: dict[str, float] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A measure and the levels of an axis as `verdict.json` has them, with intervals of .05 to both sides.

    Args:
        name: Key of the axis.
        words: Word against each other method, the baseline last.
        levels: Subset, level, chance, and the mean of each method.
        title: In words; the name if empty.
        unit: Unit of the values.
        better: Which direction is good.
        effects: Effect against each other method; from the levels if left out.
    """
    levels = levels or [("", 0.0, None, {"cegm": 0.5, **dict.fromkeys(words, 0.5)})]
    primary = [means for subset, _, _, means in levels if not subset.startswith(("control: ", "home after "))]
    mean = {m: sum(means[m] for means in primary) / len(primary) for m in primary[0]}
    sizes = effects or {other: mean["cegm"] - mean[other] for other in words}
    pairs = [
        {
            **{"pair": ["cegm", other], "n": 2, "seeds": [0, 1], "failed": [], "p": 0.5, "p_holm": 1.0, "word": word},
            **{"effect": sizes[other], "interval": [sizes[other] - 0.05, sizes[other] + 0.05], "method": "made"},
            "smallest_detectable": 0.1,
        }
        for other, word in words.items()
    ]
    measure = {
        **{"name": name, "title": title or name, "unit": unit, "better": better, "effect": "difference"},
        **{"family": "primary", "pairs": pairs},
        "methods": {method: {"mean": value, "values": {"0": value, "1": value}} for method, value in mean.items()},
    }
    return measure, [_axis_level(*level) for level in levels]


def _axis_level(subset: str, level: float, chance: float | None, means: dict[str, float]) -> dict[str, Any]:
    gaps = {other: means["cegm"] - mean for other, mean in means.items() if other != "cegm"}
    return {
        **{"subset": subset, "level": level, "chance": chance, "items": 8},
        "methods": {m: {"mean": mean, "low": mean - 0.01, "high": mean + 0.01} for m, mean in means.items()},
        "differences": [
            {"pair": ["cegm", other], "mean": gap, "low": gap - 0.02, "high": gap + 0.02} for other, gap in gaps.items()
        ],
    }


def judged_on(
    axes: list[tuple[dict[str, Any], list[dict[str, Any]]]],
    loss: dict[str, str] | None = None,
    screening: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """A verdict over such axes and the loss, whose words `loss` gives by other method."""
    loss = loss or {"muon": "no evidence", "adamw": "better"}
    effects = {other: {"better": -0.1, "worse": 0.1}.get(word, -0.02) for other, word in loss.items()}
    first, _ = axis("bits_per_byte", loss, unit="bits per byte", better="lower", effects=effects)
    return {
        **{"methods": ["cegm", *loss], "seeds": [0, 1], "runs": {"planned": 6, "finished": 6}},
        **{"failed": [], "refused": [], "target_loss": 2.5, "screening": screening, "statement": "As it stands."},
        "measures": [first, *(measure for measure, _ in axes)],
        "axes": {measure["name"]: levels for measure, levels in axes},
        **more,
    }


def folder_of(verdict: dict[str, Any], axes: dict[str, Any] | None = None) -> Folder:
    """A comparison folder with that verdict and one run, whose result tells what became of its `axes`."""
    run = Run("cegm-seed0", "cegm", 0, "main", "finished", result={"axes": axes or {}})
    return Folder(Path("made"), True, [run], verdict)


def with_few_seeds(verdict: dict[str, Any], deviations: tuple[float, ...]) -> dict[str, Any]:
    """The verdict with as many paired seeds as deviations from each effect, too few for an interval."""
    seeds = list(range(len(deviations)))
    for pair in (pair for measure in verdict["measures"] for pair in measure["pairs"] if pair["effect"] is not None):
        pair |= {"n": len(seeds), "seeds": seeds, "interval": None, "smallest_detectable": None, "screening": True}
        pair["points"] = [pair["effect"] + deviation for deviation in deviations]
    levels = [level for entries in verdict["axes"].values() for level in entries]
    for gap in (gap for level in levels for gap in level["differences"]):
        gap |= {"low": None, "high": None, "points": [gap["mean"] + deviation for deviation in deviations]}
    return verdict
