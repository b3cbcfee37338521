"""Which checkpoint a run goes on from, and when it must not: with checkpoints that are written by hand, without training."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

pytest.importorskip("trl")

from cegm.lab.train.checkpoints import OPTIMIZER, WRITING, seal
from cegm.lab.train.contents import model_hash
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.meter import Meter
from cegm.lab.train.prepare import start
from cegm.lab.train.resume import MAY_DIFFER, RUN_STATE, Resumption, described, find
from cegm.lab.train.run_config import RunConfig

Make = Callable[..., RunConfig]


COUNTED: dict[str, Any] = {
    "weights": "", "data": "text", "model": None, "processes": 1, "metrics_bytes": 0, "metrics_hash": "",
    "meter": msgspec.to_builtins(Meter(torch.device("cpu")).state()),
    "validation": {"step": 0, "loss": 1.0, "bits_per_byte": 1.0},
}  # fmt: skip


def write(config: RunConfig, step: int, /, without: tuple[str, ...] = (), processes: int = 1, **changed: Any) -> Path:
    """A sealed checkpoint of a run, without weights."""
    folder = RunFolder.of(config)
    written = folder.checkpoints / WRITING / "written"
    written.mkdir(parents=True)
    state = {"step": step, **described(config), **COUNTED, "processes": processes, **changed}
    (written / RUN_STATE).write_text(json.dumps(state))
    (written / OPTIMIZER).write_bytes(bytes(range(200)))
    for name in without:
        (written / name).unlink()
    place = folder.checkpoints / f"step-{step}"
    seal(written, place, step)
    return place


def found(config: RunConfig) -> Resumption:
    return find(config, RunFolder.of(config))


@pytest.fixture
def latest(run_config: Make) -> RunConfig:
    """A run with checkpoints at steps 2 and 4."""
    config = run_config()
    write(config, 2)
    write(config, 4)
    return run_config(resume_from_checkpoint="latest")


def test_the_newest_whole_one(latest: RunConfig) -> None:
    resumption = found(latest)
    assert resumption.checkpoint.name == "step-4"
    assert resumption.state.step == 4
    assert resumption.notes == []
    assert resumption.has_optimizer


@pytest.mark.parametrize("name", [RUN_STATE, OPTIMIZER, "manifest.json"])
def test_a_damaged_one_is_passed_over_aloud(latest: RunConfig, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = RunFolder.of(latest).checkpoints / "step-4" / name
    path.write_bytes(path.read_bytes()[:-1])
    resumption = start(latest, RunFolder.of(latest))
    assert resumption is not None
    assert resumption.checkpoint.name == "step-2"
    said = capsys.readouterr().err
    assert said.startswith(f"cegm: warning: step-4 is damaged: {name} ")
    assert said.endswith("; going on from step-2 instead\n")
    assert said.count("\n") == 1


def test_none_is_whole(latest: RunConfig) -> None:
    for name in ("step-2", "step-4"):
        (RunFolder.of(latest).checkpoints / name / RUN_STATE).unlink()
    with pytest.raises(
        ValueError, match=r"no checkpoint of .*run is whole: step-4 is damaged: run_state\.json is missing; step-2"
    ):
        found(latest)


def test_none_at_all(run_config: Make) -> None:
    with pytest.raises(ValueError, match=r"has no checkpoint to resume from; start again in another output_dir"):
        found(run_config(resume_from_checkpoint="latest"))
    with pytest.raises(ValueError, match=r"nowhere/step-1 does not exist"):
        found(run_config(resume_from_checkpoint="nowhere/step-1"))


def test_a_named_one_is_never_replaced_by_another(latest: RunConfig, run_config: Make) -> None:
    place = RunFolder.of(latest).checkpoints / "step-4"
    (place / OPTIMIZER).write_bytes(b"")
    with pytest.raises(ValueError, match=r"step-4 is damaged: optimizer\.pt differs"):
        found(run_config(resume_from_checkpoint=str(place)))
    assert found(run_config(resume_from_checkpoint=str(place.parent / "step-2"))).state.step == 2


def test_a_renamed_checkpoint_says_its_own_step(latest: RunConfig) -> None:
    folder = RunFolder.of(latest).checkpoints
    (folder / "step-4").rename(folder / "step-40")
    assert found(latest).state.step == 4


def test_state_and_manifest_must_agree(run_config: Make) -> None:
    write(run_config(), 2, step_of_state=2)
    written = RunFolder.of(run_config()).checkpoints / WRITING / "written"
    written.mkdir(parents=True)
    (written / RUN_STATE).write_text(json.dumps({"step": 7, **described(run_config()), **COUNTED}))
    (written / OPTIMIZER).write_bytes(b"x")
    seal(written, written.parent.parent / "step-9", 9)
    resumption = found(run_config(resume_from_checkpoint="latest"))
    assert resumption.checkpoint.name == "step-2"
    assert "step-9 is damaged: run_state.json is of step 7, the manifest of step 9" in resumption.notes[0]


@pytest.mark.parametrize("sealed_without", [True, False])
def test_a_missing_optimizer_is_an_error_unless_asked_for(run_config: Make, sealed_without: bool) -> None:
    place = write(run_config(), 2, without=(OPTIMIZER,) if sealed_without else ())
    (place / OPTIMIZER).unlink(missing_ok=True)
    with pytest.raises(
        ValueError, match=r"optimizer\.pt is missing \(resume_without_optimizer goes on with a fresh one\)"
    ):
        found(run_config(resume_from_checkpoint="latest"))
    resumption = found(run_config(resume_from_checkpoint="latest", resume_without_optimizer=True))
    assert not resumption.has_optimizer
    assert resumption.notes == ["step-2 has no optimizer.pt: the optimizer starts afresh"]


def test_a_damaged_optimizer_is_never_asked_for(run_config: Make) -> None:
    place = write(run_config(), 2)
    (place / OPTIMIZER).write_bytes(b"other")
    with pytest.raises(ValueError, match=r"optimizer\.pt differs from the manifest"):
        found(run_config(resume_from_checkpoint="latest", resume_without_optimizer=True))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "made with seed=0, this run has seed=1"),
        ({"learning_rate": 0.5}, "made with learning_rate=0.01, this run has learning_rate=0.5"),
        ({"max_steps": 60}, "made with max_steps=6, this run has max_steps=60"),
        ({"optimizer_options": {"betas": (0.8, 0.9)}}, "made with optimizer_options={}"),
        ({"per_device_train_batch_size": 2}, "made with 4 rows per step, this run has 2"),
    ],
)
def test_another_run_is_refused_in_one_line(
    run_config: Make, latest: RunConfig, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        found(latest).require_same(run_config(**changed), "text", 1)
    assert "\n" not in str(raised.value)


def test_other_text_is_refused(latest: RunConfig) -> None:
    with pytest.raises(ValueError, match="was made from other text than"):
        found(latest).require_same(latest, "other", 1)


def test_what_may_differ_are_options_that_exist() -> None:
    assert set(MAY_DIFFER) <= {field.name for field in dataclasses.fields(RunConfig)}


def test_what_only_decides_what_is_seen_may_change(run_config: Make, latest: RunConfig) -> None:
    seen = {
        "logging_steps": 3,
        "eval_steps": 1,
        "save_steps": 7,
        "save_total_limit": 2,
        "threads": 2,
        "progress": False,
    }
    found(latest).require_same(run_config(**seen, data="moved.txt", output_dir="elsewhere"), "text", 1)
    parts = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    found(latest).require_same(run_config(**parts), "text", 2)  # the same rows per step, by two processes


def test_a_model_is_known_by_what_its_folder_holds(run_config: Make, model_folder: str, tmp_path: Path) -> None:
    mine, moved = tmp_path / "mine", tmp_path / "moved"
    for place in (mine, moved):
        shutil.copytree(model_folder, place)
    config = run_config(model_name_or_path=str(mine))
    write(config, 2, model=model_hash(str(mine)))
    for place in (mine, moved):
        found(replace(config, resume_from_checkpoint="latest")).require_same(
            replace(config, model_name_or_path=str(place)), "text", 1
        )
    settings = json.loads((mine / "tokenizer_config.json").read_text())
    (mine / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 7}))
    with pytest.raises(ValueError, match=r"was made from another model than .*mine holds now"):
        found(replace(config, resume_from_checkpoint="latest")).require_same(config, "text", 1)
    shutil.copyfile(mine / "tokenizer_config.json", moved / "tokenizer_config.json")
    with pytest.raises(ValueError, match="model_name_or_path"):
        found(replace(config, resume_from_checkpoint="latest")).require_same(
            replace(config, model_name_or_path=str(moved)), "text", 1
        )


def test_options_of_the_optimizer_survive_as_they_are(run_config: Make) -> None:
    config = run_config(method="cegm", optimizer_options={"aux_betas": (0.9, 0.99), "heads": 2})
    write(config, 2)
    find(run_config(resume_from_checkpoint="latest"), RunFolder.of(config)).require_same(config, "text", 1)


def test_an_option_that_came_later_had_its_default(run_config: Make) -> None:
    config = run_config()
    known = {name: value for name, value in described(config)["config"].items() if name != "replay"}
    write(config, 2, config=known)
    find(run_config(resume_from_checkpoint="latest"), RunFolder.of(config)).require_same(config, "text", 1)
    other = replace(config, max_length=9)
    with pytest.raises(ValueError, match="max_length"):
        found(run_config(resume_from_checkpoint="latest")).require_same(other, "text", 1)


def test_another_version_is_told(run_config: Make) -> None:
    versions = described(run_config())["versions"]
    write(run_config(), 2, versions={**versions, "torch": "1.0.0", "code": "0" * 64})
    (note,) = found(run_config(resume_from_checkpoint="latest")).notes
    assert "made with torch 1.0.0 (now " in note
    assert "another state of cegm's code" in note
    assert "0000" not in note


def test_other_cuts_are_told(run_config: Make) -> None:
    write(run_config(sharding="fsdp"), 2)
    (note,) = found(run_config(resume_from_checkpoint="latest")).notes
    assert "made with sharding fsdp (now ddp); the rest will not be the same to the bit" in note
    assert found(run_config(resume_from_checkpoint="latest", sharding="fsdp")).notes == []


def test_another_number_of_processes_is_told(run_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    write(run_config(), 2, processes=2)
    (note,) = found(run_config(resume_from_checkpoint="latest")).notes
    assert "made with processes 2 (now 1); the rest will not be the same to the bit" in note
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert found(run_config(resume_from_checkpoint="latest")).notes == []


def test_a_folder_with_another_run_is_left_alone(run_config: Make, latest: RunConfig, tmp_path: Path) -> None:
    other = run_config(
        output_dir=str(tmp_path / "other"), resume_from_checkpoint=str(RunFolder.of(latest).checkpoints / "step-2")
    )
    assert found(other).state.step == 2
    RunFolder.of(other).root.mkdir()
    RunFolder.of(other).config.write_text("config: {}")
    with pytest.raises(ValueError, match="holds another run than"):
        found(other)


@pytest.mark.parametrize("limit", [-1, 1])
def test_one_checkpoint_is_too_few(run_config: Make, limit: int) -> None:
    with pytest.raises(ValueError, match=f"save_total_limit={limit} must be 0 or at least 2"):
        run_config(save_total_limit=limit)
