"""Python Enhancement Proposals: technical documents in reStructuredText.

Set `tech_peps` (python/peps, public domain or CC0, by the statement at the end of each). Layout: `peps/pep-*.rst`. Known defects:
Sphinx roles and directives that docutils does not know; the oldest proposals are mostly indented blocks.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from docutils import nodes
from docutils.core import publish_doctree

from cegm.tasks.axis import Source, public
from cegm.tasks.public.files import Document, files_in, text_of

HEADER = re.compile(r"\A(?:[A-Z][\w-]*:.*\n(?:[ \t]+\S.*\n)*)+")
"""The fields in front of a proposal: number, authors with addresses, dates."""

ROLE = re.compile(r":[a-z][\w+.:-]*:(?=`)")
PROSE = (nodes.paragraph, nodes.title, nodes.term, nodes.line)
QUIET = {
    "report_level": 5,  # nothing is printed; a proposal with unknown directives is still read
    "halt_level": 5,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "_disable_config": True,
}


def documents(source: Source) -> list[Document]:
    """All proposals, sorted by number.

    Raises:
        NotMeasured: The set is not there.
    """
    paths = files_in(public(source, "tech_peps", "peps"), "pep-*.rst")
    return [Document(path.stem, partial(_read, path)) for path in paths]


def _read(path: Path) -> str:
    return strip_restructured(text_of(path))


def strip_restructured(text: str) -> str:
    """Headings, paragraphs and terms of a proposal, one per line; header, code, comments and markup go."""
    tree = publish_doctree(ROLE.sub("", HEADER.sub("", text)), settings_overrides=QUIET)
    for message in list(tree.findall(nodes.system_message)):
        message.parent.remove(message)
    lines = (" ".join(node.astext().split()) for node in tree.findall() if isinstance(node, PROSE))
    return "\n".join(line for line in lines if line)
