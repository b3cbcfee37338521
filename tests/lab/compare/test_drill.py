"""The drill of one bad step: its arithmetic, that a disturbed copy differs by the bad step alone, and that it goes on where it stopped."""

import html
import json
import math
from collections import Counter

import pytest
import torch

for extra in ("trl", "statsmodels"):
    pytest.importorskip(extra)

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from cegm.lab.baselines import METHODS  # noqa: E402
from cegm.lab.cli import main  # noqa: E402
from cegm.lab.compare import comparison, drill  # noqa: E402
from cegm.lab.compare.compare_config import CompareConfig, from_names  # noqa: E402
from cegm.lab.compare.drill import measure_drill, recovery  # noqa: E402
from cegm.lab.report.drill_chart import rows  # noqa: E402
from cegm.lab.train.model import byte_tokenizer  # noqa: E402

SMALL = {"methods": "muon", "seeds": "1", "max_length": 8, "per_device_train_batch_size": 2}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A few steps before the bad one and a few after it."""
    for name, number in {"WARMUP": 2, "BEFORE": 3, "AFTER": 6}.items():
        monkeypatch.setattr(drill, name, number)


@pytest.fixture
def dropout(tmp_path):
    """A small model that drops half of its attention, and a text of a dozen rows for it."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=258, max_position_embeddings=64, attention_dropout=0.5, **sizes))
    for part in (model, byte_tokenizer()):
        part.save_pretrained(tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number:07d} " for number in range(16)), encoding="utf-8")
    return {"model_name_or_path": str(tmp_path / "model"), "data": str(text), "validation_fraction": 0.2}


def measured(folder, **changes):
    return json.loads(measure_drill(from_names(CompareConfig, {**SMALL, **changes}), folder).read_text())


def curves(folder, **changes):
    """Of the only method and seed, by spike and clipping."""
    (point,) = measured(folder, **changes)["points"]
    assert "error" not in point, point
    return {(curve["spike"], curve["clip"]): curve for curve in point["curves"]}


def test_recovery_counts_steps_until_the_mean_stays_low():
    assert recovery([0.0] * 20) == 0
    assert recovery([0.5, 0.2] + [0.0] * 18) == 2  # the mean of steps 3 to 7 is the first low one
    assert recovery([1.0] + [0.0] * 9 + [1.0] + [0.0] * 9) == 11  # it has to stay low
    assert recovery([0.0] * 19 + [1.0]) is None
    assert recovery([float("nan")] * 20) is None
    assert recovery([-1.0] * 20) == 0, "a lower loss is no harm"


class Halving:
    """Loss is that of the batch and an offset, which every step halves; a bad step raises it by what is too much in its strength."""

    device = torch.device("cpu")

    def __init__(self, offset):
        self.offset = offset

    def gradients(self, micro_batches, strength):
        self.strength = strength
        return micro_batches[0].mean() + self.offset, torch.tensor(strength)

    def update(self, loss):
        self.offset = self.offset / 2 + self.strength - 1


def test_excess_is_measured_against_the_undisturbed_copy_on_the_same_batch(monkeypatch):
    monkeypatch.setattr(drill, "STRENGTH", 5.0)
    learner, ended = Halving(8.0), []
    batches = torch.arange(5.0)[:, None, None, None]
    found = drill._excesses(learner, batches, torch.full((1, 1, 1), 100.0), lambda: ended.append(1))
    assert found == {"gradient": [4.0, 2.0, 1.0, 0.5], "tokens": [0.0] * 4}
    assert learner.offset == 8.0, "what is copied stays as it is"
    assert len(ended) == 3


def test_nothing_is_updated_after_what_is_not_finite(monkeypatch):
    monkeypatch.setattr(drill, "STRENGTH", math.inf)
    found = drill._excesses(Halving(8.0), torch.ones(4, 1, 1, 1), torch.zeros(1, 1, 1), lambda: None)
    assert all(math.isnan(each) for each in found["gradient"])
    assert found["tokens"] == [0.0] * 3
    told = drill._told(found["gradient"])
    assert told == {"excess": [None] * 3, "highest": None, "recovered_after": None, "left": None}
    json.dumps(told, allow_nan=False)


