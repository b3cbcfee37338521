"""The axes as tasks of the language model evaluation harness (arXiv 2405.14782): files for its `--include_path`, without code of ours.

    python -m cegm.lab.tasks.harness tasks/ --axes ambiguity,noise --items 128
    lm_eval --model hf --model_args pretrained=MODEL,dtype=float32 --include_path tasks/ --tasks cegm

Every cell of an axis (a subset at a level) is one task, every axis a group whose accuracy is the mean over its cells, as in `cegm evaluate`, and
`cegm` is all of them. In the files the right option stands at a place drawn by the seed. docs/lm_eval.md tells what agrees and what does not.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cegm.lab import streams
from cegm.lab.tasks.axes import AXES, chosen
from cegm.lab.tasks.axis import ChoiceAxis
from cegm.lab.tasks.items import WORLD, Item, NotMeasured, Source, form_of, stable_seed

QUESTIONS: dict[str, Callable[[Source, int, int], list[Item]]] = {
    name: axis.questions for name, axis in AXES.items() if isinstance(axis, ChoiceAxis)
}
"""Axes that are answered by options -> what they ask."""

PLAIN, TAIL, BYTES = "options", "contexts", "per byte"
"""How the harness scores a task: an option after the context, the same tail after each context, an option by its bytes."""


@dataclass(frozen=True)
class Task:
    """What one pair of files holds: all items of one subset and one level that are scored in one way."""

    name: str
    way: str
    items: tuple[Item, ...]

    @property
    def metric(self) -> str:
        """The one that agrees with the axis."""
        return "acc_bytes" if self.way == BYTES else "acc"


@dataclass(frozen=True)
class Exported:
    """Names of the tasks that were written, by axis, and what was left out and why."""

    tasks: dict[str, list[str]]
    notes: tuple[str, ...]


def export(folder: Path, axes: Sequence[str], source: Source, items: int, seed: int) -> Exported:
    """Writes tasks, their data and their groups into a new folder; ValueError where it holds something, or nothing can be asked.

    The tasks name their data by its absolute path: move the folder and they are lost.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; give a new one, old tasks would stay among the new")
    written: dict[str, list[str]] = {}
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for axis in axes:
            try:
                cells = tasks(axis, QUESTIONS[axis](source, items, seed))
            except NotMeasured as error:
                notes.append(f"{axis} was not written: {error}")
                continue
            _write_axis(folder, axis, cells, source, seed)
            written[axis] = [task.name for task in cells]
    if not written:
        raise ValueError("; ".join(notes))
    _write_yaml(folder / "cegm.yaml", {"group": "cegm", "task": [f"cegm_{axis}" for axis in written]})
    warned = dict.fromkeys(str(each.message) for each in caught if each.category is UserWarning)
    return Exported(written, (*notes, *warned))


def tasks(axis: str, items: Sequence[Item]) -> list[Task]:
    """One task for every cell; two where a cell is scored in two ways."""
    cells: dict[tuple[str, float], dict[str, list[Item]]] = {}
    for item in items:
        cells.setdefault((item.subset, item.level), {}).setdefault(_way(item), []).append(item)
    levels = {item.level for item in items}
    digits = max(len(str(int(level))) for level in levels)  # so that names sort as levels do
    named = []
    for (subset, level), ways in cells.items():
        for way, members in ways.items():
            shown = f"level {int(level):0{digits}}{f'{level % 1:g}'[1:]}" if len(levels) > 1 else ""
            parts = [subset, shown, way if len(ways) > 1 else ""]
            words = [f"cegm {axis}", *filter(None, parts)]
            name = re.sub(r"[^a-z0-9]+", "_", " ".join(words).lower())
            named.append(Task(name if len(words) > 1 else f"{name}_all", way, tuple(members)))
    assert len({task.name for task in named}) == len(named), "two tasks of one name"
    return named


