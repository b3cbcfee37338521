"""Robustness to noise: accuracy when 0 to 40 % of the content words of a text are altered (the paper's table III).

- *Generated*: recall questions of the embedded world; words are replaced by others of its vocabulary, swapped
  with a neighbour, dropped, or pushed aside by one more word.
- *Real*: bAbI qa1 and qa2 (arXiv 1502.05698); words get a keyboard neighbour, a swap, a drop, an OCR confusion or a real misspelling
  (Belinkov & Bisk 2018, arXiv 1711.02173).

Noise is nested: what is altered at 10 % is altered in the same way at 20 %. Every question is asked under three noise seeds, and they are
one cluster. Shares are of all content words, of which some stay intact; the few stories that have not enough others are not asked about.

Traps: the answer, the other options and the words of the question keep their letters (in the generated form not always their places). If the
right answer alone did, noise would give it away: it would be the only option still spelled right. A share of words says little about how
much of a text is gone: `achieved_error_rates` tells it in characters.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from statistics import fmean

from cegm import world
from cegm.tasks.alterations import MARKS, Alteration, altered, content, error_rate, exchanged, mistaken
from cegm.tasks.asking import Item, scored, spread
from cegm.tasks.axis import Axis, Record, Source, form_of, stable_seed
from cegm.tasks.examinee import Choice, Examinee
from cegm.tasks.public import babi, noise_en

NAME = "noise"
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
NOISE_SEEDS = 3
TASKS = (1, 2)
"""Of bAbI: short stories with little else in them than facts."""


@dataclass(frozen=True)
class Case:
    """A question whose text can be altered.

    Attributes:
        subset: Part of the axis.
        name: Within the subset.
        words: What noise may touch.
        question: What follows them and stays as it is.
        options: The right one first.
        alterations: For every noise seed, all alterations in the order in which they come.
    """

    subset: str
    name: str
    words: tuple[str, ...]
    question: str
    options: tuple[str, ...]
    alterations: tuple[tuple[Alteration, ...], ...]

    @property
    def reaches(self) -> bool:
        """Whether enough words may be altered for the largest share."""
        return sum(each.size for each in self.alterations[0]) >= self._count(SHARES[-1])

    def text(self, noise_seed: int, share: float) -> str:
        """The words when so large a share of the content words is altered."""
        return altered(self.words, self.alterations[noise_seed], self._count(share))

    def item(self, noise_seed: int, share: float) -> Item:
        """The question under so much noise."""
        text = self.text(noise_seed, share)
        choice = Choice(f"{text} {self.question}", self.options)
        return Item(choice, self.subset, f"{self.name}-{noise_seed}", f"{self.subset}-{self.name}", share)

    def _count(self, share: float) -> int:
        return round(share * len(content(self.words)))


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """A record per question, noise seed and share; `items` at every share, rounded up to whole questions."""
    return scored(examinee, NAME, form_of(source), questions(source, items, seed))


def questions(source: Source, items: int, seed: int) -> list[Item]:
    """All that is asked, whoever answers."""
    return [
        case.item(noise_seed, share)
        for case in cases(source, items, seed)
        for noise_seed in range(NOISE_SEEDS)
        for share in SHARES
    ]


def achieved_error_rates(source: Source, items: int, seed: int) -> dict[tuple[str, float], float]:
    """Mean character error rate of the texts that `measure` asks about, by subset and share; needs no model."""
    rates = defaultdict(list)
    for case in cases(source, items, seed):
        clean = " ".join(case.words)
        for share, noise_seed in product(SHARES, range(NOISE_SEEDS)):
            rates[case.subset, share].append(error_rate(clean, case.text(noise_seed, share)))
    return {key: fmean(values) for key, values in rates.items()}


def cases(source: Source, items: int, seed: int) -> list[Case]:
    """The questions of either form, each with its noise."""
    count = -(-items // NOISE_SEEDS)
    if form_of(source) == "generated":
        return [_generated(index, seed) for index in range(count)]
    mistakes = noise_en.read(source)
    return [case for task in TASKS for case in _told(source, task, count, seed, mistakes)]


def _generated(index: int, seed: int) -> Case:
    exam = world.recall_exam(random.Random(stable_seed(NAME, seed, index)))
    told, _, question = exam.context.rpartition(" . ")
    words = (*told.split(" "), ".")
    draw = partial(exchanged, words, exam.protected, world.vocabulary())
    return Case("", str(index), words, question, exam.options, _noises(draw, seed, index))


def _told(source: Source, task: int, count: int, seed: int, mistakes: noise_en.Mistakes) -> list[Case]:
    questions = babi.read(source, task)
    known = babi.answers(questions)
    rng = random.Random(stable_seed(NAME, task, seed))
    shuffled = spread([questions], len(questions), rng)
    drawn = (_case(question, babi.options(question, known), mistakes, seed) for question in shuffled)
    return list(islice((case for case in drawn if case.reaches), count))


def _case(question: babi.Question, options: tuple[str, ...], mistakes: noise_en.Mistakes, seed: int) -> Case:
    words = tuple(" ".join(question.statements).split(" "))
    kept = f"{question.text} {' '.join(options)}".split()
    protected = frozenset(word.strip(MARKS).lower() for word in kept)
    draw = partial(mistaken, words, protected, mistakes.wrong)
    subset = f"babi-qa{question.task}"
    noises = _noises(draw, seed, subset, question.name)
    return Case(subset, question.name, words, f"{question.text} Answer:", options, noises)


def _noises(draw: partial[list[Alteration]], *names: object) -> tuple[tuple[Alteration, ...], ...]:
    return tuple(
        tuple(draw(rng=random.Random(stable_seed(NAME, *names, noise_seed)))) for noise_seed in range(NOISE_SEEDS)
    )


AXIS = Axis(
    name=NAME,
    title="Robustness to noise",
    paper="Table III",
    measure="share of questions whose right answer is strictly the most likely option, by share of altered words",
    unit="accuracy",
    better="higher",
    level="share of content words altered",
    control="guessing gets one over the number of options at every share; the place named last .53 in qa1, .40 in qa2",
    measured=measure,
    sets=("babi", "noise_en"),
)
