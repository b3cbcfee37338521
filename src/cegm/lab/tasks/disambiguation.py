"""Contextual disambiguation: which sense, reading or word the context asks for (the paper's table I).

- *Generated*: words of the embedded world that have two senses; the level is what stands between the word and what tells its sense.
- *Real*, three subsets that are reported apart:
  - `lambada` (arXiv 1606.06031): the last word of a passage, which nobody guesses from its last sentence alone. Right if every token of the
    word is the model's first guess, given the ones before it; so chance is practically 0. Continuous: log-probability of the word, nats.
    The passages come from novels whose rights are not clear (the set itself is CC BY 4.0): measure with them, do not pass them on.
  - `masc`: word senses of MASC (Yuan et al. 2016, arXiv 1603.07012), asked as words in context (arXiv 1808.09121). A reader is told that
    two sentences use a word in the same sense, and is shown one of two candidates, in the right or in another sense; what counts is the
    likelihood of the *second* sentence after it. To score the candidates themselves would ask which is the more ordinary sentence; this way
    the words that are scored are the same, and neither length nor frequency counts. Each pair of candidates is asked about in both
    directions: a model that likes one of them better gets exactly half. Candidates never come from the document of the scored sentence.
  - `ambient`: of the readings of an ambiguous sentence, the one from which a hypothesis follows should make it likeliest
    (`public/annotated.py`).

Traps: senses go with genres, so a model that only tells telephone talk from law may get more than half of `masc`. In `ambient` whoever
counts the words that reading and hypothesis share gets 60 %.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from xml.etree import ElementTree

from cegm.lab import world
from cegm.lab.tasks.axis import ChoiceAxis, exams
from cegm.lab.tasks.examinee import Examinee, ReadToken
from cegm.lab.tasks.items import Choice, Item, NotMeasured, Record, Source, shuffled, stable_seed
from cegm.lab.tasks.public.annotated import ambiguous
from cegm.lab.tasks.public.reading import files_in, json_rows, public, text_of, xml_of

NAME = "disambiguation"


def published(source: Source, items: int, seed: int) -> dict[str, Callable[[], list[Item]]]:
    """Subset -> what reads and draws its questions: everything but LAMBADA, which has no options."""
    return {
        "masc": lambda: word_questions(word_uses(source), seed)[:items],
        "ambient": lambda: _readings(source, seed)[:items],
    }


def _readings(source: Source, seed: int) -> list[Item]:
    return [
        Item(Choice("", (each.entailing, *each.others), f"\nSo: {each.hypothesis}"), "ambient", each.name, each.name)
        for each in shuffled(ambiguous(source), NAME, "ambient", seed)
    ]


def lambada(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Whether the last word of each passage is the model's first guess."""
    path = public(source, "lambada", "lambada_test.jsonl")
    rows = json_rows(text_of(path), path, "text")
    passages = [(number, str(row["text"]).rstrip()) for number, row in enumerate(rows, start=1)]
    drawn = shuffled(passages, NAME, "lambada", seed)[:items]
    read = examinee.read([text for _, text in drawn])
    return [_last_word(str(number), text, tokens) for (number, text), tokens in zip(drawn, read, strict=True)]


def _last_word(name: str, text: str, tokens: Sequence[ReadToken]) -> Record:
    begin = len(text) - len(text.split()[-1])
    word = [token for token in tokens if token.end > begin]  # a space before the word may belong to its first token
    score = float(bool(word) and all(token.top for token in word))
    likelihood = sum(token.log_probability for token in word)
    return Record(NAME, "real", "lambada", name, name, 0.0, score, likelihood, 0.0)


SHORTEST, LONGEST = 6, 40
"""Words of a sentence of MASC that is used."""


@dataclass(frozen=True)
class Use:
    """A word (lemma and part of speech, such as `bank-NOUN`) in a sentence in which no other form of it has a sense."""

    word: str
    sense: str
    sentence: str
    document: str