def test_what_is_told_of_a_curve():
    told = drill._told([1.0, 0.5] + [0.0] * 8 + [0.01] * 10)
    assert told["highest"] == 1.0
    assert told["recovered_after"] == 2
    assert told["left"] == pytest.approx(0.01)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_its_usual_strength_leaves_no_excess(method, tmp_path, monkeypatch):
    monkeypatch.setattr(drill, "STRENGTH", 1.0)
    found = curves(tmp_path, methods=method, learning_rate=0.01, lr_scheduler_type="constant_with_warmup")
    for clip in (0.0, 1.0):
        assert found["gradient", clip]["excess"] == [0.0] * 6
        assert found["gradient", clip]["recovered_after"] == 0
        assert any(abs(each) > 1e-4 for each in found["tokens", clip]["excess"])


@pytest.mark.parametrize("changes", [{"beta": 0.1}, {"gradient_accumulation_steps": 2}, {"scores": "random"}])
def test_copies_agree_whatever_the_run_does(changes, tmp_path, monkeypatch):
    monkeypatch.setattr(drill, "STRENGTH", 1.0)
    assert curves(tmp_path, methods="cegm", max_grad_norm=0, **changes)["gradient", 0.0]["excess"] == [0.0] * 6


def test_dropout_falls_alike_in_all_copies(dropout, tmp_path, monkeypatch):
    monkeypatch.setattr(drill, "STRENGTH", 1.0)
    assert curves(tmp_path, max_grad_norm=0, **dropout)["gradient", 0.0]["excess"] == [0.0] * 6


def test_a_text_that_is_too_short_comes_round_again(dropout):
    (planned,) = drill.plan_drill(from_names(CompareConfig, {**SMALL, **dropout}))
    config = drill.RunConfig(**planned.config)
    parts = drill.prepare(config)
    batches = drill._batches(config, parts)
    assert batches.shape == (10, 1, 2, 8)
    times = Counter(tuple(row) for row in batches.flatten(0, 2).tolist())
    assert set(times) == {tuple(row) for row in parts.rows["input_ids"]}
    assert 10 <= len(times) < 20
    assert set(times.values()) == {1, 2}


def test_clipping_bounds_what_a_gradient_a_thousand_times_too_large_does(tmp_path, monkeypatch):
    monkeypatch.setattr(drill, "BEFORE", 12)
    found = curves(tmp_path, methods="adamw")
    free, clipped = (found["gradient", clip]["excess"] for clip in (0.0, 1.0))
    assert max(map(abs, free)) > 2 * max(map(abs, clipped))


def test_clipping_is_that_of_each_method_and_none_where_it_has_none(tmp_path):
    found = measured(tmp_path, methods="muon,adamw", **{"adamw.max_grad_norm": 0, "muon.max_grad_norm": 0.5})
    clips = {point["method"]: {curve["clip"] for curve in point["curves"]} for point in found["points"]}
    assert clips == {"muon": {0.0, 0.5}, "adamw": {0.0}}


def test_the_first_seeds_are_drilled_with_every_method(tmp_path):
    found = measured(tmp_path, methods="muon,adamw", seeds="7,5,9", drill_seeds=2, max_grad_norm=0)
    assert [(point["method"], point["seed"]) for point in found["points"]] == [
        ("muon", 7), ("adamw", 7), ("muon", 5), ("adamw", 5),
    ]  # fmt: skip
    assert found["methods"] == ["muon", "adamw"]
    assert found["after"] == 6
    assert "trained for 3 steps (a warm-up of 2, then a constant learning rate)" in found["how"]


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    asked = []

    def watched(own, advance):
        asked.append(own.seed)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return {"curves": [{"asked": len(asked)}]}

    monkeypatch.setattr(drill, "_curves", watched)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, seeds="0,1")
    before = json.loads((tmp_path / "drill.json").read_text())["points"]
    assert [point["seed"] for point in before] == [0]
    after = measured(tmp_path, seeds="0,1")["points"]
    assert after[:1] == before
    assert asked == [0, 1, 1]
    measured(tmp_path, seeds="0,1", max_steps=7, eval_steps=3, lr_scheduler_type="linear")
    assert asked == [0, 1, 1], "the drill has steps and a schedule of its own"
    measured(tmp_path, seeds="0,1", learning_rate=0.5)
    assert asked == [0, 1, 1, 0, 1], "other settings are drilled anew"
    assert not list(tmp_path.glob("*.partial"))


