"""Real ways of getting English words wrong: misspellings ("natural noise" of Belinkov & Bisk 2018, arXiv 1711.02173), keyboard, OCR.

Layout, as nlpaug (MIT) has them: `noise_en/nlpaug/res/word/spelling/spelling_en.txt`, a line per word, `word misspelling misspelling ...`; and
`noise_en/nlpaug/res/char/keyboard/en.json` and `.../char/ocr/en.json`, character to characters. Known defects: some words have
several lines, which are joined; the keyboard lists a letter
among its own neighbours, and a space before another; some misspellings are the word itself in other case. Those are dropped; only letters
replace letters.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegm.tasks.axis import NotMeasured, Source, public
from cegm.tasks.public.files import text_of


@dataclass(frozen=True)
class Mistakes:
    """What can go wrong with a word.

    Attributes:
        spelling: Word to its misspellings.
        keyboard: Letter to its neighbours.
        scanned: Letter to those it is taken for.
    """

    spelling: Mapping[str, tuple[str, ...]]
    keyboard: Mapping[str, tuple[str, ...]]
    scanned: Mapping[str, tuple[str, ...]]

    def wrong(self, word: str, rng: random.Random) -> str:
        """The word with one mistake, of a kind drawn evenly from those that can befall it: misspelling, keyboard, OCR, swap, drop.

        Args:
            word: At least two letters, not all the same.
            rng: Draws the mistake.
        """
        possible = [
            list(self.spelling.get(word, ())),
            _replaced(word, self.keyboard),
            _replaced(word, self.scanned),
            [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)],
            [word[:i] + word[i + 1 :] for i in range(len(word))],
        ]
        kinds = [kind for each in possible if (kind := [other for other in each if other.lower() != word.lower()])]
        return rng.choice(rng.choice(kinds))


def read(source: Source) -> Mistakes:
    """The three files.

    Raises:
        NotMeasured: One is missing or malformed.
    """
    folder = public(source, "noise_en", "nlpaug", "res")
    spelling: dict[str, tuple[str, ...]] = {}
    path = public(folder, "word", "spelling", "spelling_en.txt")
    for place, line in enumerate(text_of(path).splitlines(), 1):
        word, *wrong = line.split() or [""]
        if not wrong:
            raise NotMeasured(f"{path}, line {place}: no word with a misspelling; copy the set again")
        spelling[word] = (*spelling.get(word, ()), *wrong)
    return Mistakes(spelling, *(_letters(public(folder, "char", kind, "en.json")) for kind in ("keyboard", "ocr")))


def _letters(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
        return {
            letter: kept
            for letter, others in table.items()
            if letter.isalpha() and (kept := tuple(o.strip() for o in others if o.strip().isalpha() and o != letter))
        }
    except (ValueError, AttributeError, TypeError):
        raise NotMeasured(f"{path} is no table of characters; copy the set again") from None


def _replaced(word: str, table: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The word with one letter replaced, in all ways that the table knows."""
    return [word[:i] + other + word[i + 1 :] for i, letter in enumerate(word) for other in table.get(letter, ())]
