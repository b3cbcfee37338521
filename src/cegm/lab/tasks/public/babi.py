"""bAbI, 20 toy tasks of question answering (Weston et al. 2015, arXiv 1502.05698), version 1.2, English; CC BY 3.0.

Layout: `babi/tasks_1-20_v1-2/en/qaN_NAME_test.txt`. A line is `ID statement.` or `ID question?<TAB>answer<TAB>supporting IDs`; IDs count
from 1 in every story. Known defect: a copy in circulation has `|` instead of the tabs in its qa1 files, so both are read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cegm.lab.tasks.items import Choice, Item, NotMeasured, Source
from cegm.lab.tasks.public.reading import damaged, lines_of, public

TASKS = range(1, 21)
SETS = 8
"""The task whose answers are sets: their order means nothing."""

_LINE = re.compile(r"(\d+) (\S.*)")


@dataclass(frozen=True)
class Question:
    """A question, all that its story has told so far, and its answer, in which commas separate lists; its name is story and line."""

    task: int
    name: str
    story: str
    statements: tuple[str, ...]
    text: str
    answer: str

    @property
    def context(self) -> str:
        """Story, question and a cue, up to the space before the answer."""
        return " ".join((*self.statements, self.text, "Answer:"))


def read(source: Source, task: int) -> list[Question]:
    """All questions of a task's test file."""
    folder = public(source, "babi", "tasks_1-20_v1-2", "en")
    paths = sorted(folder.glob(f"qa{task}_*_test.txt"))
    if len(paths) != 1:
        raise NotMeasured(f"{folder} has {len(paths)} files qa{task}_*_test.txt instead of one; fetch the set again")
    (path,) = paths
    questions: list[Question] = []
    statements: dict[int, str] = {}  # by ID
    stories = last = 0
    for place, line in enumerate(lines_of(path), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise damaged(path, place, "no `ID text`")
        number, rest = int(match[1]), match[2]
        if number == 1:
            stories, statements = stories + 1, {}
        elif number != last + 1:
            raise damaged(path, place, f"ID {number} after ID {last}")
        last = number
        cells = re.split(r"\t|\|", rest)
        if len(cells) == 1 and rest.endswith("."):
            statements[number] = rest
        else:
            text, answer = _answered(path, place, cells, statements.keys())
            name = f"{stories}-{number}"
            questions.append(Question(task, name, str(stories), tuple(statements.values()), text, answer))
    if not questions:
        raise NotMeasured(f"{path} has no question; fetch the file again")
    return questions


def _answered(path: Path, place: int, cells: list[str], statements: Collection[int]) -> tuple[str, str]:
    """Question and answer, which name supporting statements before them."""
    if len(cells) != 3 or not cells[0].strip().endswith("?") or not cells[1].strip():
        raise damaged(path, place, "neither a statement nor question, answer and supports between tabs or `|`")
    if not {*cells[2].split()} <= {*map(str, statements)}:
        raise damaged(path, place, f"supports {cells[2]!r} that name no earlier statement")
    return cells[0].strip(), cells[1].strip()


def items(source: Source, task: int, level: float = 0.0) -> list[Item]:
    """All questions of a task; options are all answers of the task, a cluster is a story."""
    questions = read(source, task)
    known = answers(questions)
    return [
        Item(Choice(q.context, options(q, known)), "babi", f"qa{task}-{q.name}", f"qa{task}-{q.story}", level)
        for q in questions
    ]


def answers(questions: Sequence[Question]) -> tuple[str, ...]:
    """All different answers, sorted."""
    return tuple(sorted({question.answer for question in questions}))


def options(question: Question, known: Sequence[str]) -> tuple[str, ...]:
    """The right answer, then all other known ones, each with a space in front.

    A list in another order is no wrong answer and left out where order means nothing. Where answers are lists, all options end in a full
    stop: else `football` could never be less likely than `football, apple`, which begins with it.
    """
    others = [each for each in known if each != question.answer]
    if question.task == SETS:
        others = [each for each in others if sorted(each.split(",")) != sorted(question.answer.split(","))]
    stop = "." if any("," in each for each in known) else ""
    return tuple(f" {each.replace(',', ', ')}{stop}" for each in (question.answer, *others))
