"""What results depend on: versions of packages, and the code of `cegm` itself. Nothing heavy is imported to tell."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

import cegm


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "accelerate", "datasets", "peft")}
    return {"python": platform.python_version(), **packages, "cegm": cegm.__version__}


@cache
def code_hash() -> str:
    """sha256 over the Python files of the installed `cegm` when it was first asked for, hex."""
    root = Path(cegm.__file__).parent
    sha = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        sha.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()