def test_a_method_that_fails_by_itself_says_so_and_is_tried_again(tmp_path, monkeypatch):
    (point,) = measured(tmp_path, methods="adamw", learning_rate=1e30)["points"]
    assert "is not finite at step" in point["error"]
    assert "curves" not in point
    calls = []
    monkeypatch.setattr(drill, "_curves", lambda own, advance: calls.append(own.method) or {"curves": []})
    measured(tmp_path, methods="adamw", learning_rate=1e30)
    assert calls == ["adamw"]


@pytest.mark.parametrize("asked", [False, True])
def test_it_comes_after_the_runs_when_it_is_asked_for(asked, tmp_path, monkeypatch):
    done = []
    for name in ("execute", "write_results", "write_verdict", "measure_drill"):
        monkeypatch.setattr(comparison, name, lambda *_, name=name: done.append(name))
    values = {**SMALL, "output_dir": str(tmp_path), "equal_seconds": False, "axes": "none", "drill": asked}
    comparison.compare(from_names(CompareConfig, values))
    assert done == ["execute", "write_results", "write_verdict", *["measure_drill"] * asked]


def test_no_seeds_are_refused():
    with pytest.raises(ValueError, match="drill_seeds=0 must be at least 1"):
        from_names(CompareConfig, {"drill_seeds": 0})


def test_conversations_are_refused_before_anything_is_trained(tmp_path):
    data = tmp_path / "talk.jsonl"
    lines = [json.dumps({"prompt": "who?", "completion": f"number {number}."}) + "\n" for number in range(30)]
    data.write_text("".join(lines), encoding="utf-8")
    values = {**SMALL, "data": str(data), "axes": "none"}
    comparison.require_possible(from_names(CompareConfig, values))
    with pytest.raises(ValueError, match=r"the drill needs plain text, and .*talk\.jsonl holds completion rows"):
        comparison.require_possible(from_names(CompareConfig, {**values, "drill": True}))


def test_the_command_trains_drills_and_draws_and_does_no_part_twice(dropout, tmp_path, capsys):
    text = tmp_path / "book.txt"
    text.write_text("".join(f"the miller counted {number} sacks.\n" for number in range(400)), encoding="utf-8")
    options = {
        **dropout, "data": text, "output_dir": tmp_path / "out", "methods": "adamw,cegm", "seeds": 1, "learning_rate": 0.01,
        "max_steps": 2, "max_length": 16, "per_device_train_batch_size": 2, "eval_steps": 0, "eval_rows": 2, "axes": "none",
        "equal_seconds": "false", "processes": 1,
    }  # fmt: skip
    words = ["compare", *(str(word) for name, value in options.items() for word in (f"--{name}", value)), "--drill"]
    assert main(words) == 0
    kept = (tmp_path / "out" / "drill.json").read_bytes()
    drilled = json.loads(kept)
    assert [point["method"] for point in drilled["points"]] == ["adamw", "cegm"]
    assert [len(point["curves"]) for point in drilled["points"]] == [4, 4]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    for row in rows(drilled):
        assert "".join(f"<td>{html.escape(cell)}</td>" for cell in row[3:]) in page
        assert all(cell in said for cell in row)
    assert main(words) == 0
    assert (tmp_path / "out" / "drill.json").read_bytes() == kept
