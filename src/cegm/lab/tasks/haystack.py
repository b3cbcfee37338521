"""Facts far apart in long text, and questions about them, in the tokens of one model: what context retention plants and where.

Three sources, each yielding what one context is about; the text between the facts is written anew, from the same beginning, for every length.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from cegm.lab import world
from cegm.lab.tasks.examinee import Question
from cegm.lab.tasks.items import NotMeasured, Source, stable_seed
from cegm.lab.tasks.public import babi
from cegm.lab.tasks.public.documents import novels

BINDINGS = 16
"""Keys and values per context of the first two sources; each is asked once. Reading is what costs, so many questions share it."""

OPTIONS = 4
HEAD, TAIL = 12, 8
"""Tokens of a planted passage's head and tail."""

Tokens = tuple[int, ...]
Writer = Callable[[int], Tokens]
"""Writes the next so many tokens of filler."""


@dataclass(frozen=True)
class Plan:
    """What one context (a cluster of the axis) is about.

    The statements are planted in their order; of the options, which all stand in the context, the right one comes first; `filler`
    begins the text around the statements anew.
    """

    subset: str
    cluster: str
    planted: tuple[Tokens, ...]
    names: tuple[str, ...]
    questions: tuple[Question, ...]
    filler: Callable[[], Writer]

    @property
    def asking(self) -> int:
        """Tokens of the longest question with its longest option."""
        return max(len(question.prompt) + max(map(len, question.options)) for question in self.questions)

    @property
    def least(self) -> int:
        """Tokens without any filler."""
        return sum(map(len, self.planted)) + self.asking

    def context(self, length: int) -> list[int]:
        """`length` tokens: the statements at even distances with filler before, between and behind."""
        gap = (length - self.least + self.asking) / (len(self.planted) + 1)
        if gap < 0:
            raise NotMeasured(
                f"{len(self.planted)} facts in this model's tokens do not fit into {length}; use longer contexts"
            )
        filler = self.filler()
        tokens: list[int] = []
        written = 0
        for index, statement in enumerate(self.planted):
            tokens += filler(round((index + 1) * gap) + written - len(tokens))
            tokens += statement
            written += len(statement)
        return tokens + list(filler(length - len(tokens)))


class WorldFacts:
    """Facts of the embedded world in its filler."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def plan(self, seed: int, number: int) -> Plan:
        """The facts of one context, asked in the order in which they stand."""
        facts = world.draw_facts(random.Random(f"{seed}/{number}/facts"), BINDINGS)
        keys = [encoded(self._tokenizer, *fact.prompt) for fact in facts]
        values = [encoded(self._tokenizer, fact.person) for fact in facts]
        closings = [encoded(self._tokenizer, *fact.words[len(fact.prompt) + 1 :]) for fact in facts]
        planted = [key + value + closing for key, value, closing in zip(keys, values, closings, strict=True)]
        filler = f"{seed}/{number}/filler"
        return _bound("", seed, number, planted, keys, values, lambda: self._filler(random.Random(filler)))

    def _filler(self, rng: random.Random) -> Writer:
        def write(tokens: int) -> Tokens:
            written: Tokens = ()
            while len(written) < tokens:
                written += encoded(self._tokenizer, *world.filler(rng))
            return written[len(written) - tokens :] if tokens > 0 else ()

        return write


class Passages:
    """Passages of text, a head and a tail each, in other text of the same kind.

    Head and tail come from different places: a natural continuation could be guessed by knowing the language, without the context.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], longest: int) -> None:
        self._tokens = _enough(tokenizer, texts, longest, longest + 2 * BINDINGS * (HEAD + TAIL))
        self._seen = Counter(self._gram(start, HEAD) for start in range(len(self._tokens) - HEAD + 1))

    def plan(self, seed: int, number: int) -> Plan:
        """Heads and tails of one context, bound at random, in the text without them."""
        rng = random.Random(f"{seed}/{number}/passages")
        heads, tails = self._spans(rng)
        taken = {start + i for start in heads + tails for i in range(HEAD + TAIL)}
        rest = [token for place, token in enumerate(self._tokens) if place not in taken]
        beginning = rng.randrange(len(rest))
        keys, values = [self._gram(head, HEAD) for head in heads], [self._gram(tail, TAIL) for tail in tails]
        planted = [key + value for key, value in zip(keys, values, strict=True)]
        return _bound("passages", seed, number, planted, keys, values, lambda: running(rest, beginning))

    def _spans(self, rng: random.Random) -> tuple[list[int], list[int]]:
        """Places of the heads, each found once in the whole text so that it names one passage, and of different tails elsewhere."""
        places = list(range(0, len(self._tokens) - HEAD - TAIL + 1, HEAD + TAIL))
        rng.shuffle(places)
        heads = [place for place in places if self._seen[self._gram(place, HEAD)] == 1][:BINDINGS]
        tails = {self._gram(place, TAIL): place for place in places if place not in heads}
        if len(heads) < BINDINGS or len(tails) < BINDINGS:
            raise NotMeasured(
                f"the held-out text repeats itself: fewer than {BINDINGS} different passages; hold out other text"
            )
        return heads, rng.sample(list(tails.values()), BINDINGS)

    def _gram(self, start: int, size: int) -> Tokens:
        return tuple(self._tokens[start : start + size])


