"""Robustness to noise: accuracy when 0 to 40 % of the content words of a text are altered (the paper's table III).

- *Generated*: recall questions of the embedded world; words are replaced by others of its vocabulary, swapped
  with a neighbour, dropped, or pushed aside by one more word.
- *Real*: bAbI qa1 and qa2 (arXiv 1502.05698); words get a keyboard neighbour, a swap, a drop, an OCR confusion or a real misspelling
  (Belinkov & Bisk 2018, arXiv 1711.02173).

Noise is nested: what is altered at 10 % is altered in the same way at 20 %. Every question is asked under three noise seeds, and they are
one cluster. Shares are of all content words, of which some stay intact; the few stories that have not enough others are not asked about.

Traps: the answer, the other options and the words of the question keep their letters (in the generated form not always their places). If the
right answer alone did, noise would give it away: it would be the only option still spelled right. A share of words says little about how
much of a text is gone: at 40 %, a quarter of the characters of the generated form are others, and 5 % of the real one's.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from cegm.lab import world
from cegm.lab.tasks.alterations import MARKS, Alteration, altered, content, exchanged, mistaken
from cegm.lab.tasks.axis import ChoiceAxis
from cegm.lab.tasks.items import Choice, Item, NotMeasured, Source, form_of, spread, stable_seed
from cegm.lab.tasks.public import babi
from cegm.lab.tasks.public.reading import damaged, json_of, public, text_of

NAME = "noise"
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
NOISE_SEEDS = 3
TASKS = (1, 2)
"""Tasks of bAbI that are asked: short stories with little else in them than facts."""


@dataclass(frozen=True)
class Case:
    """A question whose text can be altered.

    `words` are what noise may touch, `question` follows them and stays as it is, and `alterations` are for every noise seed all
    alterations in the order in which they come. The right option comes first.
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
        choice = Choice(f"{self.text(noise_seed, share)} {self.question}", self.options)
        return Item(choice, self.subset, f"{self.name}-{noise_seed}", f"{self.subset}-{self.name}", share)

    def _count(self, share: float) -> int:
        return round(share * len(content(self.words)))


def cases(source: Source, items: int, seed: int) -> list[Case]:
    """Questions of either form, each with its noise; `items` at every share, rounded up to whole questions."""
    count = -(-items // NOISE_SEEDS)
    if form_of(source) == "generated":
        return [_recall(index, seed) for index in range(count)]
    mistakes = read_mistakes(source)
    return [case for task in TASKS for case in _stories(source, task, count, seed, mistakes)]


def noisy(source: Source, items: int, seed: int) -> list[Item]:
    """Every case under every noise seed and share."""
    return [
        case.item(noise_seed, share)
        for case in cases(source, items, seed)
        for noise_seed in range(NOISE_SEEDS)
        for share in SHARES
    ]


def _recall(index: int, seed: int) -> Case:
    exam = world.recall_exam(random.Random(stable_seed(NAME, seed, index)))
    facts, _, question = exam.context.rpartition(" . ")
    words = (*facts.split(" "), ".")
    draw = partial(exchanged, words, exam.protected, world.vocabulary())
    return Case("", str(index), words, question, exam.options, _noises(draw, seed, index))


def _stories(source: Source, task: int, count: int, seed: int, mistakes: Mistakes) -> list[Case]:
    questions = babi.read(source, task)
    known = babi.answers(questions)
    rng = random.Random(stable_seed(NAME, task, seed))
    shuffled = spread([questions], len(questions), rng)
    drawn = (_story(question, babi.options(question, known), mistakes, seed) for question in shuffled)
    return list(islice((case for case in drawn if case.reaches), count))


def _story(question: babi.Question, options: tuple[str, ...], mistakes: Mistakes, seed: int) -> Case:
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


@dataclass(frozen=True)
class Mistakes:
    """What can go wrong with a word: its misspellings, and what its letters are mistaken for by fingers and by scanners."""

    spelling: Mapping[str, tuple[str, ...]]
    keyboard: Mapping[str, tuple[str, ...]]
    scanned: Mapping[str, tuple[str, ...]]

    def wrong(self, word: str, rng: random.Random) -> str:
        """A word (of at least two different letters) with one mistake, of a kind drawn evenly from those that can befall it."""
        possible = [
            list(self.spelling.get(word, ())),
            _replaced(word, self.keyboard),
            _replaced(word, self.scanned),
            [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)],
            [word[:i] + word[i + 1 :] for i in range(len(word))],
        ]
        kinds = [kind for each in possible if (kind := [other for other in each if other.lower() != word.lower()])]
        return rng.choice(rng.choice(kinds))


def read_mistakes(source: Source) -> Mistakes:
    """Real ways of getting English words wrong, as nlpaug (MIT) has them.

    Layout: `noise_en/nlpaug/res/word/spelling/spelling_en.txt`, a line per word, `word misspelling misspelling ...`; and
    `noise_en/nlpaug/res/char/keyboard/en.json` and `.../char/ocr/en.json`, character to characters. Known defects: some words
    have several lines, which are joined; the keyboard lists a letter among its own neighbours, and a space before another; some
    misspellings are the word itself in other case. Those are dropped; only letters replace letters.
    """
    folder = public(source, "noise_en", "nlpaug", "res")
    spelling: dict[str, tuple[str, ...]] = {}
    path = public(folder, "word", "spelling", "spelling_en.txt")
    for place, line in enumerate(text_of(path).splitlines(), 1):
        word, *wrong = line.split() or [""]
        if not wrong:
            raise damaged(path, place, "no word with a misspelling")
        spelling[word] = (*spelling.get(word, ()), *wrong)
    return Mistakes(spelling, *(_letters(public(folder, "char", kind, "en.json")) for kind in ("keyboard", "ocr")))


def _letters(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        return {
            letter: kept
            for letter, others in json_of(path).items()
            if letter.isalpha() and (kept := tuple(o.strip() for o in others if o.strip().isalpha() and o != letter))
        }
    except (AttributeError, TypeError):
        raise NotMeasured(f"{path} is no table of characters; fetch the file again") from None


def _replaced(word: str, table: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The word with one letter replaced, in all ways that the table knows."""
    return [word[:i] + other + word[i + 1 :] for i, letter in enumerate(word) for other in table.get(letter, ())]


AXIS = ChoiceAxis(
    name=NAME,
    title="Robustness to noise",
    paper="Table III",
    measure="share of questions whose right answer is strictly the most likely option, by share of altered words",
    level="share of content words altered",
    control="guessing gets one over the number of options at every share; the place named last .53 in qa1, .40 in qa2",
    sets=("babi", "noise_en"),
    generated=partial(noisy, "world"),
    real=lambda source, items, seed: {"babi": partial(noisy, source, items, seed)},
)
