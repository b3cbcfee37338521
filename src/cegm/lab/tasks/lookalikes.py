"""One meaning in other words, and other meanings in nearly the same words, from public sets.

The negatives are what makes nearness mean something. They keep the anchor's own form, or nearly, and exchange one word that bears meaning, so
that they look more like the anchor than its rephrasing does: small words and order may change freely, a name may not. Negatives that are
rephrased, too, or that are other sentences would be told by their letters alone (tried: a model with random weights gets .8 to 1 of them).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cegm.lab.tasks.items import NotMeasured, Source, shuffled, stable_seed
from cegm.lab.tasks.public.annotated import Word, ambiguous, treebank
from cegm.lab.tasks.public.reading import damaged, lines_of, public

KEPT = 0.5
"""Share of small words that word dropout leaves."""

SMALL = re.compile(
    r"(?:an?|the|of|in|on|at|to|for|from|by|with|as|and|which|who|that|was|is|were|are|has|had|have|been|be|also|its|his|her|their)",
    re.IGNORECASE,
)
"""Words that a sentence can lose without losing its meaning; no negation."""

SMALL_ROLES = frozenset({"ADP", "AUX", "CCONJ", "DET", "SCONJ"})
"""Their parts of speech."""

NAME = re.compile(r"(?<=[\w,(] )[A-Z][\w.-]*(?: (?:of |of the |de )?[A-Z][\w.-]*)*")
"""Words with a capital after a word, a comma or a bracket: one that begins a sentence may have its capital from it."""

NUMBER = re.compile(r"(?<!\S)\d\S*")
CONTENT_ROLES = frozenset({"ADJ", "NOUN", "NUM", "PROPN", "VERB"})
NEGATIVES = 2

LENGTHS = range(8, 31)
"""Words of a sentence of the web that is used."""


BREAK = " <::::> "


@dataclass(frozen=True)
class Case:
    """A text (the anchor), the same in other words, and others like it that mean something else."""

    item: str
    cluster: str
    anchor: str
    rephrased: str
    negatives: tuple[str, ...]


Technique = Callable[[Source, int, int], list[Case]]
"""Draws up to so many cases from a folder of public sets, by a seed."""


def lexical(source: Source, items: int, seed: int) -> list[Case]:
    """Other words of the same meaning: none of the public sets has them."""
    raise NotMeasured("none of the public sets has synonyms in context; the generated form measures this technique")


@dataclass(frozen=True)
class Split:
    """A sentence of a line (from 1), whole and as two simple ones."""

    line: int
    whole: str
    parts: str


def splits(source: Source) -> list[Split]:
    """WikiSplit: complex sentences as two simple ones, mined from edits of Wikipedia (Botha et al. 2018, arXiv 1808.09468; CC BY-SA 4.0).

    Layout: `wikisplit/test.tsv`: complex sentence, tab, the two simple ones with ` <::::> ` between them, all of them tokenised. Known
    defect: edits change facts, too, so that some pairs do not mean quite the same; nobody reaches 100 %.
    """
    path = public(source, "wikisplit", "test.tsv")
    pairs = []
    for number, line in enumerate(lines_of(path), start=1):
        whole, _, parts = line.partition("\t")
        if "\t" in parts or parts.count(BREAK) != 1 or not whole.strip():
            raise damaged(path, number, f"no sentence, tab and two sentences with `{BREAK.strip()}` between them")
        pairs.append(Split(number, whole.strip(), parts.replace(BREAK, " ").strip()))
    return pairs


def syntactic(source: Source, items: int, seed: int) -> list[Case]:
    """A complex sentence and the two it was split into; negatives are the complex one with another name or number."""
    return list(_split(source, items, seed, thin=False))


def mixed(source: Source, items: int, seed: int) -> list[Case]:
    """A complex sentence and the two it was split into without some small words; negatives are the two with another name or number."""
    return list(_split(source, items, seed, thin=True))


def _split(source: Source, items: int, seed: int, *, thin: bool) -> Iterator[Case]:
    pairs = splits(source)
    known = {kind: [word for pair in pairs for word in kind.findall(pair.whole)] for kind in (NAME, NUMBER)}
    drawn = 0
    for pair in shuffled(pairs, "wikisplit", seed):
        rng = random.Random(stable_seed("wikisplit", seed, pair.line))
        others = [renamed(pair.parts if thin else pair.whole, known, rng) for _ in range(NEGATIVES)]
        negatives = tuple(other for other in others if other is not None)
        if drawn < items and len(negatives) == NEGATIVES:
            drawn += 1
            rephrased = thinned(pair.parts, rng) if thin else pair.parts
            yield Case(str(pair.line), str(pair.line), pair.whole, rephrased, negatives)


def contextual(source: Source, items: int, seed: int) -> list[Case]:
    """An ambiguous sentence with one that settles its reading, and the two readings written out."""
    return [
        Case(each.name, each.name, f"{each.premise} {each.hypothesis}", each.entailing, each.others)
        for each in shuffled(ambiguous(source), "contextual", seed)[:items]
    ]


def dropout(source: Source, items: int, seed: int) -> list[Case]:
    """A sentence of the web, and itself without some of its small words; negatives are the whole one with another content word."""
    sentences = [sentence for sentence in treebank(source, "test") if len(sentence.words) in LENGTHS]
    known: dict[str, list[str]] = {}
    for word in (word for sentence in sentences for word in sentence.words if word.role in CONTENT_ROLES):
        known.setdefault(word.tag, []).append(word.form)
    cases: list[Case] = []
    for sentence in shuffled(sentences, "dropout", seed):
        rng = random.Random(stable_seed("dropout", seed, sentence.name))
        anchor = written(sentence.words)
        shorter = written(word for word in sentence.words if word.role not in SMALL_ROLES or rng.random() < KEPT)
        changed = [_changed(sentence.words, known, rng) for _ in range(NEGATIVES)]
        negatives = tuple(written(words) for words in changed if words is not None)
        if len(cases) < items and len(negatives) == NEGATIVES and shorter != anchor:
            cases.append(Case(sentence.name, sentence.name.rpartition("-")[0], anchor, shorter, negatives))
    return cases


TECHNIQUES: dict[str, Technique] = {
    "lexical": lexical,
    "syntactic": syntactic,
    "contextual": contextual,
    "dropout": dropout,
    "mixed": mixed,
}


def renamed(text: str, known: Mapping[re.Pattern[str], Sequence[str]], rng: random.Random) -> str | None:
    """A tokenised text with one of its names, or else of its numbers, replaced by another known one; None where there is none."""
    for kind in (NAME, NUMBER):
        spans = [match.span() for match in kind.finditer(text)]
        if not spans:
            continue
        start, end = rng.choice(spans)
        other = _other(text[start:end], known[kind], rng)
        if other is not None:
            return text[:start] + other + text[end:]
    return None


def _other(word: str, known: Sequence[str], rng: random.Random) -> str | None:
    """One of the known words that is not this one; None if there is no other."""
    for _ in range(20):  # nearly always the first
        drawn = rng.choice(known)
        if drawn.lower() != word.lower():
            return drawn
    return None


def thinned(text: str, rng: random.Random) -> str:
    """A tokenised text without some of its small words, but without one at least if it has any."""
    words = text.split()
    small = [place for place, word in enumerate(words) if SMALL.fullmatch(word)]
    gone = {place for place in small if rng.random() > KEPT} or set(small[:1])
    return " ".join(word for place, word in enumerate(words) if place not in gone)


def written(words: Iterable[Word]) -> str:
    """Words as a text."""
    return "".join(word.form + " " * word.spaced for word in words).strip()


def _changed(words: Sequence[Word], known: Mapping[str, Sequence[str]], rng: random.Random) -> list[Word] | None:
    """Words with one content word replaced by another with the same tag; None without such a one."""
    places = [place for place, word in enumerate(words) if word.role in CONTENT_ROLES]
    for place in rng.sample(places, len(places)):
        other = _other(words[place].form, known[words[place].tag], rng)
        if other is not None:
            return [*words[:place], replace(words[place], form=other), *words[place + 1 :]]
    return None
