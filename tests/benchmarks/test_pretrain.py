"""The benchmark scripts on a text of a few kilobytes: fair turns, repeatable logs, right arithmetic."""

import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import cegm
import model
import pretrain
import step_cost
import text
from cegm.lab.baselines import build_optimizer
from cegm.lab.forecast.operations import counted, counter, operations

SETTINGS = {"adamw": {"lr": 0.003}, "muon": {"lr": 0.01}, "cegm": {"lr": 0.01}}


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("the cat sat on the mat and the dog saw the cat. " * 200)
    return path


def run(book, output, monkeypatch, *flags):
    settings = output.with_suffix(".settings")
    settings.write_text(json.dumps(SETTINGS))
    given = {
        "text": book,
        "settings": settings,
        "output": output,
        "steps": 6,
        "turn": 2,
        "rows": 2,
        "length": 16,
        "validation_rows": 4,
        "threads": torch.get_num_threads(),
    }
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *words, *flags])
    pretrain.main()
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_methods_share_weights_batches_and_steps(book, tmp_path, monkeypatch):
    header, *lines = run(book, tmp_path / "a.jsonl", monkeypatch)
    assert header["steps"] == 6
    assert header["settings"] == SETTINGS
    first = {line["method"]: line for line in lines if line["step"] == 2}
    assert len({line["loss"][0] for line in first.values()}) == 1  # the same weights on the same batch
    assert len({line["loss"][1] for line in first.values()}) == 3  # and then three ways
    assert [line["method"] for line in lines[:6]] == ["adamw", "muon", "cegm", "cegm", "muon", "adamw"]  # A B C C B A
    for method in SETTINGS:
        own = [line for line in lines if line["method"] == method]
        assert [line["step"] for line in own] == [2, 4, 6]
        assert [line["seconds"] for line in own] == sorted(line["seconds"] for line in own)
        assert own[-1]["validation"] < math.log(256)


def test_the_same_seed_gives_the_same_log_and_a_held_seed_is_not_repeated(book, tmp_path, monkeypatch):
    def losses(lines):
        return [(line["method"], line["seed"], line["loss"], line["validation"]) for line in lines[1:]]

    few = ("--steps", "2", "--turn", "1")
    once = run(book, tmp_path / "a.jsonl", monkeypatch, "--seeds", "0,1", *few)
    again = run(book, tmp_path / "b.jsonl", monkeypatch, "--seeds", "0", *few)
    assert losses(again) == losses(once)[: len(losses(again))]
    more = run(book, tmp_path / "b.jsonl", monkeypatch, "--seeds", "0,1", *few)
    assert losses(more) == losses(once)


def test_other_settings_do_not_go_into_the_same_log(book, tmp_path, monkeypatch):
    run(book, tmp_path / "a.jsonl", monkeypatch, "--steps", "2")
    with pytest.raises(SystemExit, match="other settings"):
        run(book, tmp_path / "a.jsonl", monkeypatch, "--steps", "2", "--warmup", "3")


def test_a_multiple_of_the_rates_leaves_that_of_embeddings_alone(book, tmp_path, monkeypatch):
    header, *_ = run(book, tmp_path / "a.jsonl", monkeypatch, "--rate", "4", "--steps", "2")
    assert header["rate"] == 4
    arguments = types.SimpleNamespace(
        size="0.8M", steps=1, warmup=1, vocabulary=256, device="cpu", autocast=False, rate=4
    )
    contestant = pretrain.Contestant("cegm", {"lr": 0.01, "aux_lr": 0.003}, arguments, 0)
    rates = {group["role"]: group["lr"] for group in contestant.optimizer.param_groups}
    assert rates == {"matrix": 0.04, "adamw": 0.003}


def test_schedule_warms_up_then_falls_to_zero():
    parts = [pretrain.factor(step, 100, 10, False) for step in range(100)]
    assert parts[0] == 0.1
    assert max(parts) == parts[9] == parts[10] == 1.0
    assert parts[55] == pytest.approx(0.5)
    assert parts[-1] < 0.001
    assert [pretrain.factor(step, 100, 10, True) for step in (9, 50, 99)] == [1.0, 1.0, 1.0]


def test_validation_text_is_never_trained_on(tmp_path):
    for number in range(40):
        (tmp_path / f"{number:02}.txt").write_bytes(bytes([number]) * 50)
    training, held_out = text.load(tmp_path)
    assert set(held_out) == {0, 20}
    assert set(training) == set(range(40)) - {0, 20}
    rows = text.rows(training, 5, 8, np.random.default_rng(0))
    assert rows.shape == (5, 8)


def test_attention_whose_weights_are_formed_is_the_same_attention():
    torch.manual_seed(0)
    one = model.LanguageModel(hidden=32, layers=2)
    tokens = torch.randint(0, 256, (2, 12))
    fused = one(tokens).item()
    one.set_attn_implementation("eager")
    assert one(tokens).item() == pytest.approx(fused, rel=1e-6)


@pytest.mark.parametrize(("method", "precision"), [("muon", "float32"), ("muon", "bfloat16"), ("cegm", "float32")])
def test_operations_of_a_step_are_those_that_torch_counts(method, precision):
    one = model.LanguageModel(hidden=64, layers=1)
    optimizer = build_optimizer(method, one, lr=1e-3, precision=precision)
    found = []
    for _ in range(2):  # the first step refreshes
        one(torch.randint(0, 256, (2, 32))).backward()
        with counter() as seen:
            optimizer.step()
        found.append(operations(seen))
    counts = step_cost.method_operations(optimizer, 64)
    assert counts["step"] == pytest.approx(found[1], rel=1e-6)
    assert counts["step"] + counts["refresh"] == pytest.approx(found[0], rel=1e-6)


def test_operations_of_the_passes_by_hand():
    """2 + 4 per weight and token, the embedding as the head, and of attention seven products, half of each masked."""
    one, tokens = model.LanguageModel(hidden=64, layers=2), torch.randint(0, 256, (2, 32))
    weights = sum(p.numel() for p in one.parameters() if p.ndim == 2)
    predicted = counted(lambda: one(tokens).backward())
    assert predicted == pytest.approx(6 * weights * 64 + 7 * 2 * (2 * 64 * 32 * 64) / 2, rel=0.01)


def test_the_small_benchmark_takes_the_settings_that_ship():
    yaml = pytest.importorskip("yaml")
    shipped = yaml.safe_load((Path(cegm.__file__).parent / "lab/compare/tuned.yaml").read_text())["world"]
    settings = json.loads((Path(pretrain.__file__).parent / "settings.json").read_text())
    assert settings == {
        method: {**{k: v for k, v in own.items() if k != "learning_rate"}, "lr": own["learning_rate"]}
        for method, own in shipped.items()
    }
