"""SciTLDR: abstracts of papers with summaries of one sentence (Cachola et al. 2020, arXiv 2004.15011).

Set `sci_scitldr` (allenai/scitldr, Apache-2.0). Layout: `SciTLDR-Data/SciTLDR-A/{train,dev,test}.jsonl`, one paper per line. In dev and
test the first summary is the author's, the others were written by readers of its reviews. Known defects: six abstracts come twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from cegm.tasks.axis import NotMeasured, Source, public
from cegm.tasks.public.files import Document, json_lines

Split = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Paper:
    """One paper.

    Attributes:
        name: Its id.
        title: Its title.
        abstract: Sentences apart by spaces.
        first_sentence: Of the abstract.
        summaries: At least one; the author's comes first.
    """

    name: str
    title: str
    abstract: str
    first_sentence: str
    summaries: tuple[str, ...]


def papers(source: Source, split: Split) -> list[Paper]:
    """Papers of a split, in file order.

    Raises:
        NotMeasured: The file is not there or damaged, or a paper has no abstract or summary.
    """
    path = public(source, "sci_scitldr", "SciTLDR-Data", "SciTLDR-A", f"{split}.jsonl")
    found = []
    for number, row in enumerate(json_lines(path, ["paper_id", "title", "source", "target"]), 1):
        if not "".join(row["source"]).strip() or not row["target"]:
            raise NotMeasured(f"{path}, line {number}: no abstract or no summary; fetch the file again")
        sentences = row["source"]
        found.append(Paper(row["paper_id"], row["title"], " ".join(sentences), sentences[0], tuple(row["target"])))
    return found


def documents(source: Source) -> list[Document]:
    """Abstracts of the test split, each once."""
    unique = {paper.abstract: paper.name for paper in papers(source, "test")}
    return [Document(name, partial(str, abstract)) for abstract, name in unique.items()]
