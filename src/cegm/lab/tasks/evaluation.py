"""`cegm evaluate`: a model is examined on one axis after the other; what cannot be measured is said, and the rest goes on.

OUTPUT_DIR/evaluation.json   what was examined on what, and for each axis its state, seconds, tokens, warnings and sets
OUTPUT_DIR/axes/NAME.parquet one row per item of a finished axis; an interrupted evaluation goes on behind them
OUTPUT_DIR/items.parquet     all of them

No heavy import here: the command line reads this file to print its help.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import msgspec

from cegm import MEANING
from cegm.columns import aligned
from cegm.durable import write_whole
from cegm.lab.declarations import Declared, option
from cegm.lab.records import Evaluation, Examined
from cegm.lab.strict import json_object, parquet_table
from cegm.lab.tasks.axis import Axis
from cegm.lab.tasks.items import WORLD, NotMeasured, Record, Source, form_of
from cegm.lab.train.contents import model_hash, sets_hash

if TYPE_CHECKING:
    from cegm.lab.tasks.examinee import Examinee

COLUMNS = ("axis", "paper", "measure", "value", "chance", "items")
NONE = "\N{EN DASH}"


@dataclass
class EvaluateConfig(Declared):
    """One evaluation. Every field is a flag of `cegm evaluate`.

    Raises:
        ValueError: In one line, for anything that could not run.
    """

    model_name_or_path: str = option("", "local folder, GGUF file or hub name of a causal language model, or smollm2")
    axes: str = option("all", "axes of the paper, comma-separated")
    data: str = option(WORLD, "world (the generated forms), or a folder of public sets (docs/axes.md)")
    items: int = option(128, "items per level of an axis; with minutes at most so many", low=1)
    minutes: float | None = option(
        None, "ask as many items per level as take so long; evaluation.json says how many", low=0.0, above=True
    )
    lengths: str = option("", "tokens of the contexts of retention, comma-separated [512,1024,2048,4096,8192]")
    seed: int = option(0, "draws the items; the same for all models that are to be compared")
    batch_size: int = option(16, "rows per pass; changes no result", low=1)
    output_dir: str = option("runs/evaluation", "where items and states go; an interrupted examination goes on there")
    trust_remote_code: bool = option(False, "run code that a hub model brings along")

    def __post_init__(self) -> None:
        if not self.model_name_or_path:
            raise ValueError("which model? give a local folder or a hub name: cegm evaluate runs/mine/model")
        super().__post_init__()
        if self.data != WORLD and not Path(self.data).is_dir():
            raise ValueError(f"data {self.data} is no folder; give 'world' or a folder of public sets (docs/axes.md)")
        self.context_lengths  # noqa: B018  # raises

    @property
    def context_lengths(self) -> tuple[int, ...]:
        """What `lengths` names, rising; none where it is empty."""
        parts = [part.strip() for part in self.lengths.split(",") if part.strip()]
        if not all(part.isdecimal() and int(part) for part in parts):
            raise ValueError(f"lengths={self.lengths!r} is no list of tokens, such as 512,2048")
        return tuple(sorted({int(part) for part in parts}))


@dataclass(frozen=True)
class Outcome:
    """What became of one axis.

    Attributes:
        axis: Its name.
        records: Its items; none when it was not measured.
        reason: Why it was not measured; empty when it was.
        warnings: What was left out of it.
        seconds: How long it took.
        tokens: Tokens that the examinee read for it, padding left out; None where it does not count them, as of students
            that study a domain.
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


def evaluate(config: EvaluateConfig) -> tuple[list[tuple[Axis, Outcome]], Path]:
    """Loads the model, measures the axes and writes everything into the folder, which is returned after what became of each axis."""
    from cegm.lab.tasks.axes import chosen
    from cegm.lab.tasks.effort import counted, pace
    from cegm.lab.tasks.examinee import Examinee
    from cegm.lab.tasks.timetable import Timetable, Watch
    from cegm.lab.train.model import load_trained, weights_hash
    from cegm.lab.train.prepare import quieten

    quieten()
    axes, name, folder = chosen(config.axes), config.model_name_or_path, Path(config.output_dir)
    lengths, facts = config.context_lengths, dict[str, Any](meaning=MEANING)
    if lengths:
        axes, facts["lengths"] = [_at(axis, lengths) for axis in axes], list(lengths)
    model, tokenizer = load_trained(name, config.trust_remote_code)
    facts |= {"model": model_hash(name) or name, "weights": weights_hash(model)}
    examinee = Examinee(model, tokenizer, config.batch_size)
    timetable = Timetable(examinee, axes, config.data, config.seed, pace(model))
    items = config.items
    if config.minutes is not None:
        before = _recorded(folder / "evaluation.json")
        items = (
            before.settings.get("items", config.items)
            if before
            else timetable.items_within(config.minutes, config.items)
        )
    with Watch(axes, timetable.seconds(items), timetable.pace) as watch:
        watch.say(f"{items} items per level: {timetable.told(items)}")
        counted(model, watch.done)
        outcomes = measure_all(
            examinee,
            axes,
            source=config.data,
            items=items,
            seed=config.seed,
            folder=folder,
            facts=facts,
            watch=watch.axis,
        )
        watch.finish()
    return list(zip(axes, outcomes, strict=True)), folder