def word_uses(source: Source) -> list[Use]:
    """All uses of words of MASC whose sense is known, in the order of files and words (annotations CC BY 4.0, texts open).

    Layout: `masc_wsd/masc/**/*.xml`: one `<word text= break_level= [lemma= pos= sense=]/>` per token, 30 files of 8 genres; the
    first words spell the file's own name and are skipped. Sense ids of the dictionary are opaque: only their equality means
    anything. They were given by a crowd, which is not always right.
    """
    folder = public(source, "masc_wsd", "masc")
    uses: list[Use] = []
    for path in files_in(folder, "**/*.xml"):
        try:
            for sentence in _sentences(list(xml_of(path).iter("word"))):
                uses += _uses(sentence, path.relative_to(folder).as_posix())
        except KeyError as error:
            raise NotMeasured(f"{path} has a word without {error}; fetch the file again") from error
    return uses


def _sentences(words: list[ElementTree.Element]) -> list[list[ElementTree.Element]]:
    """Words by sentence; those before the first break are the file's name."""
    sentences: list[list[ElementTree.Element]] = []
    for word in words:
        if word.attrib["break_level"] in ("SENTENCE_BREAK", "PARAGRAPH_BREAK"):
            sentences.append([])
        if sentences:
            sentences[-1].append(word)
    return [sentence for sentence in sentences if SHORTEST <= len(sentence) <= LONGEST]


def _uses(sentence: list[ElementTree.Element], document: str) -> list[Use]:
    text = "".join(("" if w.attrib["break_level"] == "NO_BREAK" else " ") + w.attrib["text"] for w in sentence).strip()
    known = [(f"{w.attrib['lemma']}-{w.attrib['pos']}", w.attrib["sense"]) for w in sentence if "sense" in w.attrib]
    times = Counter(word for word, _ in known)
    return [Use(word, sense.rpartition("/")[2], text, document) for word, sense in known if times[word] == 1]


def word_questions(uses: Sequence[Use], seed: int) -> list[Item]:
    """Two questions for each pair of senses of a word that enough sentences tell apart, in an order drawn from the seed."""
    words: dict[str, dict[str, list[Use]]] = {}
    for use in uses:
        words.setdefault(use.word, {}).setdefault(use.sense, []).append(use)
    pairs = [(word, first, second) for word in sorted(words) for first, second in combinations(sorted(words[word]), 2)]
    questions: list[Item] = []
    for word, first, second in shuffled(pairs, NAME, "masc", seed):
        order = random.Random(stable_seed(NAME, "masc", seed, word, first, second))
        questions += _both_ways(words[word][first], words[word][second], order)
    return questions


def _both_ways(first: Sequence[Use], second: Sequence[Use], rng: random.Random) -> list[Item]:
    """A candidate and a scored sentence of either sense; no scored one shares a document with a candidate. Nothing where there are none."""
    for candidates in _pairs(first, second, rng):
        taken = {use.document for use in candidates}
        scored_ones = [[use for use in sense if use.document not in taken] for sense in (first, second)]
        if all(scored_ones):
            asked = [rng.choice(uses) for uses in scored_ones]
            return [_same_sense(asked[0], *candidates), _same_sense(asked[1], *candidates[::-1])]
    return []


def _pairs(first: Sequence[Use], second: Sequence[Use], rng: random.Random) -> Iterator[tuple[Use, Use]]:
    """All pairs of one of each, in random order."""
    others = rng.sample(second, len(second))
    for one in rng.sample(first, len(first)):
        yield from ((one, other) for other in others)


def _same_sense(asked: Use, right: Use, wrong: Use) -> Item:
    lemma = asked.word.rpartition("-")[0]
    choice = Choice(
        f'These two sentences use the word "{lemma}" in the same sense.\n1.',
        (f" {right.sentence}", f" {wrong.sentence}"),
        f"\n2. {asked.sentence}",
    )
    return Item(choice, "masc", f"{asked.word}-{asked.sense}-{wrong.sense}", asked.word)


AXIS = ChoiceAxis(
    name=NAME,
    title="Contextual disambiguation",
    paper="Table I",
    measure="share of words whose sense, or last words that, the context tells: by likelihood, in LAMBADA by the first guess",
    level="sentences between the word and what tells its sense; in the real form one level",
    control="always the same sense of a word: half, and none of LAMBADA",
    sets=("ambient", "lambada", "masc_wsd"),
    generated=partial(exams, NAME, world.sense_exam, world.SENSE_LEVELS),
    real=published,
    apart=True,
    besides={"lambada": lambada},
)
