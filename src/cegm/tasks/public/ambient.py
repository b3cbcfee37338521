"""AmbiEnt: ambiguous sentences with their readings (Liu et al. 2023, arXiv 2304.14399; CC BY 4.0).

`ambient/AmbiEnt/test.jsonl` and `dev.jsonl`, one object per line: `premise`, `hypothesis`, and for an ambiguous one `disambiguations`:
rewrites of both with the `label` (entailment, neutral, contradiction) that holds in that reading. Defect: `id` is a number or a text.
"""

from __future__ import annotations

from dataclasses import dataclass

from cegm.tasks.axis import Source, public
from cegm.tasks.public.text import json_lines, malformed


@dataclass(frozen=True)
class Readings:
    """One ambiguous premise of which exactly one reading entails the hypothesis.

    Attributes:
        name: Unique in the set.
        premise: The ambiguous sentence.
        hypothesis: What follows from one reading only.
        entailing: The premise rewritten in that reading.
        others: The premise in its other readings.
    """

    name: str
    premise: str
    hypothesis: str
    entailing: str
    others: tuple[str, ...]


def read(source: Source) -> list[Readings]:
    """All such premises of both parts: their rewrites leave the hypothesis as it is.

    Raises:
        NotMeasured: A file is missing or malformed.
    """
    found = []
    for part in ("test", "dev"):
        path = public(source, "ambient", "AmbiEnt", f"{part}.jsonl")
        for number, row in enumerate(json_lines(path, "id", "premise", "hypothesis", "disambiguations"), start=1):
            try:
                rewritten = [(d["premise"], d["hypothesis"], d["label"]) for d in row["disambiguations"]]
            except (TypeError, KeyError) as error:
                raise malformed(path, number, "has disambiguations without premise, hypothesis or label") from error
            entailing = [premise for premise, _, label in rewritten if label == "entailment"]
            others = tuple(premise for premise, _, label in rewritten if label != "entailment")
            if len(entailing) == 1 and others and {each for _, each, _ in rewritten} == {row["hypothesis"]}:
                found.append(Readings(f"{part}-{row['id']}", row["premise"], row["hypothesis"], entailing[0], others))
    return found
