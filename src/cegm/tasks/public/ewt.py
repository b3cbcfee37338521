"""Universal Dependencies, English Web Treebank (Silveira et al. 2014; annotations CC BY-SA 4.0, texts of the web).

`ud_ewt/en_ewt-ud-test.conllu`: sentences apart by empty lines, comments behind `#`, ten columns per word. Ranges such as `6-7` hold what
is written for the words that follow (`Google's`), and numbers such as `24.1` words that nobody wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cegm.tasks.axis import Source, public
from cegm.tasks.public.text import lines, malformed


@dataclass(frozen=True)
class Word:
    """A word as it is written.

    Attributes:
        form: Its letters.
        role: Universal part of speech; empty for several words written as one.
        tag: Part of speech of the treebank, which tells number and tense.
        spaced: Whether a space follows.
    """

    form: str
    role: str
    tag: str
    spaced: bool


@dataclass(frozen=True)
class Sentence:
    """A sentence.

    Attributes:
        name: Unique in the set.
        document: Text that it belongs to.
        words: As they are written.
    """

    name: str
    document: str
    words: tuple[Word, ...]


def read(source: Source) -> list[Sentence]:
    """All sentences of the test part.

    Raises:
        NotMeasured: The file is missing, truncated or malformed.
    """
    path = public(source, "ud_ewt", "en_ewt-ud-test.conllu")
    return list(_sentences(path))


def _sentences(path: Path) -> Iterator[Sentence]:
    name = ""
    words: list[Word] = []
    covered = 0  # the last word that a range has written already
    found = lines(path)
    if found[-1]:
        raise malformed(path, len(found), "ends within a sentence")
    for number, line in enumerate(found, start=1):
        if not line:
            if not name or not words:
                raise malformed(path, number, "ends a sentence that has no name or no words")
            yield Sentence(name, name.rpartition("-")[0], tuple(words))
            name, words, covered = "", [], 0
        elif line.startswith("#"):
            name = line.partition("sent_id = ")[2] or name
        else:
            columns = line.split("\t")
            if len(columns) != 10:
                raise malformed(path, number, f"has {len(columns)} columns instead of 10")
            first, _, last = columns[0].partition("-")
            if not first.replace(".", "").isdigit() or (last and not last.isdigit()):
                raise malformed(path, number, f"has `{columns[0]}` for a number")
            if last:
                covered = int(last)
            elif "." in first or int(first) <= covered:
                continue
            role, tag = ("", "") if last else (columns[3], columns[4])
            words.append(Word(columns[1], role, tag, "SpaceAfter=No" not in columns[9]))
