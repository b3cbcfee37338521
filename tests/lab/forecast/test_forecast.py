"""The whole forecast and the command: sums that can be redone by hand, and what is refused."""

import json
import re

import pytest
import torch
import yaml

from cegm.lab.cli import main
from cegm.lab.forecast.exchange import owned
from cegm.lab.forecast.forecast import forecast
from cegm.lab.forecast.passes import meta_model, passes, settings_of
from cegm.lab.forecast.plan_config import PLANNED, PlanConfig
from cegm.lab.forecast.table import table
from cegm.lab.train.run_config import RunConfig

ENTRY = {
    "kind": "cuda", "devices": 2, "memory": 1e9, "float32_flops": 1e12, "bfloat16_flops": 4e12, "memory_bandwidth": 1e11,
    "node_bandwidth": 1e10, "network_bandwidth": 1e9, "price_per_device_hour": 2.0,
}  # fmt: skip


@pytest.fixture
def planned(tmp_path):
    def make(machine=(), shared=(), own=(), **options):
        path = tmp_path / "machines.yaml"
        path.write_text(yaml.safe_dump({"mine": {**ENTRY, **dict(machine)}}))
        run = {"max_length": 32, "per_device_train_batch_size": 2, **dict(shared)}
        return forecast(PlanConfig(machine="mine", machines=str(path), shared=run, own=dict(own), **options))

    return make


def test_time_and_money_by_hand(planned):
    found = planned(methods="adamw", devices=1, utilisation=0.5, shared={"max_steps": 7200})
    (adamw,) = found.estimates
    run = RunConfig("tiny", per_device_train_batch_size=2, max_length=32)
    each = passes(settings_of(run), run)
    operations = each.forward + each.backward
    assert adamw.passes_operations == operations
    assert adamw.seconds.passes == operations / (0.5 * 1e12)
    tensors = len(adamw.weights)
    assert adamw.seconds.update == pytest.approx((7 * 4 * found.parameters + 2 * 4 * tensors) / 1e11)
    assert adamw.seconds.step == adamw.seconds.passes + adamw.seconds.update
    assert adamw.hours == adamw.seconds.step * 2
    assert adamw.money == pytest.approx(adamw.hours * 1 * 2.0)


def test_an_update_by_hand(planned):
    (muon,) = planned(methods="muon", devices=1, utilisation=0.1, update_utilisation=0.5).estimates
    polar = sum(w.products for w in muon.weights)
    assert muon.update_operations == polar > 0
    matrices = sum(w.bytes for w in muon.weights if w.pieces)
    rest = [w for w in muon.weights if not w.pieces]
    traffic = 21 * matrices + 7 * sum(w.bytes for w in rest) + 2 * 4 * len(rest)
    assert muon.seconds.update == pytest.approx(polar / (0.5 * 4e12) + traffic / 1e11)  # in bfloat16


def test_memory_of_one_device_by_hand(planned):
    found = planned(methods="adamw", devices=1)
    memory = found.estimates[0].memory
    size = 4 * found.parameters
    assert memory.weights == memory.gradients == size
    tensors = len(list(meta_model(settings_of(RunConfig("tiny")), RunConfig("tiny")).parameters()))
    assert memory.state == 2 * size + 4 * tensors
    vocabulary = settings_of(RunConfig("tiny")).vocab_size
    assert memory.activations == found.passes.kept + 4 * 64 * vocabulary
    assert memory.contexts == memory.gathered == 0


def test_ddp_all_reduces_gradients_and_holds_buckets(planned):
    adamw, cegm = planned(methods="adamw,cegm", devices=2).estimates
    size = adamw.memory.weights
    assert adamw.sent.gradients == cegm.sent.gradients == size  # 2 x 1/2
    assert adamw.memory.gathered == size
    assert cegm.sent.contexts == cegm.memory.contexts > 0
    assert adamw.sent.contexts == cegm.sent.matrices == 0
    assert adamw.seconds.exchange == size / 1e10
    assert adamw.seconds.step == max(adamw.seconds.passes, adamw.seconds.exchange) + adamw.seconds.update


def test_more_devices_than_a_node_wait_for_the_network(planned):
    near, far = (planned(methods="adamw", devices=devices).estimates[0] for devices in (2, 4))
    assert far.seconds.exchange / near.seconds.exchange == pytest.approx(10 * (3 / 4) / (1 / 2))


