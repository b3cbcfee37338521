"""BIG-Bench Hard, 27 files of at most 250 questions (Suzgun et al. 2022, arXiv 2210.09261); MIT. Never for training: the files carry a canary.

Layout: `bbh/bbh/TASK.json` with `examples`, each `input` and `target`. Options, where there are any, stand below `Options:` as `(A) text` with a
letter as target, or as `- text` with the text as target.

Every answer is scored as a text after the question, and the list of options is left out (the cloze form): a small model does not know that
a letter stands for a text, and would be at chance for that reason alone (OLMES, Gu et al. 2024, arXiv 2406.08446, asks such models in this
form). Texts differ in length, so they are compared per byte; closed sets such as Yes and No as they are.

Known defects: five questions of movie_recommendation, ruin_names and snarks have options that were split at commas, are equal, or are one
only. They have no right answer among different ones, and are left out. Left out too are the four tasks without options (`FREE`), 1,000
questions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegm.lab.tasks.items import Choice, Item, NotMeasured, Source
from cegm.lab.tasks.public.reading import json_of, public

FREE = ("dyck_languages", "multistep_arithmetic_two", "object_counting", "word_sorting")
"""Tasks that are answered by writing: they have no options."""

UNLISTED = {
    "boolean_expressions": ("True", "False"),
    "sports_understanding": ("yes", "no"),
    "web_of_lies": ("Yes", "No"),
}
"""Answers of the tasks that have few and do not list them."""

INSTRUCTED = ("hyperbaton", "snarks")
"""Tasks whose questions share one instruction and differ in their options only."""

_LISTED = re.compile(r"\(([A-Z])\) ?(.*)")


@dataclass(frozen=True)
class Problem:
    """A question without the list of its options, and these, the right one first.

    `number` is its place in the file, from 0; `closed` says that the options are the same for the whole task, such as Yes and No.
    """

    number: int
    text: str
    options: tuple[str, ...]
    closed: bool


def tasks(source: Source) -> list[str]:
    """Names of the tasks that are there and have options, at least one."""
    folder = public(source, "bbh", "bbh")
    names = [path.stem for path in sorted(folder.glob("*.json")) if path.stem not in FREE]
    if not names:
        raise NotMeasured(f"{folder} has no task with options; fetch the set again")
    return names


def read(source: Source, task: str) -> list[Problem]:
    """The questions of one task, without those that have no right answer among different ones."""
    path = public(source, "bbh", "bbh", f"{task}.json")
    content = json_of(path)
    examples = content.get("examples") if isinstance(content, dict) else None
    if not isinstance(examples, list):
        raise NotMeasured(f"{path} has no list of examples; fetch the file again")
    problems = [_problem(path, task, number, example) for number, example in enumerate(examples)]
    return [problem for problem in problems if problem is not None]


def items(source: Source, task: str, subset: str, level: float = 0.0) -> list[Item]:
    """The questions of one task; a cluster is a story, about which several things may be asked."""
    problems = read(source, task)
    first = {_story(task, each): each.number for each in reversed(problems)}
    return [
        Item(
            Choice(each.text + "\nAnswer:" * each.closed, tuple(f" {option}" for option in each.options)),
            subset,
            f"{task}-{each.number}",
            f"{task}-{first[_story(task, each)]}",
            level,
            per_byte=not each.closed,
        )
        for each in problems
    ]


def _story(task: str, problem: Problem) -> str:
    """What a question has in common with others that stand or fall with it."""
    if task in INSTRUCTED:
        return str(problem.number)
    return problem.text.rpartition("At the end")[0] if task.startswith("tracking_") else problem.text


def _problem(path: Path, task: str, number: int, example: Any) -> Problem | None:
    """One question; None where it has no right answer among different ones."""
    try:
        text, _, listed = example["input"].partition("\nOptions:\n")
        target = example["target"].strip()
    except (KeyError, TypeError, AttributeError):
        raise NotMeasured(f"{path}, example {number}: no input and target; fetch the file again") from None
    lines = listed.split("\n") if listed else []
    lettered = [_LISTED.fullmatch(line) for line in lines]
    answers: dict[str, str]
    if lines and all(lettered):
        answers = {f"({match[1]})": match[2].strip() for match in lettered if match}
    elif lines and all(line.startswith("- ") for line in lines):
        answers = {line[2:].strip(): line[2:].strip() for line in lines}
    elif not lines and task in UNLISTED:
        answers = {answer: answer for answer in UNLISTED[task]}
    else:
        raise NotMeasured(f"{path}, example {number}: options that cannot be read; fetch the file again")
    others = [text for key, text in answers.items() if key != target]
    if target not in answers or not others or answers[target] in others:
        return None
    return Problem(number, text.rstrip(), (answers[target], *dict.fromkeys(others)), not all(lettered) or not lines)