def _at(axis: Axis, lengths: Sequence[int]) -> Axis:
    """An axis with contexts of these lengths, if it has any."""
    from cegm.lab.tasks import retention

    return replace(axis, measured=partial(retention.measure, lengths=lengths)) if axis.name == retention.NAME else axis


def measure(examinee: Examinee, axis: Axis, source: Source, items: int, seed: int) -> Outcome:
    """One axis for one model; never raises for what is missing or damaged."""
    start, read = time.perf_counter(), examinee.tokens
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            records, reason = axis.examine(examinee, source, items, seed), ""
        except NotMeasured as error:
            records, reason = [], " ".join(str(error).split())
    left_out = tuple(dict.fromkeys(str(each.message) for each in caught if each.category is UserWarning))
    return Outcome(axis.name, records, reason, left_out, time.perf_counter() - start, (examinee.tokens - read) or None)


def measure_all(
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
    """Measures the axes and keeps every result; finished axes of an interrupted evaluation are taken from the folder.

    `facts` decide the results besides source, items and seed: the hash of the model, the meaning of the code. ValueError where the
    folder holds an evaluation of something else, or a damaged one.
    """
    import pandas as pd

    (folder / "axes").mkdir(parents=True, exist_ok=True)
    settings = {**facts, "form": form_of(source), "items": items, "seed": seed}
    states = _states(folder / "evaluation.json", settings)
    outcomes = []
    for number, axis in enumerate(axes):
        watch(axis.title, number)
        path = folder / "axes" / f"{axis.name}.parquet"
        sets = None if source == WORLD else sets_hash(Path(source), axis.sets)
        outcome = _kept(axis, path, states, sets)
        if outcome is None:
            outcome = measure(examinee, axis, source, items, seed)
            write_whole(path, pd.DataFrame([asdict(record) for record in outcome.records]).to_parquet())
            states[axis.name] = Examined(**outcome.state(), sets=sets)
            content = msgspec.to_builtins(Evaluation(settings, states))
            write_whole(folder / "evaluation.json", json.dumps(content, indent=1))
        outcomes.append(outcome)
    rows = [asdict(record) for outcome in outcomes for record in outcome.records]
    write_whole(folder / "items.parquet", pd.DataFrame(rows).to_parquet())
    return outcomes


def _states(path: Path, settings: dict[str, Any]) -> dict[str, Examined]:
    """State of every axis that was measured under these settings."""
    kept = _recorded(path)
    if kept is None:
        return {}
    other = [name for name in {**settings, **kept.settings} if settings.get(name) != kept.settings.get(name)]
    if other:
        raise ValueError(f"{path.parent} holds an evaluation with other {', '.join(other)}; use another output_dir")
    return kept.axes


def _recorded(path: Path) -> Evaluation | None:
    """What `evaluation.json` says, where there is one."""
    if not path.exists():
        return None
    try:
        return msgspec.convert(json_object(path), Evaluation)
    except ValueError:
        raise ValueError(f"{path} is damaged; delete it to examine the model again") from None


def _kept(axis: Axis, path: Path, states: dict[str, Examined], sets: str | None) -> Outcome | None:
    """A finished axis of an interrupted evaluation; one that was not measured, is damaged, or was asked on other sets, is measured again."""
    state = states.get(axis.name)
    try:
        if state is None or state.reason or state.sets != sets or not path.exists():
            return None
        records = [Record(*row) for row in parquet_table(path).itertuples(index=False)]
        return Outcome(axis.name, records, "", state.warnings, state.seconds, state.tokens)
    except (ValueError, TypeError):
        return None


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


def table(outcomes: list[tuple[Axis, Outcome]]) -> str:
    """One row per axis, then what was not measured or left out, as plain text."""
    rows, notes = [COLUMNS], []
    for axis, outcome in outcomes:
        short = summary(axis, outcome.records)
        value, chance = _shown(axis, short.value), _shown(axis, short.chance)
        rows.append((axis.name, axis.paper, axis.measure, value, chance, f"{short.items:,}"))
        if outcome.reason:
            notes.append(f"{axis.name}: not measured: {outcome.reason}")
        notes += [f"{axis.name}: {text}" for text in outcome.warnings]
        if short.unreadable:
            notes.append(f"{axis.name}: {short.unreadable} answers could not be read and count as wrong")
    return "\n".join([*aligned(rows, range(3)), *([""] if notes else []), *notes])


def _shown(axis: Axis, number: float | None) -> str:
    if number is None:
        return NONE
    return f"{100 * number:.1f} %" if axis.unit == "accuracy" else f"{number:.3f}"
