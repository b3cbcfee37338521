"""Readable text out of Markdown: markup, HTML tags, kramdown attributes, front matter and images go, words stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from markdown_it import MarkdownIt
from markdown_it.token import Token

FRONT_MATTER = re.compile(r"\A---\n.*?\n---[ \t]*\n", re.DOTALL)
KRAMDOWN_ATTRIBUTES = re.compile(r"\{:[^{}\n]*\}")
CONTAINER_TAGS = re.compile(r"</?(?:div|section|figure|figcaption|note)\b[^>]*>", re.IGNORECASE)
"""Tags around Markdown text. Markdown would take everything up to the next empty line for HTML and leave its markup in."""

INDENTED_TAGS = re.compile(r"^[ \t]+(?=</?[a-zA-Z])", re.MULTILINE)
"""Indentation before a tag. Markdown would take such lines for code and show the tags."""

HIDDEN = {"script", "style", "head"}
LINES = {"p", "tr", "li", "ul", "ol", "table", "br", "h1", "h2", "h3", "h4", "h5", "h6", "dt", "dd", "caption"}
CELLS = {"td", "th"}


class _Words(HTMLParser):
    """Collects the text between tags; rows of a table become lines."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in HIDDEN
        self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in HIDDEN and self._hidden > 0
        self._separate(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)

    def _separate(self, tag: str) -> None:
        if tag in LINES or tag in CELLS:
            self.parts.append("\n" if tag in LINES else " ")


def strip_html(source: str) -> str:
    """Text of an HTML fragment, one line per paragraph, list item or table row."""
    words = _Words()
    words.feed(source)
    words.close()
    return "".join(words.parts)


def strip_markdown(source: str) -> str:
    """Text of Markdown, kramdown and HTML in any mixture, paragraphs separated by an empty line."""
    body = INDENTED_TAGS.sub("", CONTAINER_TAGS.sub("", KRAMDOWN_ATTRIBUTES.sub("", FRONT_MATTER.sub("", source))))
    blocks = ("\n".join(_clean(block)) for block in _blocks(MarkdownIt("commonmark").parse(body)))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _blocks(tokens: list[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type == "inline":
            # Inline HTML comes as one token per tag, so tags and words are put together before they are told apart.
            yield strip_html("".join(_inline(child) for child in token.children or []))
        elif token.type == "html_block":
            yield strip_html(token.content)
        elif token.type in ("fence", "code_block"):
            yield token.content


def _inline(token: Token) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return "\n"
    if token.type == "html_inline":
        return token.content
    if token.type in ("text", "code_inline", "text_special"):
        return token.content.replace("&", "&amp;").replace("<", "&lt;")
    return ""  # images, and the marks around emphasis and links


def _clean(block: str) -> Iterator[str]:
    for line in block.split("\n"):
        text = " ".join(line.split())
        if text:
            yield text
