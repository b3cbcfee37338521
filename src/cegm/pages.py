"""Pages that open offline: from templates in which everything put into HTML is escaped, written whole or not at all."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from cegm.durable import write_whole

CORE = "cegm"
MINUS = "\N{MINUS SIGN}"


def save(page: str, path: Path) -> Path:
    """Writes a page whole or not at all."""
    return write_whole(path, page.encode("utf-8", errors="backslashreplace"))  # a name of a file need not be text


@functools.cache
def templates(package: str) -> jinja2.Environment:
    """What lies in the folder `templates` of a package, or of the core, where what pages share lies.

    `.txt.j2` gives plain text for terminals, pictures and pages; a page escapes it where it enters, as all else.
    """
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in dict.fromkeys((package, CORE))]),
        autoescape=lambda name: name is None or not name.endswith(".txt.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
