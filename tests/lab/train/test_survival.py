"""Runs that are killed, damaged and resumed end as if nothing had happened, to the bit; or they stop and say why."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, set_seed

import survivors
from cegm.durable import sole_writer
from cegm.lab.train import checkpoints, verification
from cegm.lab.train.audit import read
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.resume import find
from cegm.lab.train.run import RunSummary, train
from cegm.lab.train.run_config import RunConfig

Make = Callable[..., RunConfig]

CLOCKS = ("seconds", "_per_second", "memory_bytes")
"""Parts of names of what no two runs share."""

STEPS_PER_EPOCH = 2


@pytest.fixture(scope="module")
def restless(model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model with dropout in its attention, so that random states matter in every step."""
    folder = tmp_path_factory.mktemp("restless")
    set_seed(0)
    LlamaForCausalLM(LlamaConfig.from_pretrained(model_folder, attention_dropout=0.3)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def short_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """23 rows of 32 bytes: in micro-batches of 4, four a step, an epoch has two steps, the second with two micro-batches."""
    path = tmp_path_factory.mktemp("short") / "text.txt"
    draw = random.Random(3)
    path.write_text(" ".join(draw.choice(["river", "boats", "night", "small"]) for _ in range(132)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def hard(restless: str, short_text: str) -> Make:
    """Three epochs with accumulation, an incomplete window at the end of each, dropout, and lines that span checkpoints."""

    def make(**given: Any) -> RunConfig:
        defaults = {
            "model_name_or_path": restless, "data": short_text, "method": "cegm", "num_train_epochs": 3, "max_length": 32,
            "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "learning_rate": 1e-2, "threads": 1,
            "save_steps": 1, "logging_steps": 4, "eval_steps": 3, "eval_rows": 4,
            "optimizer_options": {"refresh_every": 2, "coefficient": "progress", "recurrence": 0.5, "power": -0.5},
        }  # fmt: skip
        return RunConfig(**{**defaults, **given})

    return make


@pytest.fixture(scope="module")
def undisturbed(hard: Make, tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """The hard run from start to end."""
    return train(hard(output_dir=str(tmp_path_factory.mktemp("undisturbed") / "run")))


def lines(folder: str | Path) -> list[dict[str, Any]]:
    """`metrics.jsonl` without what clocks and memory say."""
    records = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{n: v for n, v in record.items() if not any(part in n for part in CLOCKS)} for record in records]


def ends_alike(one: RunSummary, other: RunSummary) -> None:
    for name in (
        "steps",
        "tokens",
        "loss",
        "bits_per_byte",
        "batch_hash",
        "initial_hash",
        "final_hash",
        "optimizer_state_bytes",
    ):
        assert getattr(one, name) == getattr(other, name), name


def whole(folder: str | Path) -> None:
    findings = verification.verify(Path(folder))
    assert {finding.state for finding in findings} == {"whole"}, verification.table(findings)


@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_resume_anywhere_in_the_epochs(hard: Make, undisturbed: RunSummary, tmp_path: Path, step: int) -> None:
    """In the middle of the first epoch, at its end, in the second, at the end of all."""
    assert undisturbed.steps == 3 * STEPS_PER_EPOCH
    checkpoint = Path(undisturbed.output_dir) / "checkpoints" / f"step-{step}"
    ends_alike(train(hard(output_dir=str(tmp_path / "run"), resume_from_checkpoint=str(checkpoint))), undisturbed)
    whole(tmp_path / "run")


def test_resume_in_place_leaves_the_same_metrics(hard: Make, undisturbed: RunSummary, tmp_path: Path) -> None:
    """Means since the last line go on over a checkpoint between two lines; no step is validated or told twice."""
    shutil.copytree(undisturbed.output_dir, tmp_path / "run")
    before = lines(tmp_path / "run")
    assert [(line["kind"], line["step"]) for line in before if line["kind"] == "validation"] == [
        ("validation", 0), ("validation", 3), ("validation", 6),
    ]  # fmt: skip
    for step in (3, 5, 6):
        checkpoint = tmp_path / "run" / "checkpoints" / f"step-{step}"
        resuming = hard(output_dir=str(tmp_path / "run"), resume_from_checkpoint=str(checkpoint))
        ends_alike(train(resuming), undisturbed)
        assert lines(tmp_path / "run") == before
    whole(tmp_path / "run")


@pytest.mark.parametrize(
    "options",
    [
        {"scores": "attention", "recurrence": 0.9, "refresh_every": 4, "power": -0.5},
        {"scores": "alignment", "hierarchy": "block", "coefficient": "hypergradient"},
        {"scores": "random", "coefficient": "plateau", "map_first": True},
        {"scores": "shuffled", "coefficient": "cosine", "coefficient_period": 6, "flow_time": 0.5},
    ],
    ids=lambda options: options["scores"],
)
def test_contexts_and_controllers_go_on(run_config: Make, tmp_path: Path, options: dict[str, Any]) -> None:
    given = {"method": "cegm", "save_steps": 3, "optimizer_options": options}
    reference = train(run_config(**given, output_dir=str(tmp_path / "whole")))
    checkpoint = str(tmp_path / "whole" / "checkpoints" / "step-3")
    ends_alike(
        train(run_config(**given, output_dir=str(tmp_path / "resumed"), resume_from_checkpoint=checkpoint)), reference
    )


def test_averages_that_are_shown_at_a_checkpoint_go_on(run_config: Make, tmp_path: Path) -> None:
    given = {"method": "schedule_free", "lr_scheduler_type": "constant_with_warmup", "save_steps": 3, "eval_steps": 3}
    reference = train(run_config(**given, output_dir=str(tmp_path / "whole")))
    checkpoint = str(tmp_path / "whole" / "checkpoints" / "step-3")
    ends_alike(
        train(run_config(**given, output_dir=str(tmp_path / "resumed"), resume_from_checkpoint=checkpoint)), reference
    )


def test_a_run_that_had_ended_gets_no_further_step(run_config: Make, short_text: str) -> None:
    """Its last step lies in the middle of an epoch, where transformers would take one more."""
    given = {"data": short_text, "max_steps": 8, "save_steps": 8}
    reference = train(run_config(**given))
    assert reference.steps == 8
    ends_alike(train(run_config(**given, resume_from_checkpoint="latest")), reference)


def test_how_often_to_save_is_what_the_resumed_run_says(run_config: Make, tmp_path: Path) -> None:
    train(run_config(save_steps=4))
    resumed = run_config(save_steps=1, resume_from_checkpoint=str(tmp_path / "run" / "checkpoints" / "step-4"))
    train(resumed)
    names = [path.name for path in checkpoints.numbered(RunFolder.of(resumed).checkpoints)]
    assert names == ["step-6", "step-5", "step-4"]


def test_only_the_newest_are_kept(run_config: Make, tmp_path: Path) -> None:
    train(run_config(save_steps=1, save_total_limit=2))
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"step-5", "step-6"}
    whole(tmp_path / "run")


# ---------------------------------------------------------------------- killed


@pytest.mark.parametrize(
    ("place", "call", "resumed_at"),
    [
        ("in an accumulation window", 6, 1),  # an epoch has six micro-batches, in steps of four and two
        ("in an accumulation window", 6 + 2, 2),
        ("in an accumulation window", 6 + 6, 3),
        ("before the manifest", 2, 1),
        ("before the move", 3, 2),
        ("before a rename", 4, 1),
        ("before an event", 4, 3),  # after start and two checkpoints: the third is there, the log does not know it yet
        ("in a line of metrics", 3, 2),
    ],
)
def test_killed_on_the_spot(
    hard: Make, undisturbed: RunSummary, tmp_path: Path, place: str, call: int, resumed_at: int
) -> None:
    killed = survivors.start(hard(output_dir=str(tmp_path / "run")), place, call)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    ends_alike(train(hard(output_dir=str(tmp_path / "run"), resume_from_checkpoint="latest")), undisturbed)
    (resume,) = [event for event in read(tmp_path / "run" / "audit.jsonl")[0] if event["event"] == "resume"]
    assert resume["step"] == resumed_at
    assert resume["notes"] == []
    assert lines(tmp_path / "run") == lines(undisturbed.output_dir)
    assert not (tmp_path / "run" / "checkpoints" / checkpoints.WRITING).exists()
    whole(tmp_path / "run")


def when_lines(process: BaseProcess, log: Path, count: int) -> float:
    """The time at which a log is seen to have so many lines, or the process to have ended."""
    while process.is_alive() and (not log.exists() or log.read_bytes().count(b"\n") < count):
        time.sleep(0.002)
    return time.monotonic()


def test_killed_again_and_again_at_random(hard: Make, tmp_path: Path) -> None:
    given = {"num_train_epochs": 10, "logging_steps": 1}
    reference = train(hard(**given, output_dir=str(tmp_path / "whole")))
    run, begun, kills, draw = tmp_path / "run", 0, 0, random.Random(5)
    for _ in range(5):
        again = {"resume_from_checkpoint": "latest"} if checkpoints.numbered(run / "checkpoints") else {}
        if not again:  # killed before the first checkpoint: nothing to go on from
            shutil.rmtree(run, ignore_errors=True)
        process = survivors.start(hard(**given, **again, output_dir=str(run)))
        log, more = run / "metrics.jsonl", draw.randint(2, 3)
        first = when_lines(process, log, begun + 1)
        pace = (when_lines(process, log, begun + more) - first) / (more - 1)
        time.sleep(draw.random() * pace)  # somewhere within a step, however long that takes here
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        begun = log.read_bytes().count(b"\n")
    assert kills >= 3
    ends_alike(train(hard(**given, output_dir=str(run), resume_from_checkpoint="latest")), reference)
    assert lines(run) == lines(tmp_path / "whole")
    whole(run)


def test_a_full_disk_stops_the_run_and_costs_no_older_checkpoint(
    run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = train(run_config(save_steps=2, output_dir=str(tmp_path / "whole")))

    def full(step: int, entries: Any) -> bytes:
        raise OSError(28, "No space left on device")

    original = checkpoints._manifest
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_manifest", lambda step, entries: (original if step < 4 else full)(step, entries))
        with pytest.raises(OSError, match="No space left"):
            train(run_config(save_steps=2))
    assert [event["event"] for event in read(tmp_path / "run" / "audit.jsonl")[0]] == ["start", "checkpoint", "stopped"]
    ends_alike(train(run_config(save_steps=2, resume_from_checkpoint="latest")), reference)


# ---------------------------------------------------------------------- damaged


def test_every_file_of_a_checkpoint_counts(run_config: Make, tmp_path: Path) -> None:
    train(run_config(method="cegm", max_steps=2, save_steps=1))
    resuming = run_config(method="cegm", max_steps=2, resume_from_checkpoint="latest")
    newest = tmp_path / "run" / "checkpoints" / "step-2"
    names = sorted(path.name for path in newest.iterdir())
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} < set(names)
    assert not [name for name in names if name.endswith(checkpoints.PICKLES)]
    for name in names:
        good = (newest / name).read_bytes()
        middle = len(good) // 2
        for damaged in (good[:middle], good[:middle] + bytes([good[middle] ^ 16]) + good[middle + 1 :], None):
            (newest / name).unlink()
            if damaged is not None:
                (newest / name).write_bytes(damaged)
            found = find(resuming, RunFolder.of(resuming))
            assert found.checkpoint.name == "step-1"
            assert found.notes[0].startswith(f"step-2 is damaged: {name} ")
            (newest / name).write_bytes(good)
    assert find(resuming, RunFolder.of(resuming)).checkpoint.name == "step-2"


def test_the_run_goes_on_from_the_one_before_and_says_so(
    run_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = train(run_config(save_steps=2, output_dir=str(tmp_path / "whole")))
    train(run_config(save_steps=2))
    (tmp_path / "run" / "checkpoints" / "step-6" / "rng_state.pth").write_bytes(b"")
    ends_alike(train(run_config(save_steps=2, resume_from_checkpoint="latest")), reference)
    line = "step-6 is damaged: rng_state.pth differs from the manifest; going on from step-4 instead"
    assert f"cegm: warning: {line}\n" in capsys.readouterr().err
    (resume,) = [event for event in read(tmp_path / "run" / "audit.jsonl")[0] if event["event"] == "resume"]
    assert (resume["step"], resume["notes"]) == (4, [line])
    whole(tmp_path / "run")  # step-6 was made again


def test_a_checkpoint_that_torch_cannot_write_is_one_line(run_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.save raises when the disk is full is a RuntimeError, which is nobody's to read."""

    def full(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 23168 vs 23056")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="the checkpoint of step 2 could not be written") as raised:
        train(run_config(max_steps=2, save_steps=2))
    assert "\n" not in str(raised.value)


class Malice:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_unpickled(run_config: Make, tmp_path: Path, name: str, zipped: bool) -> None:
    """Not even from a checkpoint whose manifest was made to fit."""
    train(run_config(max_steps=2, save_steps=1))
    folder = RunFolder.of(run_config())
    (folder.checkpoints / "step-1").rename(folder.root / "forged")
    malice = Malice(tmp_path / "executed")
    if zipped:
        torch.save(malice, folder.root / "forged" / name)
    else:
        (folder.root / "forged" / name).write_bytes(pickle.dumps(malice))
    checkpoints.seal(folder.root / "forged", folder.checkpoints / "step-1", 1)
    with pytest.raises(ValueError, match="holds more than tensors and plain values, which is never loaded") as raised:
        train(run_config(max_steps=2, resume_from_checkpoint=str(folder.checkpoints / "step-1")))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "executed").exists()


def test_weights_that_are_not_the_saved_ones_are_refused(run_config: Make, tmp_path: Path) -> None:
    """A whole checkpoint whose weights lack a part, which transformers takes in silence."""
    from safetensors.torch import load_file, save_file

    train(run_config(max_steps=2, save_steps=1, warmup_steps=0))
    place = tmp_path / "run" / "checkpoints" / "step-1"
    weights = load_file(place / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    checkpoints.seal(place.rename(tmp_path / "forged"), place, 1)
    with pytest.raises(ValueError, match=r"the weights of .*step-1 do not fit"):
        train(run_config(max_steps=2, warmup_steps=0, resume_from_checkpoint=str(place)))


def test_without_the_optimizer_the_schedule_goes_on(run_config: Make, tmp_path: Path) -> None:
    train(run_config(save_steps=3, output_dir=str(tmp_path / "whole")))
    train(run_config(save_steps=3))
    for step in (3, 6):
        (tmp_path / "run" / "checkpoints" / f"step-{step}" / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match=r"optimizer\.pt is missing"):
        train(run_config(resume_from_checkpoint="latest"))
    place = str(tmp_path / "run" / "checkpoints" / "step-3")
    train(run_config(resume_from_checkpoint=place, resume_without_optimizer=True))
    (resume,) = [event for event in read(tmp_path / "run" / "audit.jsonl")[0] if event["event"] == "resume"]
    assert resume["optimizer"] == "fresh"
    rates, expected = (
        [line["lr_matrix"] for line in lines(tmp_path / name) if line["kind"] == "train"] for name in ("run", "whole")
    )
    assert rates == expected
    losses, others = (
        [line["loss"] for line in lines(tmp_path / name) if line["kind"] == "train"] for name in ("run", "whole")
    )
    assert losses[:4] == others[:4]  # the fourth is of the weights before the first fresh step
    assert losses[4:] != others[4:]


# ---------------------------------------------------------------------- refused


def test_another_run_is_refused_and_the_folder_left_alone(run_config: Make, tmp_path: Path, text_file: str) -> None:
    train(run_config(save_steps=3))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    (tmp_path / "other.txt").write_text(Path(text_file).read_text().upper())
    for changed, message in (({"seed": 1}, "seed=1"), ({"data": str(tmp_path / "other.txt")}, "other text")):
        with pytest.raises(ValueError, match=message):
            train(run_config(**changed, resume_from_checkpoint="latest"))
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_metrics_that_lost_lines_are_not_continued(run_config: Make, tmp_path: Path) -> None:
    train(run_config(save_steps=3))
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl has \d+ bytes, but \d+ when the checkpoint was made"):
        train(run_config(save_steps=3, resume_from_checkpoint="latest"))


def test_two_processes_never_write_to_one_run(run_config: Make, tmp_path: Path) -> None:
    train(run_config(save_steps=3))
    with sole_writer(tmp_path / "run"), pytest.raises(ValueError, match="another process is writing to"):
        train(run_config(save_steps=3, resume_from_checkpoint="latest"))
    whole(tmp_path / "run")