def document(axis: str, item: Item, source: Source, seed: int) -> dict[str, Any]:
    """A line of data: where the item belongs, and what is asked with the right option at a place drawn by the seed."""
    places = list(range(len(item.choice.options)))
    random.Random(stable_seed("places", axis, seed, item.subset, item.level, item.item)).shuffle(places)
    options = [item.choice.options[place] for place in places]
    return {
        "axis": axis,
        "form": form_of(source),
        "subset": item.subset,
        "level": float(item.level),
        "item": item.item,
        "cluster": item.cluster,
        "label": places.index(0),
        **(
            {"contexts": [item.choice.context + option for option in options], "tail": item.choice.tail}
            if item.choice.tail
            else {"context": item.choice.context, "options": options}
        ),
    }


def _way(item: Item) -> str:
    if item.choice.tail:
        assert not item.per_byte, "a tail is the same after every option"
        return TAIL
    return BYTES if item.per_byte else PLAIN


def _write_axis(folder: Path, axis: str, cells: Sequence[Task], source: Source, seed: int) -> None:
    (folder / axis).mkdir(parents=True)
    for task in cells:
        data = (folder / axis / f"{task.name}.jsonl").resolve()
        lines = (json.dumps(document(axis, item, source, seed), ensure_ascii=False) for item in task.items)
        data.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        _write_yaml(folder / axis / f"{task.name}.yaml", _settings(task, data))
    group: dict[str, Any] = {"group": f"cegm_{axis}", "task": [task.name for task in cells]}
    metrics = {task.metric for task in cells}
    if len(metrics) == 1:  # a mean over different metrics would be none of the axis
        group["aggregate_metric_list"] = [{"metric": metrics.pop(), "aggregation": "mean", "weight_by_size": False}]
    _write_yaml(folder / axis / f"cegm_{axis}.yaml", group)


def _settings(task: Task, data: Path) -> dict[str, Any]:
    """Names of columns stand where templates could, so that no text is ever taken for a template."""
    asked = (
        # A whole number for a text tells the harness that contexts differ and what follows is the same.
        {"doc_to_text": "label", "doc_to_choice": "contexts", "doc_to_target": "tail"}
        if task.way == TAIL
        else {"doc_to_text": "context", "doc_to_choice": "options", "doc_to_target": "label"}
    )
    return {
        "task": task.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        **asked,
        "target_delimiter": "",  # options and tails bring their own white space
        "num_fewshot": 0,
        "metric_list": [{"metric": task.metric, "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000), encoding="utf-8")


def _chosen(names: str) -> list[str]:
    axes = chosen(",".join(QUESTIONS) if names == "all" else names)
    for axis in axes:
        if axis.name not in QUESTIONS:
            raise ValueError(f"axis {axis.name!r} cannot be a task: {axis.no_task}")
    return [axis.name for axis in axes]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the tasks that a command line asks for; 0 when done, 2 when the user has to change something."""
    with streams.readable():
        return _write(arguments)


def _write(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cegm.lab.tasks.harness", description="Write the axes as tasks.")
    parser.add_argument("folder", type=Path, help="new folder, for --include_path of lm_eval")
    parser.add_argument("--axes", default="all", help=f"comma-separated: {', '.join(QUESTIONS)} [all]")
    parser.add_argument("--data", default=WORLD, help="world (the generated forms), or a folder of public sets [world]")
    parser.add_argument("--items", type=int, default=128, help="items per level of an axis [128]")
    parser.add_argument("--seed", type=int, default=0, help="draws the items and the places of the right options [0]")
    known = parser.parse_args(arguments)
    try:
        if known.items < 1:
            raise ValueError(f"items={known.items} must be at least 1")
        if known.data != WORLD and not Path(known.data).is_dir():
            raise ValueError(f"data {known.data} is no folder; give 'world' or a folder of public sets")
        done = export(known.folder, _chosen(known.axes), known.data, known.items, known.seed)
    except (ValueError, OSError) as error:
        print(f"cegm: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for note in done.notes:
        print(note, file=sys.stderr)
    count = sum(map(len, done.tasks.values()))
    print(f"{count} tasks of {len(done.tasks)} axes; run them with: lm_eval --include_path {known.folder} --tasks cegm")
    return 0


if __name__ == "__main__":
    sys.exit(main())
