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
from functools import partial
from itertools import groupby
from math import prod

from cegm.lab import world
from cegm.lab.tasks.axis import ChoiceAxis
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import Choice, Item, NotMeasured, Record, Source, form_of, shuffled, stable_seed
from cegm.lab.tasks.public import babi

NAME = "consistency"

WORDINGS = (
    "Where is {who}? {who} is in the",
    "In which room can {who} be found? It is the",
    "Which room is {who} in now? The",
    "Whoever looks for {who} should go to the",
)


def facts(items: int, seed: int) -> list[Item]:
    """Every wording of facts of the world as a question of its own, in a subset by its number, wordings of one fact side by side."""
    questions = []
    for index in range(items):
        exams = world.paraphrased_exam(random.Random(stable_seed(NAME, seed, index)))
        for number, exam in enumerate(exams, start=1):
            choice = Choice(exam.context, exam.options, exam.tail)
            questions.append(Item(choice, f"wording {number}", str(index), exams[0].cluster or str(index)))
    return questions


def rooms(source: Source, items: int, seed: int) -> list[Item]:
    """Questions of bAbI's first task in the same way.

    Raises:
        NotMeasured: The file is missing or malformed, or holds another question than where somebody is.
    """
    asked = babi.read(source, 1)
    known = babi.answers(asked)
    questions = []
    for question in shuffled(asked, NAME, seed)[:items]:
        match = re.fullmatch(r"Where is (\w+)\?", question.text)
        if match is None:
            raise NotMeasured(f"bAbI qa1, story and line {question.name}, asks {question.text!r}; fetch the set again")
        story, options = " ".join(question.statements), babi.options(question, known)
        for number, wording in enumerate(WORDINGS, start=1):
            choice = Choice(f"{story} {wording.format(who=match[1])}", options)
            questions.append(Item(choice, f"wording {number}", question.name, question.story))
    return questions


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """A record per question, which is right where all of its wordings are; a tie is wrong."""
    asked = AXIS.questions(source, items, seed)
    answers = iter(examinee.choose([item.choice for item in asked]))
    records = []
    for name, wordings in groupby(asked, lambda item: item.item):
        first, *_ = same = list(wordings)
        scores = [next(answers) for _ in same]
        worst, chance = min(each[0] - max(each[1:]) for each in scores), prod(1 / len(each) for each in scores)
        records.append(Record(NAME, form_of(source), "", name, first.cluster, 0.0, float(worst > 0), worst, chance))
    return records


AXIS = ChoiceAxis(
    name=NAME,
    title="Semantic consistency",
    paper="Table I",
    measure="share of questions that are answered rightly in every wording",
    control="always the same answer: consistent everywhere, right for one over the number of options",
    sets=("babi",),
    generated=facts,
    real=lambda source, items, seed: {"babi": partial(rooms, source, items, seed)},
    measured=measure,
)
