"""`card.md`: the model card in words. Whatever comes from data stands in code spans, in which Markdown has no power."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cegm.lab.release.bill import LIMITS
from cegm.lab.release.coverage import lacking
from cegm.lab.release.evidence import NOT_PROVIDED, Evidence
from cegm.pages import templates

MOST_LETTERS = 400
"""Of one value; the records have the rest."""

MOST_ROWS = 5
"""Of an explanation, at either end."""

CONTEXTS = {"context_rank": "inputs", "gradient_context_rank": "output gradients"}
"""What contexts are made of, by the key of their effective rank in `metrics.jsonl`; a preset may use one of both."""

EVENTLESS = ("start", "checkpoint", "removed", "finish")
"""Events that every run has, and of which the card has nothing to tell."""


def model_card(evidence: Evidence, facts: Mapping[str, bool], changes: Sequence[str], unfinished: int) -> str:
    """The card of a release.

    Args:
        evidence: What the records say.
        facts: Which pieces of evidence there are.
        changes: What changed since an earlier release, as Markdown; none where there is none.
        unfinished: How many runs of the comparison are left out.
    """
    rows = evidence.explanation.explained if evidence.explanation else []
    template = _environment().get_template("card.txt.j2")
    return template.render(
        evidence=evidence,
        interruptions=[event for event in evidence.events if event["event"] not in EVENTLESS],
        first=next(iter(evidence.run.validation), None),
        said=lambda name: code(evidence.said(name)) if evidence.config.get(name) else NOT_PROVIDED,
        strongest=rows if len(rows) <= 2 * MOST_ROWS else [*rows[:MOST_ROWS], *rows[-MOST_ROWS:]],
        moved=evidence.moved(),
        ranks={title: evidence.over_time(key) for key, title in CONTEXTS.items() if evidence.over_time(key)},
        home=evidence.over_time("home"),
        changes=changes,
        unfinished=unfinished,
        limits=LIMITS,
        missing=lacking(facts),
    )


def _environment() -> Any:
    environment = templates("cegm.lab.release")
    environment.filters.update(code=code, number=number)
    return environment


def code(value: Any) -> str:
    """A value as a code span of one line: fenced by more backticks than it has in a row, signs without a shape as escapes."""
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(value))
    shown = text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if shown[:1] in ("`", " ", "") or shown[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def number(value: Any) -> str:
    """A number with four digits; `not provided` for none."""
    return NOT_PROVIDED if value is None else f"{value:.4g}"
