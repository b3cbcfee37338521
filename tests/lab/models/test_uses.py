"""A GGUF file is a model like any other: trained, adapted, examined, planned, and known by its content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytest.importorskip("gguf")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cegm.durable import sha256
from cegm.explanation_text import own_tokenizer
from cegm.lab.cli import main
from cegm.lab.forecast.passes import settings_of
from cegm.lab.models.conversion import converted
from cegm.lab.train.contents import model_hash
from cegm.lab.train.model import load_model, load_tokenizer, weights_hash
from cegm.lab.train.run import train
from cegm.lab.train.run_config import RunConfig

Write = Callable[..., Path]


def run(source: Path, output: Path, **given: object) -> RunConfig:
    """A run of two steps on the world."""
    small = {"max_length": 64, "max_steps": 2, "per_device_train_batch_size": 2, "eval_rows": 2, "eval_steps": 0}
    return RunConfig(str(source), output_dir=str(output), method="adamw", progress=False, **{**small, **given})  # type: ignore[arg-type]


def test_a_trained_file_is_an_ordinary_folder_with_its_chat_template(gguf_file: Write, tmp_path: Path) -> None:
    source = gguf_file()
    summary = train(run(source, tmp_path / "run", learning_rate=1e-3))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert weights_hash(model) == summary.final_hash != summary.initial_hash
    assert summary.initial_hash == weights_hash(AutoModelForCausalLM.from_pretrained(converted(source)))
    template = AutoTokenizer.from_pretrained(converted(source)).chat_template
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model").chat_template == template is not None
    assert sorted(path.suffix for path in (tmp_path / "run" / "model").iterdir()).count(".safetensors") == 1


def test_adapters_of_a_file_find_it_again(gguf_file: Write, tmp_path: Path) -> None:
    source = gguf_file()
    train(run(source, tmp_path / "run", learning_rate=1e-3, lora_r=2))
    adapters = RunConfig(str(tmp_path / "run" / "model"), max_length=64)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")  # as transformers reads them, without us
    ids = torch.tensor([[5, 6, 7]])
    shutil.rmtree(converted(source))
    path = tmp_path / "run" / "model" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(source)}))
    own = load_model(adapters, load_tokenizer(adapters))
    assert torch.allclose(own(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-5)


def test_every_command_takes_a_file(gguf_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = gguf_file()
    config = run(source, tmp_path / "run")
    assert settings_of(config).num_hidden_layers == 2
    assert len(own_tokenizer(load_model(config, load_tokenizer(config)))) == len(load_tokenizer(config))
    arguments = ["--axes", "consistency", "--items", "1", "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", str(source), *arguments]) == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["settings"]["model"] == sha256(source)
    capsys.readouterr()
    assert main(["train", "--dry_run", "--model_name_or_path", str(source.with_name("missing.gguf"))]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_is_known_by_its_content_wherever_it_lies(gguf_file: Write, tmp_path: Path) -> None:
    source = gguf_file()
    (tmp_path / "folder").mkdir()
    copy = Path(shutil.copy(source, tmp_path / "folder" / "other.gguf"))
    assert model_hash(str(source)) == model_hash(str(copy)) == model_hash(str(copy.parent)) == sha256(source)
    assert model_hash(str(gguf_file(seed=1))) != sha256(copy)
