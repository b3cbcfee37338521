"""Banking77: questions of a bank's customers, each with one of 77 intents (Casanueva et al. 2020, arXiv 2003.04807).

Set `faq_banking77` (PolyAI-LDN/task-specific-datasets, CC BY 4.0). Layout: `banking_data/{train,test}.csv` with the columns text and category,
`banking_data/categories.json` with the intents.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Literal

from cegm.tasks.axis import NotMeasured, Source, public
from cegm.tasks.public.files import text_of


@dataclass(frozen=True)
class Query:
    """A question and its intent."""

    name: str
    text: str
    intent: str


def queries(source: Source, split: Literal["train", "test"]) -> list[Query]:
    """Questions of a split, in file order.

    Raises:
        NotMeasured: A file is not there or damaged, or names an unknown intent; tells file and line.
    """
    known = intents(source)
    path = public(source, "faq_banking77", "banking_data", f"{split}.csv")
    rows = csv.reader(io.StringIO(text_of(path)), strict=True)
    found: list[Query] = []
    try:
        if next(rows) != ["text", "category"]:
            raise NotMeasured(f"{path}, line 1: columns are not text,category; fetch the file again")
        for row in rows:
            if len(row) != 2 or row[1] not in known:
                raise NotMeasured(f"{path}, line {rows.line_num}: no text with a known intent; fetch the file again")
            found.append(Query(f"{split}-{len(found)}", " ".join(row[0].split()), row[1]))
    except csv.Error as error:
        raise NotMeasured(f"{path}, line {rows.line_num}: {error}; fetch the file again") from error
    return found


def intents(source: Source) -> list[str]:
    """Names of the intents.

    Raises:
        NotMeasured: The file is not there or damaged.
    """
    path = public(source, "faq_banking77", "banking_data", "categories.json")
    try:
        return list(json.loads(text_of(path)))
    except json.JSONDecodeError as error:
        raise NotMeasured(f"{path}, line {error.lineno}: no JSON ({error.msg}); fetch the file again") from error
