"""One examination: a model sits the axes one after the other; what cannot be measured is said, and the rest goes on.

EVALUATION/evaluation.json   what was examined on what, and for each axis its state, seconds, tokens, warnings and sets
EVALUATION/axes/NAME.parquet one row per item of a finished axis; an interrupted examination goes on behind them
EVALUATION/items.parquet     all of them
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from cegm.strict import json_object, parquet_table
from cegm.tasks.axis import WORLD, Axis, NotMeasured, Record, Source, form_of
from cegm.tasks.examinee import Examinee
from cegm.train.contents import sets_hash
from cegm.train.durable import write_whole

STATE = "evaluation.json"
ITEMS = "items.parquet"


@dataclass(frozen=True)
class Outcome:
    """What became of one axis.

    Attributes:
        axis: Its name.
        records: Its items; none when it was not measured.
        reason: Why it was not measured; empty when it was.
        warnings: What was left out of it.
        seconds: How long it took.
        tokens: Tokens that the examinee read for it, padding left out; None where it does not count them: context
            retention, which shares what was read between questions, students that study a domain, and axes that were
            kept from before tokens were counted.
    """

    axis: str
    records: list[Record]
    reason: str
    warnings: tuple[str, ...]
    seconds: float
    tokens: int | None

    def state(self) -> dict[str, Any]:
        """All but the name and the records, as files keep it."""
        return {"reason": self.reason, "warnings": self.warnings, "seconds": self.seconds, "tokens": self.tokens}


def measure(examinee: Examinee, axis: Axis, source: Source, items: int, seed: int) -> Outcome:
    """One axis for one model; never raises for what is missing or damaged."""
    start, read = time.perf_counter(), examinee.tokens
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            records, reason = axis.measured(examinee, source, items, seed), ""
        except NotMeasured as error:
            records, reason = [], " ".join(str(error).split())
    told = tuple(dict.fromkeys(str(each.message) for each in caught if each.category is UserWarning))
    return Outcome(axis.name, records, reason, told, time.perf_counter() - start, (examinee.tokens - read) or None)


def evaluate(
    examinee: Examinee,
    axes: Sequence[Axis],
    *,
    source: Source,
    items: int,
    seed: int,
    folder: Path,
    facts: dict[str, Any],
    watch: Callable[[str, int], None],
) -> list[Outcome]:
    """Examines a model on the axes and keeps what it finds.

    Args:
        examinee: The model.
        axes: What to measure.
        source: `world`, or the folder of public sets.
        items: Items per level.
        seed: Draws the items; the same for all models that are to be compared.
        folder: Where the results go; finished axes of an interrupted examination are kept.
        facts: What else decides the results by name: the hash of the model, the meaning of the code.
        watch: Called with the name and number of each axis as it begins.

    Raises:
        ValueError: The folder holds an examination of something else, or the record of it is damaged.
    """
    (folder / "axes").mkdir(parents=True, exist_ok=True)
    settings = {**facts, "form": form_of(source), "items": items, "seed": seed}
    states = _states(folder, settings)
    outcomes = []
    for number, axis in enumerate(axes):
        watch(axis.title, number)
        path = folder / "axes" / f"{axis.name}.parquet"
        sets = None if source == WORLD else sets_hash(Path(source), axis.sets)
        outcome = _kept(axis, path, states, sets)
        if outcome is None:
            outcome = measure(examinee, axis, source, items, seed)
            write_whole(path, pd.DataFrame([asdict(record) for record in outcome.records]).to_parquet())
            states[axis.name] = {**outcome.state(), "sets": sets}
            _save(folder, settings, states)
        outcomes.append(outcome)
    rows = [asdict(record) for outcome in outcomes for record in outcome.records]
    write_whole(folder / ITEMS, pd.DataFrame(rows).to_parquet())
    return outcomes


def _states(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    path = folder / STATE
    if not path.exists():
        return {}
    try:
        kept = json_object(path)
        before, found = dict(kept["settings"]), dict(kept["axes"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; delete it to examine the model again") from None
    other = [name for name in {**settings, **before} if settings.get(name) != before.get(name)]
    if other:
        raise ValueError(f"{folder} holds an evaluation with other {', '.join(other)}; use another output_dir")
    return found


def _kept(axis: Axis, path: Path, states: dict[str, Any], sets: str | None) -> Outcome | None:
    """A finished axis of an interrupted examination; one that was not measured, is damaged, or was asked on other sets, is measured again."""
    state = states.get(axis.name)
    try:
        if state is None or state["reason"] or state.get("sets") != sets or not path.exists():
            return None
        records = [Record(*row) for row in parquet_table(path).itertuples(index=False)]
        return Outcome(axis.name, records, "", tuple(state["warnings"]), state["seconds"], state.get("tokens"))
    except (ValueError, KeyError, TypeError):
        return None


def _save(folder: Path, settings: dict[str, Any], states: dict[str, Any]) -> None:
    write_whole(folder / STATE, json.dumps({"settings": settings, "axes": states}, indent=1))


@dataclass(frozen=True)
class Summary:
    """An axis in a few numbers.

    Attributes:
        value: Mean over subsets and levels of the mean score; None without items.
        chance: The same of chance; None where guessing has no meaning.
        continuous: The same of the continuous score.
        items: Scored items.
        unreadable: Items whose answer could not be read; they count as wrong.
    """

    value: float | None
    chance: float | None
    continuous: float | None
    items: int
    unreadable: int


def summary(axis: Axis, records: Sequence[Record]) -> Summary:
    """Levels and subsets count alike, however many items they have; subsets outside `axis.primary` do not count."""
    counted = [record for record in records if not axis.primary or record.subset in axis.primary]
    cells: dict[tuple[str, float], list[Record]] = defaultdict(list)
    for record in counted:
        cells[record.subset, record.level].append(record)

    def over_cells(field: str) -> float | None:
        means = [fmean(getattr(record, field) for record in cell) for cell in cells.values()]
        value = fmean(means) if means else math.nan
        return value if math.isfinite(value) else None

    unreadable = sum(not record.readable for record in counted)
    return Summary(over_cells("score"), over_cells("chance"), over_cells("continuous"), len(counted), unreadable)
