"""Sentences with gold syntax: the English Web Treebank in Universal Dependencies (Silveira et al. 2014, LREC).

Set `ud_ewt` (UniversalDependencies/UD_English-EWT, CC BY-SA 4.0). Layout: `en_ewt-ud-{dev,test}.conllu`, `# newdoc id` before the first sentence
of a document. Known defects: no train split here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import conllu
from conllu.exceptions import ParseException

from cegm.tasks.axis import NotMeasured, Source, public
from cegm.tasks.public.files import text_of

SILENT = ("PUNCT", "SYM")


@dataclass(frozen=True)
class Sentence:
    """A sentence and its gold syntax.

    Attributes:
        name: Its id.
        document: Id of the document that it stands in.
        text: As written.
        words: Characters (start, end) of its words; neither punctuation nor symbols.
        depth: Arcs between its root and the word furthest from it.
    """

    name: str
    document: str
    text: str
    words: tuple[tuple[int, int], ...]
    depth: int


def sentences(source: Source) -> list[Sentence]:
    """Sentences of dev and test, in file order.

    Raises:
        NotMeasured: A file is not there or damaged; names file and line.
    """
    return [each for split in ("dev", "test") for each in _read(public(source, "ud_ewt", f"en_ewt-ud-{split}.conllu"))]


def _read(path: Path) -> Iterator[Sentence]:
    text, document = text_of(path), ""
    for block in re.finditer(r"(?:^.+(?:\n|\Z))+", text, re.MULTILINE):
        try:
            (tree,) = conllu.parse(block[0])
            document = tree.metadata.get("newdoc id", document)
            yield _sentence(tree, document)
        except (ParseException, KeyError, ValueError, TypeError) as error:
            line = text.count("\n", 0, block.start()) + 1
            raise NotMeasured(f"{path}, sentence of line {line}: {error!r}; fetch the file again") from error


def _sentence(tree: conllu.TokenList, document: str) -> Sentence:
    heads = {token["id"]: token["head"] for token in tree if isinstance(token["id"], int)}
    text, words, place = tree.metadata["text"], [], 0
    for token in _surface(tree):
        start = text.index(token["form"], place)
        place = start + len(token["form"])
        if token["upos"] not in SILENT:
            words.append((start, place))
    depth = max(_distance(word, heads) for word in heads)
    return Sentence(tree.metadata["sent_id"], document, text, tuple(words), depth)


def _surface(tree: conllu.TokenList) -> Iterator[conllu.Token]:
    """What is written: one token for `don't` (a range), not the two that it stands for, and none for what is elided."""
    covered = 0
    for token in tree:
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
