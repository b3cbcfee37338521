"""BLiMP: pairs of sentences of which one breaks a rule of English grammar (Warstadt et al. 2020, arXiv 1912.00582).

Set `blimp` (alexwarstadt/blimp, CC BY 4.0). Layout: `BLiMP.zip` with `data/<paradigm>.jsonl`, 67 paradigms of 1,000 pairs, read in place.
Known defects: `__MACOSX` holds shadows of the files that are no text.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass

from cegm.tasks.axis import NotMeasured, Source, public
from cegm.tasks.public.files import parsed_lines

PARADIGM = re.compile(r"data/[^/]+\.jsonl")


@dataclass(frozen=True)
class Pair:
    """A right and a wrong sentence.

    Attributes:
        name: Paradigm and number.
        paradigm: The rule that is broken.
        good: The right sentence.
        bad: The wrong one.
    """

    name: str
    paradigm: str
    good: str
    bad: str


def paradigms(source: Source) -> dict[str, list[Pair]]:
    """Paradigm -> its pairs, sorted by name.

    Raises:
        NotMeasured: The archive is not there or damaged.
    """
    path = public(source, "blimp", "BLiMP.zip")
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if PARADIGM.fullmatch(n)):
                text = archive.read(name).decode()
                rows = parsed_lines(text, f"{path}, {name}", ["UID", "pairID", "sentence_good", "sentence_bad"])
                pairs = [
                    Pair(f"{r['UID']}-{r['pairID']}", r["UID"], r["sentence_good"], r["sentence_bad"]) for r in rows
                ]
                found[pairs[0].paradigm] = pairs
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise NotMeasured(f"{path}: {error}; fetch the file again") from error
    if not found:
        raise NotMeasured(f"{path} has no data/*.jsonl in it; fetch the file again")
    return found
