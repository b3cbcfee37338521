"""A GGUF file as transformers trains it: unpacked to float32 once, and kept as safetensors in the user's cache.

CACHE/NAME-HASH/             weights, configuration, tokenizer and chat template, as `save_pretrained` writes them
CACHE/NAME-HASH/source.json  sha256 and name of the GGUF file, sizes of the others, versions that read it
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from contextlib import redirect_stderr
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from cegm.durable import move_whole, sha256
from cegm.lab.models.names import gguf_of

SOURCE = "source.json"


def loadable(name: str) -> str:
    """What transformers is to load for the name of a model: the folder of a GGUF file's conversion, or the name itself.

    Raises:
        ValueError: A GGUF file that is missing, or no causal language model that transformers can read.
    """
    source = gguf_of(name)
    return name if source is None else str(converted(source))


def converted(source: Path) -> Path:
    """The folder in the cache that holds what is in a GGUF file; made if need be, by one process at a time.

    Raises:
        ValueError: The file is no causal language model that transformers can read; the cache stays as it was.
    """
    status = source.stat()
    digest = _digest(source, status.st_size, status.st_mtime_ns)
    kept = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cegm" / "models"
    folder = kept / f"{source.stem}-{digest[:16]}"
    if _is_whole(folder, digest):
        return folder
    kept.mkdir(parents=True, exist_ok=True)
    with FileLock(kept / f".{folder.name}.lock"):
        if not _is_whole(folder, digest):  # another process may have made it meanwhile
            why = "is damaged and made again" if folder.exists() else "is made, once"
            print(f"cegm: {folder} {why} from {source.name}", file=sys.stderr)
            _convert(source, digest, folder)
    return folder


@cache
def _digest(source: Path, size: int, changed: int) -> str:
    """sha256 of a file that looks so, hex."""
    return sha256(source)


def _is_whole(folder: Path, digest: str) -> bool:
    """Whether a folder was made from a file with this hash and has every file in its size."""
    try:
        facts = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in facts["files"]}
        return bool(facts["sha256"] == digest and facts["files"] == sizes)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _convert(source: Path, digest: str, folder: Path) -> None:
    writing = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)  # of a process that was killed
    writing.mkdir()
    try:
        with redirect_stderr(io.StringIO()):  # transformers draws bars
            for part in _read(source, writing):
                part.save_pretrained(writing)
        files = {path.name: path.stat().st_size for path in sorted(writing.iterdir())}
        versions = {package: version(package) for package in ("gguf", "torch", "transformers")}
        facts = {"file": source.name, "sha256": digest, "files": files, "versions": versions}
        (writing / SOURCE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        move_whole(writing, folder)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _read(source: Path, empty: Path) -> tuple[Any, Any]:
    """Tokenizer and model of a GGUF file; what lies beside it is not looked at, for the hash does not cover it."""
    file = {"gguf_file": str(source.absolute())}
    try:
        tokenizer = AutoTokenizer.from_pretrained(empty, **file)
        # Left as it is, the model stays marked quantized, and can be neither saved nor trained.
        unpacked = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(empty, **file, dtype=torch.float32, quantization_config=unpacked)
    except Exception as error:  # over foreign bytes the readers raise whatever comes
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{source} is no causal language model with a tokenizer that transformers can read ({said}); "
            "fetch it again if it may be cut short, or give another"
        ) from error
    return tokenizer, model
