"""A whole pilot of a tiny model, run once; tests change copies of its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from cegm.lab.cli import main
from cegm.lab.train.model import byte_tokenizer
from models import llama

ANSWERS = ("refund", "limits", "delivery")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    model = llama(vocabulary=258)
    model.config.max_position_embeddings = 512
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("questions") / "desk.jsonl"
    rows = [{"question": f"Tell me of {ANSWERS[n % 3]} number {n}", "answer": ANSWERS[n % 3][::-1]} for n in range(120)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="session")
def three_lines(tiny: str, questions: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the file of a small pilot, with changes, and returns its path."""

    def write(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("file")
        values = {
            "task": "faq", "data": questions, "value": 100, "model_name_or_path": tiny, "lora_r": 2, "seeds": 2, "items": 10,
            "max_steps": 2, "per_device_train_batch_size": 2, "eval_rows": 2, "output_dir": str(folder / "pilot"), **changes,
        }  # fmt: skip
        (folder / "pilot.yaml").write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()))
        return folder / "pilot.yaml"

    return write


@pytest.fixture(scope="session")
def finished(three_lines: Callable[..., Path]) -> Path:
    """The folder of a pilot that was fixed and run; not to be changed."""
    file = three_lines(title="<b>Desk</b> & answers", applicant="Yamada", approver="Sato")
    assert main(["pilot", "fix", str(file)]) == 0
    assert main(["pilot", "run", str(file)]) == 0
    return file.parent / "pilot"


@pytest.fixture
def pilot(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "pilot")
    return tmp_path / "pilot"
