"""The notebook runs from top to bottom with a small model, and says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

for extra in ("trl", "peft", "msgspec"):
    pytest.importorskip(extra)

import torch  # noqa: E402

import scripts  # noqa: E402
from cegm.lab.train.model import byte_tokenizer  # noqa: E402
from models import llama  # noqa: E402

NOTEBOOK = Path(__file__).parents[2] / "examples" / "finetuning.ipynb"


def cells(kind: str) -> list[str]:
    """The cells of a kind, in their order."""
    return ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == kind]


def test_the_notebook_runs_from_top_to_bottom_and_shows_before_and_after(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    for part in (llama(vocabulary=len(tokenizer), pad_token_id=tokenizer.pad_token_id), tokenizer):
        part.save_pretrained(tmp_path / "model")
    settings = f"import os\nos.environ.update(MODEL={str(tmp_path / 'model')!r}, STEPS='3')"
    (tmp_path / "notebook.py").write_text("\n\n".join([settings, *cells("code")]))
    code, output = scripts.run(tmp_path / "notebook.py", tmp_path)
    assert code == 0, output
    rows = [
        line.split() for line in output.splitlines() if line.startswith(("documents", "questions", "conversations"))
    ]
    assert sorted(name for name, *_ in rows) == ["conversations", "documents", "questions"]
    assert all(float(after) < float(before) for _, before, after in rows)
    assert output.count("--- ") == 2


def test_the_notebook_is_kept_without_what_it_printed() -> None:
    kept = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in kept)
    assert cells("markdown")[0].startswith("# Fine-tune a small language model")
