"""Pages that open offline: from a template in which everything put in is escaped, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import jinja2

from cegm.durable import write_whole

CORE = "cegm"
MINUS = "\N{MINUS SIGN}"


def save(page: str, path: Path) -> Path:
    """Writes a page whole or not at all."""
    return write_whole(path, page.encode("utf-8", errors="backslashreplace"))  # a name of a file need not be text


def template(package: str, file: str) -> jinja2.Template:
    """A template in the folder `templates` of a package, or of the core, where what pages share lies."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in dict.fromkeys((package, CORE))]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(file)