def test_fsdp_shares_state_and_work(planned):
    whole = {e.run.method: e for e in planned(devices=2).estimates}
    shared = {e.run.method: e for e in planned(devices=2, sharding="fsdp").estimates}
    for method in whole:
        assert 0.5 * whole[method].memory.state <= shared[method].memory.state < 0.7 * whole[method].memory.state
        assert shared[method].memory.weights < 0.51 * whole[method].memory.weights
    assert shared["cegm"].update_operations < 0.7 * whole["cegm"].update_operations
    assert shared["cegm"].memory.contexts == whole["cegm"].memory.contexts  # recorded whole on every device
    assert shared["adamw"].sent.matrices == 0 < shared["muon"].sent.matrices == shared["cegm"].sent.matrices


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_device_has_the_state_of_what_it_owns_and_its_rows_of_the_rest(planned, devices):
    (muon,) = planned(methods="muon", devices=devices, sharding="fsdp").estimates
    busiest = max(owned(muon.weights, devices), key=lambda part: sum(w.work for w in part))
    rest = sum(w.state * -(-w.shape[0] // devices) / w.shape[0] for w in muon.weights if not w.pieces)
    assert muon.memory.state == pytest.approx(sum(w.state for w in busiest) + rest)


def test_frozen_weights_have_no_gradients(planned, tmp_path):
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "vocab_size": 40,
    }
    config = {**config, "num_attention_heads": 2, "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shared = {"model_name_or_path": str(tmp_path), "lora_r": 2}
    found = planned(methods="adamw", shared=shared)
    trained = sum(w.bytes for w in found.estimates[0].weights)
    assert found.estimates[0].memory.gradients == trained < found.estimates[0].memory.weights == 4 * found.parameters


def test_refreshes_are_spread_over_the_steps_between_them(planned):
    often, rarely = (planned(methods="cegm", own={"cegm": {"refresh_every": every}}).estimates[0] for every in (1, 10))
    assert often.refresh_operations == rarely.refresh_operations > 0
    assert often.seconds.refresh == pytest.approx(10 * rarely.seconds.refresh)


def test_accumulation_multiplies_the_passes_and_not_the_activations(planned):
    one, four = (planned(methods="muon", shared={"gradient_accumulation_steps": n}).estimates[0] for n in (1, 4))
    assert four.passes_operations == 4 * one.passes_operations
    assert four.update_operations == one.update_operations
    assert four.memory.activations == one.memory.activations
    assert four.memory.accumulates
    assert not one.memory.accumulates


def test_checkpointing_trades_memory_for_one_more_forward_pass_of_the_blocks(planned):
    plain, checkpointed = (
        planned(methods="adamw", shared={"gradient_checkpointing": value}) for value in (False, True)
    )
    assert checkpointed.estimates[0].memory.activations < plain.estimates[0].memory.activations
    again = checkpointed.estimates[0].passes_operations - plain.estimates[0].passes_operations
    assert again == plain.passes.again < plain.passes.forward  # the head is outside of blocks
    assert plain.passes == checkpointed.passes


def test_bfloat16_passes_run_at_its_peak(planned):
    exact, short = (planned(methods="adamw", devices=1, shared={"bf16": value}).estimates[0] for value in (False, True))
    assert exact.seconds.passes == pytest.approx(4 * short.seconds.passes)


def test_a_machine_without_bfloat16_takes_float32(planned):
    muon = planned({"bfloat16_flops": None, "kind": "cpu"}, methods="muon").estimates[0]
    assert {w.precision for w in muon.weights if w.pieces} == {torch.float32}


def test_the_table_is_aligned_and_says_what_fits(planned):
    text = table(planned({"memory": 1e6}))
    assert f"does NOT fit: {', '.join(['adamw', 'muon', 'cegm'])} in 1 MB" in text
    lines = text.splitlines()
    header = next(line for line in lines if line.endswith("cegm"))
    body = [line for line in lines[lines.index(header) + 2 : lines.index("assumed:") - 1] if re.search(r"\d$|-$", line)]
    assert {len(line) for line in body} == {len(header)}
    assert all(len(line) <= 122 for line in lines)
    assert "every method fits in 1 GB" in table(planned())


def test_money_needs_a_price(planned):
    free = planned({"price_per_device_hour": None})
    assert all(e.money is None for e in free.estimates)
    assert "Nobody said a price: --price 2.50" in table(free)
    paid = planned({"price_per_device_hour": None}, price=3.0)
    assert paid.estimates[0].money == pytest.approx(paid.estimates[0].hours * 2 * 3.0)
    assert "Nobody" not in table(paid)


def test_a_file_of_a_run_can_be_planned_as_it_is(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text(
        "method: muon\nlearning_rate: 0.02\nmax_length: 32\nper_device_train_batch_size: 2\nmax_steps: 10\n"
    )
    assert main(["plan", "--config", str(path), "--methods", "cegm", "--cegm.preset", "lite", "--devices", "1"]) == 0
    printed = capsys.readouterr().out
    assert "2 rows x 32 tokens x 1 micro-batch x 1 device = 64 tokens a step, 10 steps" in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "soap"], "method 'soap' cannot be planned, only run; use one of " + ", ".join(PLANNED)),
        (["--methods", "adam"], "method 'adam' does not exist; did you mean 'adamw'?"),
        (["--methods", ","], "methods=',' names none"),
        (["--machine", "h300-node"], "machine 'h300-node' is not in machines.yaml; did you mean 'h"),
        (["--sharding", "zero"], "sharding='zero' does not exist; use one of ddp, fsdp"),
        (["--utilisation", "1.5"], "utilisation=1.5 is outside (0, 1]"),
        (["--update_utilisation", "2"], "update_utilisation=2.0 is outside (0, 1]; 0.8 is usual"),
        (["--utilisation", "0"], "utilisation=0.0 is outside (0, 1]"),
        (["--devices", "-1"], "devices=-1 must be at least 0"),
        (["--machines", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["--methods", "adamw", "--muon.momentum", "0.9"], "--muon.… sets an option of a method that is not planned"),
        (["--methods", "cegm", "--cegm.heads", "7", "--devices", "1"], "heads=7 does not divide"),
        (["--methods", "adamw", "--adamw.heads", "7", "--devices", "1"], "adamw has no option 'heads'"),
        (["--max_length", "x"], "max_length='x' is not of type int"),
        (["--json"], "unknown option '--json'"),
    ],
)
def test_what_cannot_be_planned_is_one_line(words, said, capsys):
    assert main(["plan", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert printed.err.count("\n") == 1
