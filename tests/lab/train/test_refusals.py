"""A run that fails before its first step leaves nothing, and the same command says the same again; what data it leaves out is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cegm.lab.cli import main
from cegm.lab.forecast.dry_run import describe
from cegm.lab.train import audit
from cegm.lab.train import run as run_module
from cegm.lab.train.callbacks import Validation
from cegm.lab.train.run import train
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import RunTrainer

Make = Callable[..., RunConfig]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (RunTrainer, "create_optimizer"),
        (RunTrainer, "get_train_dataloader"),
        (RunTrainer, "create_scheduler"),
        (Validation, "on_train_begin"),
        (RunTrainer, "training_step"),
        (run_module, "write_config"),
    ],
)
@pytest.mark.parametrize("error", [ValueError, RuntimeError, OSError, KeyboardInterrupt])
def test_whatever_fails_before_the_first_step_leaves_nothing(
    run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: type[BaseException]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error("no luck")

    config = run_config()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        for _ in range(2):
            with pytest.raises(error, match="no luck"):
                train(config)
            assert not list(tmp_path.iterdir())


def test_what_was_in_the_folder_stays(run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").write_text("mine")
    monkeypatch.setattr(RunTrainer, "training_step", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(run_config())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log.txt"]


def test_a_run_that_fails_after_a_step_keeps_its_traces(
    run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = RunTrainer.training_step

    def second_fails(self: RunTrainer, *given: Any, **more: Any) -> Any:
        if self.state.global_step == 1:
            raise RuntimeError("out of memory")
        return step(self, *given, **more)

    monkeypatch.setattr(RunTrainer, "training_step", second_fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(run_config())
    last = audit.read(tmp_path / "run" / "audit.jsonl")[0][-1]
    assert (last["event"], last["step"]) == ("stopped", 1)
    with pytest.raises(ValueError, match="already holds a run"):
        train(run_config())


def test_a_resumption_elsewhere_that_fails_at_once_leaves_nothing(
    run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(run_config(save_steps=3))
    checkpoint = str(tmp_path / "run" / "checkpoints" / "step-3")
    config = run_config(resume_from_checkpoint=checkpoint, output_dir=str(tmp_path / "new"))
    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, "training_step", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config)
    assert not (tmp_path / "new").exists()
    assert train(config).steps == 6


LONG = [{"prompt": f"{number:02}" * (40 if number % 2 else 2), "completion": "answer"} for number in range(40)]


def test_rows_that_are_dropped_are_told_wherever_one_looks(
    run_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(data=write(tmp_path / "a.jsonl", LONG))
    train(config)
    said = capsys.readouterr().err
    assert "cegm: warning: max_length=32: " in said
    described = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["left_out"]
    started = audit.read(tmp_path / "run" / "audit.jsonl")[0][0]
    assert started["left_out"] == described
    losses = described["training rows"]
    assert 0 < losses["dropped"] < losses["rows"]
    assert f"{losses['dropped']} of {losses['rows']} training rows were dropped" in said
    dry = describe(run_config(data=config.data, output_dir=str(tmp_path / "other")))
    assert all(line.removeprefix("cegm: warning: ") in dry for line in said.splitlines())


@pytest.mark.parametrize("dry", [True, False])
def test_rows_that_are_all_dropped_refuse_the_run(
    run_config: Make, tmp_path: Path, dry: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(data=write(tmp_path / "a.jsonl", LONG[1::2]))
    words = ["train", "--model_name_or_path", config.model_name_or_path, "--data", config.data, "--max_length", "32"]
    for _ in range(2):
        assert main([*words, "--output_dir", str(tmp_path / "run"), "--dry_run", str(dry)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "max_length=32 leaves nothing to learn" in said
        assert not (tmp_path / "run").exists()


def test_files_that_are_left_out_are_told(run_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "texts"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.txt", "B.TXT"):
        (folder / name).write_text("some words " * 300)
    (folder / "c.csv").write_text("a,b")
    train(run_config(data=str(folder), max_steps=1))
    said = capsys.readouterr().err
    assert f"cegm: warning: left out of {folder}: 1 hidden (.ipynb_checkpoints), 1 neither .txt nor .md (c.csv)" in said
    described = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["left_out"]
    assert described == {
        "hidden": {"count": 1, "first": [".ipynb_checkpoints"]},
        "neither .txt nor .md": {"count": 1, "first": ["c.csv"]},
    }
    assert "c.csv" in describe(run_config(data=str(folder), output_dir=str(tmp_path / "other")))


def test_nothing_left_out_says_nothing(run_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(run_config(max_steps=1))
    assert capsys.readouterr().err == ""
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["left_out"] == {}