class Stories:
    """Stories of bAbI qa1 in novels (as in BABILong, arXiv 2406.10149): who went where, with pages in between.

    Sentences of the novels that name a person or place of the stories are left out. Asked is where each person is at the end of the story,
    whether the set asks for that one or not, so that several questions share one context; options are all places.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: Source, seed: int, longest: int) -> None:
        self._tokenizer, self._seed = tokenizer, seed
        questions = babi.read(source, 1)
        self._places = babi.answers(questions)
        self._last = {question.story: question for question in questions}  # of each story
        names = {statement.split()[0] for question in questions for statement in question.statements}
        keys = {word.lower() for word in (*names, *self._places)}
        texts = (without(text, keys) for text in novel_texts(source, seed))
        self._tokens = _enough(tokenizer, texts, longest, longest)

    def plans(self, items: int) -> list[Plan]:
        """Contexts with `items` questions all together, rounded up to whole ones, or all there are."""
        rng = random.Random(stable_seed("retention", "babi", self._seed))
        plans, asked = [], 0
        for story in rng.sample(list(self._last), len(self._last)):
            beginning = rng.randrange(len(self._tokens))
            questions = self._asked(self._last[story])
            if questions and asked < items:
                plans.append(self._plan(story, questions, beginning))
                asked += len(questions)
        return plans

    def _asked(self, last: babi.Question) -> list[babi.Question]:
        """Where each person is when the last question of a story is asked."""
        places: dict[str, str] = {}
        for statement in last.statements:
            person, *_, place = statement.removesuffix(".").split()
            places[person] = place
        return [
            replace(last, name=f"{last.story}-{person}", text=f"Where is {person}?", answer=place)
            for person, place in places.items()
            if place in self._places
        ]

    def _plan(self, story: str, questions: Sequence[babi.Question], beginning: int) -> Plan:
        planted = tuple(encoded(self._tokenizer, each) for each in questions[0].statements)
        asked = tuple(
            Question(
                encoded(self._tokenizer, question.text, "Answer:"),
                tuple(encoded(self._tokenizer, option.strip()) for option in babi.options(question, self._places)),
            )
            for question in questions
        )
        names = tuple(question.name for question in questions)
        return Plan("babi", f"babi-{story}", planted, names, asked, lambda: running(self._tokens, beginning))


def encoded(tokenizer: PreTrainedTokenizerBase, *words: str) -> Tokens:
    """Words in running text: the space in front is part of a word for tokenizers that cut by bytes; one token per word ignores it."""
    return tuple(tokenizer(" " + " ".join(words), add_special_tokens=False)["input_ids"])


def running(tokens: Sequence[int], beginning: int) -> Writer:
    """Running text from `beginning` on, continued at its start when it ends."""
    position = beginning

    def write(count: int) -> Tokens:
        nonlocal position
        written = tuple(tokens[(position + i) % len(tokens)] for i in range(max(count, 0)))
        position += len(written)
        return written

    return write


def novel_texts(source: Source, seed: int) -> Iterator[str]:
    """The novels of the home text, in an order that the seed decides."""
    documents = novels(source)
    for novel in random.Random(stable_seed("novels", seed)).sample(documents, len(documents)):
        yield novel.read()


def without(text: str, words: Set[str]) -> str:
    """The text without the sentences that have one of the words (in lower case)."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    return " ".join(each for each in sentences if words.isdisjoint(re.findall(r"[^\W_]+", each.lower())))


def _bound(
    subset: str,
    seed: int,
    number: int,
    planted: list[Tokens],
    keys: list[Tokens],
    values: list[Tokens],
    filler: Callable[[], Writer],
) -> Plan:
    """A plan that asks every key once; the other options are other values."""
    rng = random.Random(f"{seed}/{number}/options")
    questions = []
    for key, value in zip(keys, values, strict=True):
        others = [other for other in values if other != value]
        questions.append(Question(key, (value, *rng.sample(others, OPTIONS - 1))))
    names = tuple(f"{number}-{index}" for index in range(len(questions)))
    cluster = f"{subset}-{number}" if subset else str(number)
    return Plan(subset, cluster, tuple(planted), names, tuple(questions), filler)


def _enough(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], longest: int, needed: int) -> list[int]:
    """Tokens of the first texts, eight times as many as the longest context has if there are; `needed` at the least."""
    enough = 8 * longest
    tokens: list[int] = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise NotMeasured(
                f"held-out document {index} is a {type(text).__name__}, context retention needs plain text; hold out text"
            )
        # A token is rarely more than 40 characters, and a whole library need not be read.
        tokens += tokenizer(text[: 40 * enough], add_special_tokens=False, verbose=False)["input_ids"]
        if len(tokens) > enough:
            break
    if len(tokens) < needed:
        raise NotMeasured(
            f"the held-out text has {len(tokens)} tokens, context retention at {longest} needs {needed}; "
            "hold out more text or use shorter lengths"
        )
    return tokens[:enough]
