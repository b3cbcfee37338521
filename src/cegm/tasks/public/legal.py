"""Legal texts: federal regulations in XML and a company's policies in Markdown.

Set `legal_cfr_cfpb` (cfpb/regulations-xml, public domain by statute). Layout: `regulation/<part>/<notice>.xml`, RegML. Only paragraphs of the
regulation and of its official interpretation are read; tables of contents and the agency's analysis repeat them.
Set `legal_sitepolicy` (github/site-policy, CC0-1.0). Layout: `Policies/<group>/<policy>.md`. Known defects: `{% data ... %}` in place of names.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from cegm.tasks.axis import NotMeasured, Source, public
from cegm.tasks.public.files import Document, files_in, text_of
from cegm.train.markup import strip_markdown

NAMESPACE = "{eregs}"
PARAGRAPHS = tuple(NAMESPACE + name for name in ("paragraph", "interpParagraph"))
PLACEHOLDER = re.compile(r"\{%.*?%\}")


def regulations(source: Source) -> list[Document]:
    """Parts of the Code of Federal Regulations.

    Raises:
        NotMeasured: The set is not there.
    """
    paths = files_in(public(source, "legal_cfr_cfpb", "regulation"), "*/*.xml")
    return [Document(f"{path.parent.name}/{path.stem}", partial(_regulation, path)) for path in paths]


def policies(source: Source) -> list[Document]:
    """Policies and terms of a site.

    Raises:
        NotMeasured: The set is not there.
    """
    paths = files_in(public(source, "legal_sitepolicy", "Policies"), "**/*.md")
    return [Document(path.stem, partial(_policy, path)) for path in paths]


def documents(source: Source) -> list[Document]:
    """Both sets: the domain is the same only when both are there."""
    return regulations(source) + policies(source)


def _regulation(path: Path) -> str:
    try:
        root = ElementTree.fromstring(text_of(path))
    except ElementTree.ParseError as error:
        raise NotMeasured(f"{path}, line {error.position[0]}: no XML ({error}); fetch the file again") from error
    contents = (node.find(NAMESPACE + "content") for node in root.iter() if node.tag in PARAGRAPHS)
    lines = (" ".join("".join(content.itertext()).split()) for content in contents if content is not None)
    return "\n".join(line for line in lines if line)


def _policy(path: Path) -> str:
    return strip_markdown(PLACEHOLDER.sub("", text_of(path)))
