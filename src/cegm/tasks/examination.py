"""`cegm evaluate`: a model sits the axes, and a table tells what came of it."""

from __future__ import annotations

from pathlib import Path

from cegm import MEANING
from cegm.aligned import aligned
from cegm.tasks.axis import Axis
from cegm.tasks.config import EvaluateConfig
from cegm.tasks.evaluation import Outcome, evaluate, summary

COLUMNS = ("axis", "paper", "measure", "value", "chance", "items")
NONE = "\N{EN DASH}"


def examine(config: EvaluateConfig) -> tuple[list[tuple[Axis, Outcome]], Path]:
    """Loads the model, measures the axes and writes everything into the folder.

    Returns:
        Every axis with what became of it, and the folder.

    Raises:
        ValueError: No such model or axis, or a folder that holds something else.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from cegm.tasks.axes import chosen
    from cegm.tasks.examinee import Examinee
    from cegm.train.config import RunConfig
    from cegm.train.contents import model_hash
    from cegm.train.model import load_model, load_tokenizer, weights_hash
    from cegm.train.prepare import quieten

    quieten()
    axes = chosen(config.axes)
    run = RunConfig(
        model_name_or_path=config.model_name_or_path, max_length=2, trust_remote_code=config.trust_remote_code
    )
    if run.is_fresh:
        raise ValueError(
            f"{config.model_name_or_path!r} has random weights; train it first: cegm train --output_dir runs/mine"
        )
    tokenizer = load_tokenizer(run)
    model = load_model(run, tokenizer)
    name = config.model_name_or_path
    facts = {"model": model_hash(name) or name, "weights": weights_hash(model), "meaning": MEANING}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed} of {task.total} axes"),
    )
    folder = Path(config.output_dir)
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("starting", total=len(axes))
        outcomes = evaluate(
            Examinee(model, tokenizer, config.batch_size),
            axes,
            source=config.data,
            items=config.items,
            seed=config.seed,
            folder=folder,
            facts=facts,
            watch=lambda title, number: progress.update(task, description=title, completed=number),
        )
        progress.update(task, description="done", completed=len(axes))
    return list(zip(axes, outcomes, strict=True)), folder


def table(found: list[tuple[Axis, Outcome]]) -> str:
    """One row per axis, then what was not measured or left out, as plain text."""
    rows, notes = [COLUMNS], []
    for axis, outcome in found:
        own = summary(axis, outcome.records)
        rows.append(
            (axis.name, axis.paper, axis.measure, shown(axis, own.value), shown(axis, own.chance), f"{own.items:,}")
        )
        if outcome.reason:
            notes.append(f"{axis.name}: not measured: {outcome.reason}")
        notes += [f"{axis.name}: {text}" for text in outcome.warnings]
        if own.unreadable:
            notes.append(f"{axis.name}: {own.unreadable} answers could not be read and count as wrong")
    return "\n".join([*aligned(rows, range(3)), *([""] if notes else []), *notes])


def shown(axis: Axis, number: float | None) -> str:
    """A value of an axis as a table shows it."""
    if number is None:
        return NONE
    return f"{100 * number:.1f} %" if axis.unit == "accuracy" else f"{number:.3f}"
