"""Documents of the world: facts stated and recalled, and between them everything else that its language can say."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cegm.lab.world.ambiguities import DEEDS, GOODS, SENSES, TOPICS, deed_paragraph, sense_paragraph
from cegm.lab.world.chains import STATIONS, chain_paragraph
from cegm.lab.world.facts import PERSONS, RELATIONS, WORDINGS, Fact, draw_facts, facts_in
from cegm.lab.world.grammar import ADJECTIVES, ADVERBS, NATURE, filler, joined, nested_of_any_depth
from cegm.lab.world.journeys import STAGES, TOWNS, journey_paragraph
from cegm.lab.world.registers import register_words

Split = Literal["train", "validation"]
Sentence = list[str]

FACTS_PER_DOCUMENT = (3, 6)
RECALLS_PER_FACT = (2, 4)
PARAGRAPHS = (2, 5)
"""Other paragraphs of a document, laid between its facts."""

KINDS: dict[Callable[[random.Random], list[Sentence]], int] = {
    deed_paragraph: 5,
    sense_paragraph: 2,
    chain_paragraph: 6,
    journey_paragraph: 6,
    lambda rng: [nested_of_any_depth(rng)]: 2,
    lambda rng: [filler(rng)]: 2,
}
"""Kinds of paragraphs and how often they come."""

ROLLS = (2, 3)
PAIRS_PER_ROLL = (6, 14)
"""A roll lists keys and persons of the document, `roll lantern mira hammer elsa lantern mira .`: nothing but recall, and
what it is learned from."""

STORY_FACTS = 5

FUNCTION_WORDS = (*("a", "some", "the", "that", "at", "here", "comes", "one", "and"), *("road", "way", "roll"))


@dataclass(frozen=True)
class Story:
    """A short text and the facts it states."""

    text: str
    facts: frozenset[tuple[str, ...]]


def vocabulary() -> list[str]:
    """All words of the world and its punctuation, sorted; nothing else is ever written."""
    words = {*PERSONS, *RELATIONS, *STATIONS, *ADJECTIVES, *ADVERBS, *NATURE, *NATURE.values(), *GOODS, *TOWNS, *STAGES}
    words |= {verb for members in RELATIONS.values() for pair in members.values() for verb in pair}
    words |= {*DEEDS, *DEEDS.values()}
    words |= {word for shown in TOPICS.values() for word in shown}
    words |= {word for senses in SENSES.values() for word in senses.values()} | set(SENSES)
    words |= {word for wording in WORDINGS for word in wording.split() if "{" not in word}
    words |= {*FUNCTION_WORDS}
    return sorted(words | register_words())


def documents(seed: int, split: Split) -> Iterator[str]:
    """Endless documents of about 100 to 450 words, separated by single spaces; the same for the same seed and split on every machine.

    Different seeds share no document except by chance; the splits never share a document's random numbers.
    """
    index = 0
    while True:
        yield joined(_document(random.Random(f"{split}/{seed}/{index}")))
        index += 1


def story(rng: random.Random) -> Story:
    """Facts stated and recalled once each, in random order, with filler between."""
    facts = draw_facts(rng, STORY_FACTS)
    sentences = [list(fact.words) for fact in facts] + [filler(rng) for _ in range(3)]
    rng.shuffle(sentences)
    recalls = [list(fact.words) for fact in rng.sample(facts, len(facts))]
    text = joined([*sentences, *recalls])
    return Story(text, facts_in(text))


def _document(rng: random.Random) -> list[Sentence]:
    """Sentences in order of random times: a fact in the first part, its recalls anywhere after it, other paragraphs anywhere."""
    timed: list[tuple[float, list[Sentence]]] = []
    facts = draw_facts(rng, rng.randint(*FACTS_PER_DOCUMENT))
    for fact in facts:
        stated = 0.5 * rng.random()
        timed.append((stated, [_told(rng, fact)]))
        recalls = rng.randint(*RECALLS_PER_FACT)
        timed += [(stated + (1 - stated) * rng.random(), [_told(rng, fact)]) for _ in range(recalls)]
    for _ in range(rng.randint(*ROLLS)):
        timed.append((rng.random(), [_roll(rng, facts)]))
    for kind in rng.choices(list(KINDS), list(KINDS.values()), k=rng.randint(*PARAGRAPHS)):
        timed.append((rng.random(), kind(rng)))
    timed.sort(key=lambda pair: pair[0])
    return [sentence for _, paragraph in timed for sentence in paragraph]


def _roll(rng: random.Random, facts: Sequence[Fact]) -> Sentence:
    called = rng.choices(facts, k=rng.randint(*PAIRS_PER_ROLL))
    return ["roll", *(word for fact in called for word in (fact.key, fact.person)), "."]


def _told(rng: random.Random, fact: Fact) -> Sentence:
    """A fact in any wording, the first one most often."""
    (wording,) = rng.choices(range(len(WORDINGS)), (4, 1, 1))
    return list(fact.told(wording, rng.randrange(2)))
