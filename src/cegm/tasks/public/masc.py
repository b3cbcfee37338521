"""MASC with word senses (Yuan et al. 2016, arXiv 1603.07012; annotations CC BY 4.0, texts open).

`masc_wsd/masc/**/*.xml`: one `<word text= break_level= [lemma= pos= sense=]/>` per token, 30 files of 8 genres; the first words spell the file's
own name and are skipped. Sense ids of the dictionary are opaque: only their equality means anything. They were given by a crowd, which is
not always right.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cegm.tasks.axis import NotMeasured, Source, public

SHORTEST, LONGEST = 6, 40
"""Words of a sentence that is used."""


@dataclass(frozen=True)
class Use:
    """One word in one sentence.

    Attributes:
        word: Lemma and part of speech, such as `bank-NOUN`.
        sense: Its sense there.
        sentence: The whole sentence, in which no other form of the word has a sense.
        document: File that it stands in.
    """

    word: str
    sense: str
    sentence: str
    document: str


def read(source: Source) -> list[Use]:
    """All uses of words whose sense is known, in the order of files and words.

    Raises:
        NotMeasured: No file, or one that is no such XML.
    """
    folder = public(source, "masc_wsd", "masc")
    files = sorted(folder.rglob("*.xml"))
    if not files:
        raise NotMeasured(f"{folder} has no .xml files; fetch the set again")
    return [use for file in files for use in _uses(file, file.relative_to(folder).as_posix())]


def _uses(path: Path, document: str) -> list[Use]:
    try:
        words = list(ElementTree.parse(path).getroot().iter("word"))
        sentences = _sentences(words)
        return [use for sentence in sentences for use in _uses_in(sentence, document)]
    except ElementTree.ParseError as error:
        raise NotMeasured(f"{path}, line {error.position[0]}, is no XML ({error}); fetch the file again") from error
    except KeyError as error:
        raise NotMeasured(f"{path} has a word without {error}; fetch the file again") from error


def _sentences(words: list[ElementTree.Element]) -> list[list[ElementTree.Element]]:
    """Words by sentence; those before the first break are the file's name."""
    found: list[list[ElementTree.Element]] = []
    for word in words:
        if word.attrib["break_level"] in ("SENTENCE_BREAK", "PARAGRAPH_BREAK"):
            found.append([])
        if found:
            found[-1].append(word)
    return [sentence for sentence in found if SHORTEST <= len(sentence) <= LONGEST]


def _uses_in(sentence: list[ElementTree.Element], document: str) -> list[Use]:
    text = "".join(("" if w.attrib["break_level"] == "NO_BREAK" else " ") + w.attrib["text"] for w in sentence).strip()
    known = [(f"{w.attrib['lemma']}-{w.attrib['pos']}", w.attrib["sense"]) for w in sentence if "sense" in w.attrib]
    times = Counter(word for word, _ in known)
    return [Use(word, sense.rpartition("/")[2], text, document) for word, sense in known if times[word] == 1]
