"""Contextual disambiguation: which sense, reading or word the context asks for (the paper's table I).

- *Generated*: words of the embedded world that have two senses; the level is what stands between the word and what tells its sense.
- *Real*, three subsets that are reported apart:
  - `lambada` (arXiv 1606.06031): the last word of a passage, which nobody guesses from its last sentence alone. Right if every token of the
    word is the model's first guess, given the ones before it; so chance is practically 0. Continuous: log-probability of the word, nats.
    The passages come from novels whose rights are not clear (the set itself is CC BY 4.0): measure with them, do not pass them on.
  - `masc`: word senses of MASC (`public/masc.py`), asked as words in context (arXiv 1808.09121). A reader is told that two sentences use a
    word in the same sense, and is shown one of two candidates, in the right or in another sense; what counts is the likelihood of the
    *second* sentence after it. To score the candidates themselves would ask which is the more ordinary sentence; this way the words that are
    scored are the same, and neither length nor frequency counts. Each pair of candidates is asked about in both directions: a model that
    likes one of them better gets exactly half. Candidates never come from the document of the scored sentence.
  - `ambient`: of the readings of an ambiguous sentence, the one from which a hypothesis follows should make it likeliest
    (`public/ambient.py`).

Traps: senses go with genres, so a model that only tells telephone talk from law may get more than half of `masc`. In `ambient` whoever
counts the words that reading and hypothesis share gets 60 %.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from cegm import world
from cegm.tasks.asking import Item, generated, scored
from cegm.tasks.axis import Axis, Record, Source, form_of, public, stable_seed
from cegm.tasks.examinee import Choice, Examinee, ReadToken
from cegm.tasks.public import ambient, masc
from cegm.tasks.public.text import json_lines
from cegm.tasks.subsets import available, shuffled

NAME = "disambiguation"


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Scores `items` questions per level, in the real form per subset.

    Raises:
        NotMeasured: No public set could be read, or the model's context is shorter than a question.
    """
    if form_of(source) == "generated":
        return scored(examinee, NAME, "generated", questions(source, items, seed))
    parts = _published(source, items, seed)
    return available(
        {
            "lambada": lambda: lambada(examinee, source, items, seed),
            "masc": lambda: scored(examinee, NAME, "real", parts["masc"]()),
            "ambient": lambda: scored(examinee, NAME, "real", parts["ambient"]()),
        }
    )


def questions(source: Source, items: int, seed: int) -> list[Item]:
    """All that is asked with options, whoever answers: everything but LAMBADA.

    Raises:
        NotMeasured: No public set could be read.
    """
    if form_of(source) == "generated":
        return generated(NAME, world.sense_exam, world.SENSE_LEVELS, items, seed)
    return available(_published(source, items, seed))


def _published(source: Source, items: int, seed: int) -> dict[str, Callable[[], list[Item]]]:
    """Subset -> what reads and draws its questions."""
    return {
        "masc": lambda: word_questions(masc.read(source), seed)[:items],
        "ambient": lambda: _readings(source, seed)[:items],
    }


def lambada(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Whether the last word of each passage is the model's first guess.

    Raises:
        NotMeasured: The file is missing or malformed, or a passage is longer than the model reads.
    """
    path = public(source, "lambada", "lambada_test.jsonl")
    passages = [(number, str(row["text"]).rstrip()) for number, row in enumerate(json_lines(path, "text"), start=1)]
    drawn = shuffled(passages, NAME, "lambada", seed)[:items]
    found = examinee.read([text for _, text in drawn])
    return [_last_word(number, text, tokens) for (number, text), tokens in zip(drawn, found, strict=True)]


def _last_word(number: int, text: str, tokens: Sequence[ReadToken]) -> Record:
    begin = len(text) - len(text.split()[-1])
    own = [token for token in tokens if token.end > begin]  # a space before the word may belong to its first token
    return Record(
        axis=NAME,
        form="real",
        subset="lambada",
        item=str(number),
        cluster=str(number),
        level=0.0,
        score=float(bool(own) and all(token.top for token in own)),
        continuous=sum(token.log_probability for token in own),
        chance=0.0,
    )


def word_questions(uses: Sequence[masc.Use], seed: int) -> list[Item]:
    """Two questions for each pair of senses of a word that enough sentences tell apart, in an order drawn from the seed.

    Args:
        uses: Of all words.
        seed: Decides sentences and order.
    """
    words: dict[str, dict[str, list[masc.Use]]] = {}
    for use in uses:
        words.setdefault(use.word, {}).setdefault(use.sense, []).append(use)
    pairs = [(word, first, second) for word in sorted(words) for first, second in combinations(sorted(words[word]), 2)]
    found: list[Item] = []
    for word, first, second in shuffled(pairs, NAME, "masc", seed):
        order = random.Random(stable_seed(NAME, "masc", seed, word, first, second))
        found += _both_ways(words[word][first], words[word][second], order)
    return found


def _both_ways(first: Sequence[masc.Use], second: Sequence[masc.Use], rng: random.Random) -> list[Item]:
    """A candidate and a scored sentence of either sense; no scored one shares a document with a candidate. Nothing where there are none."""
    for candidates in _pairs(first, second, rng):
        taken = {use.document for use in candidates}
        scored_ones = [[use for use in sense if use.document not in taken] for sense in (first, second)]
        if all(scored_ones):
            asked = [rng.choice(uses) for uses in scored_ones]
            return [_same_sense(asked[0], *candidates), _same_sense(asked[1], *candidates[::-1])]
    return []


def _pairs(
    first: Sequence[masc.Use], second: Sequence[masc.Use], rng: random.Random
) -> Iterator[tuple[masc.Use, masc.Use]]:
    """All pairs of one of each, in random order."""
    others = rng.sample(second, len(second))
    for one in rng.sample(first, len(first)):
        yield from ((one, other) for other in others)


def _same_sense(asked: masc.Use, right: masc.Use, wrong: masc.Use) -> Item:
    lemma = asked.word.rpartition("-")[0]
    choice = Choice(
        f'These two sentences use the word "{lemma}" in the same sense.\n1.',
        (f" {right.sentence}", f" {wrong.sentence}"),
        f"\n2. {asked.sentence}",
    )
    return Item(choice, "masc", f"{asked.word}-{asked.sense}-{wrong.sense}", asked.word)


def _readings(source: Source, seed: int) -> list[Item]:
    return [
        Item(Choice("", (each.entailing, *each.others), f"\nSo: {each.hypothesis}"), "ambient", each.name, each.name)
        for each in shuffled(ambient.read(source), NAME, "ambient", seed)
    ]


AXIS = Axis(
    name=NAME,
    title="Contextual disambiguation",
    paper="Table I",
    measure="share of words whose sense, or last words that, the context tells: by likelihood, in LAMBADA by the first guess",
    unit="accuracy",
    better="higher",
    level="sentences between the word and what tells its sense; in the real form one level",
    control="always the same sense of a word: half, and none of LAMBADA",
    measured=measure,
    sets=("ambient", "lambada", "masc_wsd"),
)
