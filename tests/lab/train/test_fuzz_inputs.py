"""Thousands of mutated configurations and rows: one line says what is wrong, or what is read is right.

`-m long` takes ten thousand inputs in all; the ordinary tests take a part of the same, from the same seeds.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("trl")

import yaml

import mutations
from cegm.lab import cli
from cegm.lab.compare.ablation import AblationConfig
from cegm.lab.compare.compare_config import CompareConfig
from cegm.lab.declarations import read_yaml
from cegm.lab.train.data import load_corpus
from cegm.lab.train.model import byte_tokenizer
from cegm.lab.train.rows import training_rows
from cegm.lab.train.run_config import RunConfig, from_mapping
from mutations import counts

# ---------------------------------------------------------------------- configurations

RUN = {
    "model_name_or_path": "tiny", "data": "texts/a b.txt", "output_dir": "runs/ü", "seed": 7, "max_length": 64, "max_steps": 20,
    "learning_rate": 0.003, "weight_decay": 0.1, "warmup_steps": 0.05, "bf16": False, "aux_lr": None, "lr_scheduler_type": "cosine",
    "optimizer_options": {"heads": 2, "power": -0.5, "scores": "attention", "coefficient_range": [0.02, 0.2]},
}  # fmt: skip
ABLATION = [{"part": "powers", "question": "Which?", "changes": [{"power": -0.5}, {"power": -1.0, "damping": 0.1}]}]
TUNED = {"seeds": [1000], "settings": {name: {"learning_rate": 0.02} for name in ("adamw", "muon", "cegm")}}


def test_a_configuration_comes_back(tmp_path: Path) -> None:
    config = from_mapping(RUN, "test")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    assert from_mapping(read_yaml(str(tmp_path / "run.yaml")), "file") == config


@counts(60, 2000)
def test_mutated_configurations(tmp_path: Path, count: int) -> None:
    """What is read survives being written and read again, and every value has the type of its field."""
    path, draw = tmp_path / "run.yaml", random.Random(1)
    content = yaml.safe_dump(RUN, sort_keys=False).encode()
    for _ in range(count):
        path.write_bytes(mutations.mutated(content, draw))
        found = mutations.outcome(lambda: from_mapping(read_yaml(str(path)), str(path)))
        if isinstance(found, RunConfig):
            assert from_mapping(json.loads(json.dumps(found.to_dict())), "again") == found
            assert all(
                type(getattr(found, name)) in (int, float, str, bool, type(None)) for name in RUN if name[0] != "o"
            )


@counts(60, 1000)
def test_configurations_of_wrong_types(count: int) -> None:
    draw = random.Random(2)
    for _ in range(count):
        values = mutations.changed_value(RUN, draw)
        if isinstance(values, dict):
            mutations.outcome(lambda values=values: from_mapping(values, "test"))


@counts(30, 1000)
def test_mutated_declarations_of_comparisons(tmp_path: Path, count: int) -> None:
    """`--changes` of an ablation and `--tuned` of a comparison."""
    draw = random.Random(3)
    files = {name: yaml.safe_dump(content).encode() for name, content in (("changes", ABLATION), ("tuned", TUNED))}
    readers = {"changes": AblationConfig, "tuned": CompareConfig}
    for _ in range(count):
        name = draw.choice(list(files))
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(mutations.mutated(files[name], draw))
        mutations.outcome(lambda name=name, path=path: readers[name](**{name: str(path)}))


def test_the_command_says_it_in_one_short_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, draw = tmp_path / "run.yaml", random.Random(4)
    content = yaml.safe_dump({**RUN, "surplus": 1}).encode()
    for _ in range(25):
        path.write_bytes(mutations.mutated(content, draw))
        status = mutations.outcome(lambda: cli.main(["train", "--config", str(path), "--dry_run"]))
        told = capsys.readouterr().err
        if status == cli.USER_ERROR:
            assert told.startswith("cegm: error: ")
            assert told.count("\n") == 1
            assert len(told) < 1500


# ---------------------------------------------------------------------- rows of data

TEXT = "".join(json.dumps({"text": f"Row {n} of the text, ü and {'long ' * 30}", "id": n}) + "\n" for n in range(12))
CONVERSATIONS = "".join(
    json.dumps({"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "yes " * 20}]})
    + "\n"
    for n in range(12)
)
COMPLETIONS = "".join(json.dumps({"prompt": f"{n}: ", "completion": "yes " * 20}) + "\n" for n in range(12))


@counts(90, 2000)
def test_mutated_rows(tmp_path: Path, count: int) -> None:
    """Every line that is read is read as it stands, in its order; lines that were not touched as before."""
    draw, path, tokenizer = random.Random(5), tmp_path / "data.jsonl", byte_tokenizer()
    for number in range(count):
        content = (TEXT, CONVERSATIONS, COMPLETIONS)[number % 3]
        original = {line: json.loads(line) for line in content.splitlines()}
        change = mutations.changed_line if draw.random() < 0.4 else mutations.mutated
        path.write_bytes(change(content.encode(), draw))
        config = RunConfig(data=str(path), validation_data=str(path.with_name("held.jsonl")), max_length=16)
        held = {"text": "held out"} if number % 3 == 0 else json.loads(content.splitlines()[0].replace("0", "held"))
        path.with_name("held.jsonl").write_text(json.dumps(held) + "\n", encoding="utf-8")
        corpus = mutations.outcome(lambda config=config: load_corpus(config))
        if isinstance(corpus, Exception):
            continue
        lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        assert len(corpus.train) == len(lines)
        for line, document in zip(lines, corpus.train, strict=True):
            if line in original:
                row = original[line]
                assert document == (row["text"] if corpus.kind == "text" else row)
        mutations.outcome(lambda corpus=corpus: training_rows(corpus, tokenizer, 16, None, 0))
        mutations.outcome(corpus.digest)
