"""Whole runs: what they write, that they repeat to the bit, resume to the bit, and stop before a bad update."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM, AutoTokenizer

from cegm.lab.baselines import METHODS, option_names
from cegm.lab.train import audit
from cegm.lab.train import trainer as trainer_module
from cegm.lab.train.health import NonFiniteError
from cegm.lab.train.model import weights_hash
from cegm.lab.train.run import RunSummary, train
from cegm.lab.train.run_config import RunConfig, from_mapping

Make = Callable[..., RunConfig]

TRAIN_KEYS = {
    "kind", "step", "tokens", "loss", "lr_matrix", "lr_adamw", "gradient_norm", "clip_factor", "entanglement",
    "clipped_share", "spike_score", "spikes", "skipped_steps",
    "tokens_per_second", "seconds", "forward_backward_seconds", "optimizer_seconds", "refreshed", "memory_bytes", "batch_hash",
}  # fmt: skip
ADAMW_KEYS = {"gradient_norm", "update_to_weight", "gradient_rank", "update_rank"}
LAYER_KEYS = ADAMW_KEYS | {"mapped_rank", "context_rank", "gradient_context_rank", "cosine", "entanglement"}


def read(folder: str | Path, kind: str) -> list[dict[str, Any]]:
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(folder: str | Path) -> list[float]:
    return [record["loss"] for record in read(folder, "train")]


def events(folder: str | Path) -> list[dict[str, Any]]:
    audit.read(Path(folder) / "audit.jsonl")
    return [json.loads(line) for line in (Path(folder) / "audit.jsonl").read_text().splitlines()]


def own(method: str) -> dict[str, Any]:
    """What a method cannot do without."""
    return {"method": method, **({"lr_scheduler_type": "constant_with_warmup"} if method == "schedule_free" else {})}


@pytest.fixture(scope="module")
def finished(model_folder: str, text_file: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSummary]:
    """The same short run with every method."""
    root = tmp_path_factory.mktemp("finished")
    config = {
        "model_name_or_path": model_folder, "data": text_file, "max_length": 32, "per_device_train_batch_size": 4, "max_steps": 8,
        "logging_steps": 1, "eval_steps": 4, "eval_rows": 4, "learning_rate": 1e-2, "threads": 1, "warmup_steps": 2, "aux_lr": 5e-3,
    }  # fmt: skip
    return {m: train(from_mapping({**config, **own(m), "output_dir": str(root / m)}, "test")) for m in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_run_folder(finished: dict[str, RunSummary], method: str) -> None:
    summary = finished[method]
    folder = Path(summary.output_dir)
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "metrics.jsonl", "audit.jsonl", "model"}
    described = yaml.safe_load((folder / "config.yaml").read_text())
    assert from_mapping(described["config"], "file").method == method
    assert set(described["versions"]) >= {"python", "torch", "transformers", "trl", "cegm"}
    assert {name: len(value) for name, value in described["hashes"].items()} == {
        "data": 64,
        "code": 64,
        "initial_weights": 64,
    }
    assert described["model"] == {"parameters": summary.parameters, "vocabulary": 258, "max_length": 32}
    assert described["tokens"] == {"train": 8 * 4 * 32, "validation": 4 * 31, "validation_bytes": 4 * 31}
    assert described["threads"] == 1
    (final,) = read(folder, "final")
    assert final["final_hash"] == summary.final_hash
    assert [event["event"] for event in events(folder)] == ["start", "finish"]


@pytest.mark.parametrize("method", METHODS)
def test_metrics(finished: dict[str, RunSummary], method: str) -> None:
    folder = finished[method].output_dir
    trained = read(folder, "train")
    assert [record["step"] for record in trained] == list(range(1, 9))
    assert [record["tokens"] for record in trained] == [128 * step for step in range(1, 9)]
    for record in trained:
        assert set(record) - {"layers"} == TRAIN_KEYS
        assert record["lr_matrix"] == pytest.approx(2 * record["lr_adamw"])  # one schedule moves both
        assert record["clip_factor"] == pytest.approx(min(1.0, 1.0 / record["gradient_norm"]), rel=1e-4)
        assert record["clipped_share"] == (record["gradient_norm"] > 1.0)
        assert (record["spikes"], record["skipped_steps"], record["spike_score"]) == (0, 0, None)
        for layer in record.get("layers", {}).values():
            assert set(layer) == (ADAMW_KEYS if method in ("adamw", "l2_sp", "ewc") else LAYER_KEYS)
    assert trained[-1]["lr_matrix"] < trained[2]["lr_matrix"] or method == "schedule_free"  # decayed
    seconds = [record["seconds"] for record in trained]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(
        sum(r["forward_backward_seconds"] + r["optimizer_seconds"] for r in trained), rel=1e-3
    )
    validated = read(folder, "validation")
    assert [record["step"] for record in validated] == [0, 4, 8]
    assert validated[0]["loss"] == pytest.approx(
        torch.tensor(258.0).log().item(), abs=0.2
    )  # an untrained model guesses
    assert validated[-1]["loss"] < validated[0]["loss"]
    assert "layers" in trained[0] or method not in ("cegm", "muon", "adamw")


def test_methods_share_weights_and_batches(finished: dict[str, RunSummary]) -> None:
    assert len({summary.initial_hash for summary in finished.values()}) == 1
    assert len({summary.batch_hash for summary in finished.values()}) == 1
    assert len({summary.final_hash for summary in finished.values()}) == len(METHODS)
    untrained = [read(summary.output_dir, "validation")[0]["loss"] for summary in finished.values()]
    assert untrained == pytest.approx(untrained[:1] * len(METHODS), rel=1e-5)  # MAC's attention rounds differently


def test_saved_model_is_the_trained_one(finished: dict[str, RunSummary]) -> None:
    summary = finished["cegm"]
    folder = Path(summary.output_dir) / "model"
    assert weights_hash(AutoModelForCausalLM.from_pretrained(folder)) == summary.final_hash
    assert AutoTokenizer.from_pretrained(folder).decode([3, 4]) != ""
    assert "cegm" in (folder / "README.md").read_text()
    assert not list(folder.glob("*.bin"))


@pytest.mark.parametrize("method", ["muon", "cegm"])
def test_same_seed_repeats_to_the_bit_and_looking_on_changes_nothing(
    run_config: Make, tmp_path: Path, finished: dict[str, RunSummary], method: str
) -> None:
    given = {"method": method, "max_steps": 8, "warmup_steps": 2, "aux_lr": 5e-3}
    silent = train(run_config(**given, output_dir=str(tmp_path / "silent"), logging_steps=0, progress=False))
    again = train(run_config(**given, output_dir=str(tmp_path / "again"), logging_steps=1))
    assert losses(tmp_path / "again") == losses(finished[method].output_dir)
    assert silent.final_hash == again.final_hash == finished[method].final_hash
    assert silent.loss == again.loss == finished[method].loss


def test_another_seed_is_another_run(run_config: Make, tmp_path: Path) -> None:
    first = train(run_config(seed=1, model_name_or_path="tiny", max_steps=1, output_dir=str(tmp_path / "1")))
    second = train(run_config(seed=2, model_name_or_path="tiny", max_steps=1, output_dir=str(tmp_path / "2")))
    assert first.batch_hash != second.batch_hash
    assert first.initial_hash != second.initial_hash


@pytest.mark.parametrize("method", METHODS)
def test_accumulation_changes_nothing_but_rounding(run_config: Make, tmp_path: Path, method: str) -> None:
    given = {**own(method), "max_steps": 20, "learning_rate": 3e-3}
    if "precision" in option_names(method):
        given["optimizer_options"] = {
            "precision": "float32"
        }  # some processors multiply bfloat16, whose rounding is 2e-3
    whole = train(run_config(**given, per_device_train_batch_size=8, output_dir=str(tmp_path / "8x1")))
    parts = train(
        run_config(
            **given, per_device_train_batch_size=1, gradient_accumulation_steps=8, output_dir=str(tmp_path / "1x8")
        )
    )
    assert whole.batch_hash == parts.batch_hash
    pairs = list(zip(losses(tmp_path / "8x1"), losses(tmp_path / "1x8"), strict=True))
    if method == "soap":  # its first step takes the sign of rounding noise in the null space of its factors
        assert [other for _, other in pairs] == pytest.approx([one for one, _ in pairs], rel=1e-3)
        return
    for one, other in pairs:
        assert other == pytest.approx(one, rel=1e-5)
    differences = [other - one for one, other in pairs if other != one]
    above = sum(difference > 0 for difference in differences)
    # A drift puts all 20 on one side, which has a p of 2e-6; every method, on every kind of machine, draws signs of its own.
    assert binomtest(above, len(differences)).pvalue > 1e-5, f"drift: {above} of {len(differences)} losses are above"


def test_direct_loss_is_that_of_trl(run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"question {index}: ", "completion": "answer " * (index % 4 + 1)} for index in range(40)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"data": str(path), "max_length": 48, "gradient_accumulation_steps": 2}
    train(run_config(**given, output_dir=str(tmp_path / "direct")))
    monkeypatch.setattr(trainer_module, "SMALL_LOGITS", 0)
    train(run_config(**given, output_dir=str(tmp_path / "trl")))
    assert losses(tmp_path / "direct") == pytest.approx(losses(tmp_path / "trl"), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_resume_repeats_the_rest_to_the_bit(run_config: Make, tmp_path: Path, method: str) -> None:
    given = {**own(method), "max_steps": 9, "num_train_epochs": None, "optimizer_options": {}}
    whole = train(run_config(**given, output_dir=str(tmp_path / "whole"), save_steps=4))
    checkpoint = tmp_path / "whole" / "checkpoints" / "step-4"
    resumed = train(run_config(**given, output_dir=str(tmp_path / "resumed"), resume_from_checkpoint=str(checkpoint)))
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")[4:]
    assert resumed.final_hash == whole.final_hash
    assert resumed.batch_hash == whole.batch_hash
    assert (resumed.tokens, resumed.loss) == (whole.tokens, whole.loss)
    assert [event["event"] for event in events(tmp_path / "resumed")] == ["resume", "finish"]


def test_resume_in_place_leaves_one_line_per_step(run_config: Make, tmp_path: Path) -> None:
    train(run_config(save_steps=4))
    train(run_config(resume_from_checkpoint="latest"))  # step 6, the end: nothing left to do
    train(run_config(resume_from_checkpoint=str(tmp_path / "run" / "checkpoints" / "step-4")))
    assert [record["step"] for record in read(tmp_path / "run", "train")] == [1, 2, 3, 4, 5, 6]
    assert len(read(tmp_path / "run", "final")) == 1
    assert {event["event"] for event in events(tmp_path / "run")} == {"start", "checkpoint", "resume", "finish"}


def test_damaged_checkpoint_is_refused(run_config: Make, tmp_path: Path) -> None:
    train(run_config(max_steps=2, save_steps=2))
    weights = tmp_path / "run" / "checkpoints" / "step-2" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        train(run_config(max_steps=4, resume_from_checkpoint="latest"))


def test_taken_folder_is_refused_and_left_alone(run_config: Make, tmp_path: Path) -> None:
    train(run_config(max_steps=1))
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match="already holds a run"):
        train(run_config(max_steps=1))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
def test_bad_gradient_stops_before_the_update(
    run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int, max_grad_norm: float
) -> None:
    seen: dict[str, Any] = {}
    original = trainer_module.RunTrainer.training_step

    def poisoned(self: Any, model: Any, inputs: Any, items: Any = None) -> Any:
        seen["rows"] = inputs["row"].tolist()
        loss = original(self, model, inputs, items)
        if self.state.global_step == 2:
            seen["model"], seen["before"] = model, weights_hash(model)
            dict(model.named_parameters())["model.layers.1.mlp.up_proj.weight"].grad[0, 0] = float("nan")
        return loss

    monkeypatch.setattr(trainer_module.RunTrainer, "training_step", poisoned)
    with pytest.raises(NonFiniteError) as raised:
        train(run_config(method="cegm", gradient_accumulation_steps=accumulation, max_grad_norm=max_grad_norm))
    assert raised.value.layer == "gradient of model.layers.1.mlp.up_proj.weight"
    assert raised.value.step == 3
    assert set(seen["rows"]) <= set(raised.value.rows)
    assert len(raised.value.rows) == 4 * accumulation
    assert weights_hash(seen["model"]) == seen["before"]
    assert len(losses(tmp_path / "run")) == 2
    assert not read(tmp_path / "run", "final")
    assert not (tmp_path / "run" / "model").exists()
    *_, last = events(tmp_path / "run")
    assert (last["event"], last["step"], last["layer"]) == ("non_finite", 3, raised.value.layer)


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], number: float = float("nan")) -> None:
    """Puts a number that is not finite into one gradient of these steps, from 1."""
    original = trainer_module.RunTrainer.training_step

    def poisoned(self: Any, model: Any, inputs: Any, items: Any = None) -> Any:
        loss = original(self, model, inputs, items)
        if self.state.global_step + 1 in steps:
            dict(model.named_parameters())["model.layers.0.mlp.up_proj.weight"].grad[0, 0] = number
        return loss

    monkeypatch.setattr(trainer_module.RunTrainer, "training_step", poisoned)


@pytest.mark.parametrize("method", METHODS)
def test_a_skipped_step_changes_no_weight_and_is_counted(
    run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    seen: list[str] = []
    original = trainer_module.RunTrainer.get_batch_samples

    def noted(self: Any, *arguments: Any) -> Any:
        seen.append(weights_hash(self.model))
        return original(self, *arguments)

    monkeypatch.setattr(trainer_module.RunTrainer, "get_batch_samples", noted)
    poison(monkeypatch, {2, 4, 5})
    options = {"optimizer_options": {"refresh_every": 1}} if method == "cegm" else {}
    summary = train(run_config(**own(method), **options, warmup_steps=0, on_nonfinite="skip"))
    changed = [before != after for before, after in zip(seen, [*seen[1:], summary.final_hash], strict=True)]
    expected = [True, False, True, False, False, True]
    assert changed == expected
    assert (summary.steps, summary.skipped_steps) == (6, 3)
    trained = read(tmp_path / "run", "train")
    assert [record["loss"] is None for record in trained] == [False, True, False, True, True, False]
    assert [record["skipped_steps"] for record in trained] == [0, 1, 1, 2, 3, 3]
    assert all(record["tokens"] == 128 * record["step"] for record in trained)
    skips = [event for event in events(tmp_path / "run") if event["event"] == "skip"]
    assert [event["step"] for event in skips] == [2, 4, 5]
    assert {event["layer"] for event in skips} == {"gradient of model.layers.0.mlp.up_proj.weight"}
    assert all(len(event["rows"]) == 4 for event in skips)


def test_without_anything_to_skip_the_run_is_the_same(run_config: Make, tmp_path: Path) -> None:
    first = train(run_config(method="cegm"))
    second = train(run_config(method="cegm", on_nonfinite="skip", output_dir=str(tmp_path / "other")))
    assert first.final_hash == second.final_hash


def test_skipping_has_an_end(run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, {2, 3, 4, 5}, float("inf"))
    with pytest.raises(NonFiniteError, match=r"at step 5, .* stopped before the update after 3 skipped ones"):
        train(run_config(on_nonfinite="skip"))
    assert [e["event"] for e in events(tmp_path / "run")] == ["start", "skip", "skip", "skip", "non_finite"]


def test_a_bad_weight_is_never_skipped(run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = trainer_module.RunTrainer.training_step

    def poisoned(self: Any, model: Any, inputs: Any, items: Any = None) -> Any:
        if self.state.global_step == 2:
            with torch.no_grad():
                model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
        return original(self, model, inputs, items)

    monkeypatch.setattr(trainer_module.RunTrainer, "training_step", poisoned)
    with pytest.raises(NonFiniteError, match=r"non-finite weight model\.layers\.0\.mlp\.up_proj\.weight at step 3"):
        train(run_config(on_nonfinite="skip"))


def test_skips_survive_a_resume(run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, {2, 5})
    whole = train(run_config(method="cegm", on_nonfinite="skip", save_steps=4, output_dir=str(tmp_path / "whole")))
    checkpoint = tmp_path / "whole" / "checkpoints" / "step-4"
    resumed = train(run_config(method="cegm", on_nonfinite="skip", resume_from_checkpoint=str(checkpoint)))
    assert resumed.skipped_steps == whole.skipped_steps == 2
    assert resumed.final_hash == whole.final_hash


def test_a_spike_is_written_down_with_its_rows(
    run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer_module.RunTrainer.training_step

    def strong(self: Any, model: Any, inputs: Any, items: Any = None) -> Any:
        loss = original(self, model, inputs, items)
        if self.state.global_step + 1 == 26:
            for parameter in model.parameters():
                parameter.grad *= 1000
        return loss

    monkeypatch.setattr(trainer_module.RunTrainer, "training_step", strong)
    summary = train(run_config(max_steps=28, learning_rate=1e-4))
    (spike,) = [event for event in events(tmp_path / "run") if event["event"] == "spike"]
    assert (spike["step"], len(spike["rows"]), summary.spikes) == (26, 4, 1)
    scores = [record["spike_score"] for record in read(tmp_path / "run", "train")]
    assert scores[25] == pytest.approx(spike["score"])
    assert scores[25] > 7 > max(scores[20:25])


def test_hard_clipping_is_warned_of_and_written_down(run_config: Make, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"fell below what the optimizer's eps lets through"):
        train(run_config(method="muon", max_steps=2, max_grad_norm=1e-12))
    (event,) = [event for event in events(tmp_path / "run") if event["event"] == "clipping"]
    assert event["step"] == 1


def test_bad_weight_is_named(run_config: Make, model_folder: str, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("inf")
    model.save_pretrained(tmp_path / "bad")
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path / "bad")
    with pytest.raises(NonFiniteError, match=r"weight model\.layers\.1\.mlp\.down_proj\.weight at step 1, rows \d+, "):
        train(run_config(model_name_or_path=str(tmp_path / "bad")))


def test_conversations_and_completions_train_on_answers(run_config: Make, tmp_path: Path) -> None:
    rows = [{"prompt": f"question {index}: ", "completion": f"answer {index}"} for index in range(30)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = train(run_config(data=str(path), max_steps=3))
    described = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["tokens"]
    answers = described["validation_bytes"]
    assert 8 * 2 <= answers <= 9 * 4  # the answers alone, of two or more held-out rows
    assert described["validation"] > answers  # and the end of each
    assert summary.steps == 3
    talks = [
        {"messages": [{"role": "user", "content": f"hello {index}"}, {"role": "assistant", "content": "hi"}]}
        for index in range(30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in talks))
    assert train(run_config(data=str(path), max_steps=3, output_dir=str(tmp_path / "talk"))).steps == 3


def test_adapters_are_trained_and_saved(run_config: Make, tmp_path: Path) -> None:
    summary = train(run_config(method="cegm", lora_r=4, max_steps=3, save_steps=2))
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()
    assert summary.final_hash != summary.initial_hash
    resumed = train(
        run_config(
            method="cegm", lora_r=4, max_steps=3, output_dir=str(tmp_path / "resumed"),
            resume_from_checkpoint=str(tmp_path / "run" / "checkpoints" / "step-2"),
        )
    )  # fmt: skip
    assert resumed.final_hash == summary.final_hash


def test_epochs_decide_when_steps_are_not_given(run_config: Make, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("word " * 400)
    summary = train(run_config(data=str(tmp_path / "short.txt"), max_steps=None, num_train_epochs=2))
    rows = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["tokens"]["train"] // 32
    assert summary.steps == 2 * -(-rows // 4)
    assert summary.tokens == 2 * rows * 32


def test_refused_run_leaves_nothing(run_config: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no option"):
        train(run_config(method="muon", optimizer_options={"power": 1.0}))
    (tmp_path / "a.txt").write_text("few words")
    with pytest.raises(ValueError, match="too little for one row"):
        train(run_config(data=str(tmp_path / "a.txt")))
    assert not (tmp_path / "run").exists()


def test_world_and_fresh_model(run_config: Make, tmp_path: Path) -> None:
    summary = train(run_config(model_name_or_path="tiny", data="world", max_steps=2, method="cegm"))
    assert summary.bits_per_byte < summary.loss / 0.6931  # a word is more than one byte
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model").unk_token == "<unk>"


def test_the_seconds_of_a_run_are_told_by_what_they_went_into(run_config: Make, tmp_path: Path) -> None:
    begun = time.perf_counter()
    summary = train(run_config(max_steps=4, save_steps=2, output_dir=str(tmp_path / "run")))
    wall = time.perf_counter() - begun
    assert set(summary.spent) == {"loading", "looking at known text", "training", "validation", "saving"}
    assert summary.spent["training"] == pytest.approx(summary.seconds)
    assert summary.spent["looking at known text"] == 0.0
    assert all(seconds > 0 for what, seconds in summary.spent.items() if what != "looking at known text")
    assert sum(summary.spent.values()) <= wall
