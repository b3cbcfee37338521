"""Writes what `cegm plan` prints into a document, below each of its commands.

    python benchmarks/scaling.py docs/scaling.md

A block fenced by ``` whose first line begins with `$ cegm plan` holds one command, run from the root of the repository, and its output.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
from pathlib import Path

from cegm.lab.cli import main as cegm

BLOCK = re.compile(r"^```\n\$ (cegm plan [^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def output(command: str) -> str:
    """What a command prints; raises ValueError if it refuses."""
    printed, complaints = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
        code = cegm(shlex.split(command)[1:])
    if code:
        raise ValueError(f"{command}: {complaints.getvalue().strip()}")
    return printed.getvalue()


def renewed(text: str) -> str:
    """The document with the output of every command as it is today."""
    return BLOCK.sub(lambda found: f"```\n$ {found[1]}\n{output(found[1])}```", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("document", type=Path)
    path = parser.parse_args().document
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
