"""WikiSplit: one complex sentence as two simple ones, mined from edits of Wikipedia (Botha et al. 2018, arXiv 1808.09468; CC BY-SA 4.0).

`wikisplit/test.tsv`: complex sentence, tab, the two simple ones with ` <::::> ` between them, all of them tokenised. Defect: edits change facts,
too, so that some pairs do not mean quite the same; nobody reaches 100 %.
"""

from __future__ import annotations

from dataclasses import dataclass

from cegm.tasks.axis import Source, public
from cegm.tasks.public.text import lines, malformed

BREAK = " <::::> "


@dataclass(frozen=True)
class Split:
    """A sentence in two forms.

    Attributes:
        line: In the file, from 1.
        whole: The complex sentence.
        parts: The two simple ones, one after the other.
    """

    line: int
    whole: str
    parts: str


def read(source: Source) -> list[Split]:
    """All pairs of the test part.

    Raises:
        NotMeasured: The file is missing, truncated or malformed.
    """
    path = public(source, "wikisplit", "test.tsv")
    found = []
    for number, line in enumerate(lines(path), start=1):
        whole, _, parts = line.partition("\t")
        if "\t" in parts or parts.count(BREAK) != 1 or not whole.strip():
            raise malformed(path, number, f"is no sentence, tab and two sentences with `{BREAK.strip()}` between them")
        found.append(Split(number, whole.strip(), parts.replace(BREAK, " ").strip()))
    return found
