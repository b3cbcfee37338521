"""Single sentences of public sets: with their gold syntax, and with their readings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import conllu
from conllu.exceptions import ParseException

from cegm.lab.tasks.items import Source
from cegm.lab.tasks.public.reading import damaged, json_rows, public, text_of


@dataclass(frozen=True)
class Word:
    """A word as it is written, its characters (start, end), and whether a space follows.

    `role` is its universal part of speech, empty for several words written as one; `tag`, that of the treebank, tells number and
    tense.
    """

    form: str
    role: str
    tag: str
    spaced: bool
    span: tuple[int, int]


@dataclass(frozen=True)
class Sentence:
    """A sentence, its words, punctuation included, and the arcs between its root and the word furthest from it."""

    name: str
    document: str
    text: str
    words: tuple[Word, ...]
    depth: int


def treebank(source: Source, split: str) -> Iterator[Sentence]:
    """Sentences of the English Web Treebank in Universal Dependencies, in file order (Silveira et al. 2014, LREC).

    Set `ud_ewt` (UniversalDependencies/UD_English-EWT, CC BY-SA 4.0). Layout: `en_ewt-ud-{dev,test}.conllu`, `# newdoc id` before
    the first sentence of a document, an empty line behind each. Known defects: no train split here.
    """
    path = public(source, "ud_ewt", f"en_ewt-ud-{split}.conllu")
    text, document = text_of(path), ""
    if not text.endswith("\n\n"):
        raise damaged(path, text.count("\n") + 1, "the file ends within a sentence")
    for block in re.finditer(r"(?:^.+\n)+", text, re.MULTILINE):
        try:
            (tree,) = conllu.parse(block[0])
            document = tree.metadata.get("newdoc id", document)
            yield _sentence(tree, document)
        except (ParseException, KeyError, ValueError, TypeError) as error:
            line = text.count("\n", 0, block.start()) + 1
            raise damaged(path, line, f"sentence with {error!r}") from error


def _sentence(tree: conllu.TokenList, document: str) -> Sentence:
    heads = {token["id"]: token["head"] for token in tree if isinstance(token["id"], int)}
    text, words, place = tree.metadata["text"], [], 0
    for token in _surface(tree):
        start = text.index(token["form"], place)
        place = start + len(token["form"])
        single = isinstance(token["id"], int)
        spaced = (token["misc"] or {}).get("SpaceAfter") != "No"
        words.append(Word(token["form"], token["upos"] if single else "", token["xpos"] or "", spaced, (start, place)))
    depth = max(_distance(word, heads) for word in heads)
    return Sentence(tree.metadata["sent_id"], document, text, tuple(words), depth)


def _surface(tree: conllu.TokenList) -> Iterator[conllu.Token]:
    """What is written: one token for `don't` (a range), not the two that it stands for, and none for what is elided."""
    covered = 0
    for token in tree:
        if len(token) != 10:
            raise ValueError(f"{len(token)} columns instead of 10")
        if isinstance(token["id"], int):
            if token["id"] > covered:
                yield token
        elif token["id"][1] == "-":
            covered = token["id"][2]
            yield token


def _distance(word: int, heads: Mapping[int, int]) -> int:
    """Arcs up to the root; a circle is an error."""
    arcs = 0
    while heads[word]:
        word, arcs = heads[word], arcs + 1
        if arcs > len(heads):
            raise ValueError("heads go round in a circle")
    return arcs


@dataclass(frozen=True)
class Readings:
    """An ambiguous premise, rewritten in the only reading that entails the hypothesis, and in its others."""

    name: str
    premise: str
    hypothesis: str
    entailing: str
    others: tuple[str, ...]


def ambiguous(source: Source) -> list[Readings]:
    """Ambiguous sentences of AmbiEnt, of both parts, whose rewrites leave the hypothesis as it is (Liu et al. 2023, arXiv 2304.14399).

    Set `ambient` (CC BY 4.0). Layout: `AmbiEnt/{test,dev}.jsonl`, one object per line: `premise`, `hypothesis`, and for an ambiguous
    one `disambiguations`: rewrites of both with the `label` (entailment, neutral, contradiction) that holds in that reading.
    Known defect: `id` is a number or a text.
    """
    readings = []
    for part in ("test", "dev"):
        path = public(source, "ambient", "AmbiEnt", f"{part}.jsonl")
        rows = json_rows(text_of(path), path, "id", "premise", "hypothesis", "disambiguations")
        for number, row in enumerate(rows, start=1):
            try:
                rewritten = [(d["premise"], d["hypothesis"], d["label"]) for d in row["disambiguations"]]
            except (TypeError, KeyError) as error:
                raise damaged(path, number, "disambiguations without premise, hypothesis or label") from error
            entailing = [premise for premise, _, label in rewritten if label == "entailment"]
            others = tuple(premise for premise, _, label in rewritten if label != "entailment")
            if len(entailing) == 1 and others and {each for _, each, _ in rewritten} == {row["hypothesis"]}:
                readings.append(
                    Readings(f"{part}-{row['id']}", row["premise"], row["hypothesis"], entailing[0], others)
                )
    return readings
