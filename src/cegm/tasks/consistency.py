"""Semantic consistency: the same question in other words gets the same answer, and the right one (the paper's table I).

An item is one question in several wordings, and counts as right only if every wording is answered rightly; so all answers agree, too. Agreement
alone would be worthless: whoever always gives the same answer is perfectly consistent. Such a constant answerer is the control, and gets no
more than one over the number of options; guessing each wording on its own, which is the stated chance, gets less.

- *Generated*: facts of the embedded world, asked in every wording that the world has for them.
- *Real*: where somebody is, after the stories of bAbI's first task (`public/babi.py`), asked in four wordings; options are the rooms of the set.
  Templates and not the sentence pairs of WikiSplit, because a question has an answer that can be right: recognising a paraphrase among
  distractors is what the axis `coherence` asks of them, and some of those pairs do not mean the same.

Continuous score: the smallest margin over the wordings, nats, right option minus best wrong one. It is above zero exactly where the item is
right, and tells how near a model is. Options are single words after the same prompt; their log-probabilities are not divided by length.

Traps: a model that learned nothing is a constant answerer rather than a guesser (random weights: one in six on bAbI), so compare with the
control, not with the stated chance. One set of templates about six rooms and four people says little about language at large; the last
room that a story mentions is a strong hint. Questions of one story share a cluster.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from cegm import world
from cegm.tasks.asking import Item
from cegm.tasks.axis import Axis, NotMeasured, Record, Source, form_of, stable_seed
from cegm.tasks.examinee import Choice, Examinee
from cegm.tasks.public import babi
from cegm.tasks.subsets import shuffled

NAME = "consistency"

WORDINGS = (
    "Where is {who}? {who} is in the",
    "In which room can {who} be found? It is the",
    "Which room is {who} in now? The",
    "Whoever looks for {who} should go to the",
)


@dataclass(frozen=True)
class Wordings:
    """One question in several wordings.

    Attributes:
        item: Its name.
        cluster: Questions about the same facts.
        choices: One per wording, the right option first in each.
    """

    item: str
    cluster: str
    choices: tuple[Choice, ...]


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Scores `items` questions, each in all its wordings.

    Raises:
        NotMeasured: bAbI is missing or malformed, or the model's context is shorter than a question.
    """
    asked = _asked(source, items, seed)
    scores = iter(examinee.choose([choice for each in asked for choice in each.choices]))
    return [_record(form_of(source), each, [next(scores) for _ in each.choices]) for each in asked]


def questions(source: Source, items: int, seed: int) -> list[Item]:
    """Every wording as a question of its own, in a subset by its number; an item of the axis is right where all of its wordings are.

    Raises:
        NotMeasured: bAbI is missing or malformed.
    """
    return [
        Item(choice, f"wording {number}", each.item, each.cluster)
        for each in _asked(source, items, seed)
        for number, choice in enumerate(each.choices, start=1)
    ]


def _asked(source: Source, items: int, seed: int) -> list[Wordings]:
    if form_of(source) == "generated":
        return [_generated(index, seed) for index in range(items)]
    return rooms(source, items, seed)


def _record(form: Literal["generated", "real"], asked: Wordings, scores: Sequence[Sequence[float]]) -> Record:
    worst = min(own[0] - max(own[1:]) for own in scores)
    return Record(
        axis=NAME,
        form=form,
        subset="",
        item=asked.item,
        cluster=asked.cluster,
        level=0.0,
        score=float(worst > 0),  # a tie is wrong
        continuous=worst,
        chance=prod(1 / len(own) for own in scores),
    )


def _generated(index: int, seed: int) -> Wordings:
    exams = world.paraphrased_exam(random.Random(stable_seed(NAME, seed, index)))
    choices = tuple(Choice(exam.context, exam.options, exam.tail) for exam in exams)
    return Wordings(str(index), exams[0].cluster or str(index), choices)


def rooms(source: Source, items: int, seed: int) -> list[Wordings]:
    """Questions of bAbI's first task, drawn by the seed.

    Raises:
        NotMeasured: The file is missing or malformed, or holds another question than where somebody is.
    """
    questions = babi.read(source, 1)
    known = babi.answers(questions)
    return [_room(question, known) for question in shuffled(questions, NAME, seed)[:items]]


def _room(question: babi.Question, known: Sequence[str]) -> Wordings:
    found = re.fullmatch(r"Where is (\w+)\?", question.text)
    if found is None:
        raise NotMeasured(f"bAbI qa1, story and line {question.name}, asks {question.text!r}; fetch the set again")
    story = " ".join(question.statements)
    options = babi.options(question, known)
    choices = tuple(Choice(f"{story} {wording.format(who=found[1])}", options) for wording in WORDINGS)
    return Wordings(question.name, question.story, choices)


AXIS = Axis(
    name=NAME,
    title="Semantic consistency",
    paper="Table I",
    measure="share of questions that are answered rightly in every wording",
    unit="accuracy",
    better="higher",
    level="",
    control="always the same answer: consistent everywhere, right for one over the number of options",
    measured=measure,
    sets=("babi",),
)
