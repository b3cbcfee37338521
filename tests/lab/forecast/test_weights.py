"""What a weight costs under each method, against real optimizers on real models: bytes have to be equal, not near."""

import pytest
import torch

from cegm.lab.baselines import METHODS
from cegm.lab.forecast.operations import normalize_operations
from cegm.lab.forecast.weights import weights_of
from cegm.lab.train.meter import tensor_bytes
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import build
from models import llama

VARIANTS = [
    *((method, {}) for method in METHODS),
    ("cegm", {"preset": "lite", "heads": 2}),
    ("cegm", {"preset": "paper"}),
    ("cegm", {"heads": 4}),
    ("cegm", {"gradient_power": 0.0}),
    ("cegm", {"power": -0.5, "gradient_power": 0.0}),
    ("cegm", {"power": -0.5, "gradient_power": -0.5}),
    ("cegm", {"power": -0.5, "gradient_power": -1.0, "heads": 2, "recurrence": 0.9}),
    ("cegm", {"scores": "attention"}),
    ("cegm", {"scores": "alignment", "row_moment": False}),
    ("cegm", {"coefficient": "hypergradient", "hierarchy": "block"}),
    ("cegm", {"momentum_kernel": "two", "recurrence": 0.9}),
    ("muon", {"momentum_kernel": "two"}),
    ("normuon", {"momentum_kernel": "log"}),
]


def gpt2(**options):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=32, n_embd=32, n_layer=2, n_head=4))


def planned(make, method, options, device="cpu"):
    with torch.device("meta"):
        model = make()
    return weights_of(RunConfig(method=method, optimizer_options=options), model, device, bfloat16=False)


def measured(make, method, options):
    model = make().train()
    optimizer = build(RunConfig(method=method, optimizer_options=options), model)
    tokens = torch.randint(0, 61, (2, 16))
    for _ in range(2):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        if hasattr(optimizer, "observe_loss"):
            optimizer.observe_loss(loss)
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize(("method", "options"), VARIANTS, ids=lambda value: str(value))
def test_state_is_that_of_a_real_optimizer_to_the_byte_for_every_weight(method, options):
    model, optimizer = measured(llama, method, options)
    real = {name: tensor_bytes(optimizer.state[p]) for name, p in model.named_parameters()}
    assert {w.name: w.state for w in planned(llama, method, options)} == real


def adapters():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # begun, so that contexts are seen at once
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("normalize", ["polar", "product"])
def test_factors_of_adapters_keep_what_their_rule_needs(normalize):
    options = {"normalize": normalize, "power": -0.5}
    model, optimizer = measured(adapters, "cegm", options)
    real = {name: tensor_bytes(optimizer.state[p]) for name, p in model.named_parameters() if p.requires_grad}
    assert {w.name: w.state for w in planned(adapters, "cegm", options)} == real


@pytest.mark.parametrize(("method", "options"), [("adamw", {}), ("muon", {}), ("cegm", {}), ("cegm", {"power": -1.0})])
def test_transposed_and_fused_weights_too(method, options):
    _, optimizer = measured(gpt2, method, options)
    found = planned(gpt2, method, options)
    assert sum(w.state for w in found) == tensor_bytes(list(optimizer.state.values()))
    if method != "adamw":
        fused = next(w for w in found if w.name == "transformer.h.0.attn.c_attn.weight")
        assert [piece[:2] for piece in fused.pieces] == [(32, 32)] * 3
        assert fused.products == 3 * normalize_operations(32, 32, "polar", torch.float32)


def test_every_trainable_weight_once_and_the_counts_of_the_model():
    model = llama()
    found = planned(llama, "cegm", {})
    assert sorted(w.name for w in found) == sorted(name for name, _ in model.named_parameters())
    assert sum(w.bytes for w in found) == 4 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("options", [{}, {"power": -0.5}, {"heads": 4, "power": 1.0}])
def test_contexts_are_what_a_layer_records(options):
    model = llama().train()
    optimizer = build(RunConfig(method="cegm", optimizer_options=options), model)
    tokens = torch.randint(0, 61, (2, 16))
    model(input_ids=tokens, labels=tokens).loss.backward()
    layers = [layer for recorder in optimizer._contexts._recorders.values() for layer in recorder.layers]
    recorded = {layer.name: tensor_bytes([carrier.grad for carrier in layer.carriers()]) for layer in layers}
    assert {w.name: w.contexts for w in planned(llama, "cegm", options) if w.contexts} == recorded


def test_work_of_one_square_matrix_by_hand():
    (query,) = [
        w for w in planned(llama, "cegm", {"heads": 4}, "cpu") if w.name == "model.layers.0.self_attn.q_proj.weight"
    ]
    assert query.shape == (32, 32)
    assert query.products == 5 * 3 * 2 * 32**3
    assert query.mapping == 2 * 32 * 32 * 8  # every entry meets a block of 8 outputs
    assert query.capture == 2 * 32 * 8  # per token
    assert query.refresh == 4 * 11 * 8**3  # four blocks by their eigenvalues
    assert query.contexts == 4 * (4 * 8 * 8) + 4
    assert query.refresh_every == 25
    assert query.work == 32**3


def test_adamw_has_no_products_and_reads_everything_once():
    found = planned(llama, "adamw", {})
    assert all(w.products == w.mapping == w.refresh == w.contexts == w.refresh_every == 0 for w in found)
    # weight, gradient and two moments are read, all but the gradient written, and the step counted
    assert sum(w.traffic for w in found) == 7 * sum(w.bytes for w in found) + 2 * 4 * len(found)


def test_precision_is_that_of_the_machine_of_the_plan():
    with torch.device("meta"):
        model = llama()

    def precisions(method, bfloat16, **options):
        run = RunConfig(method=method, optimizer_options=options)
        return {w.precision for w in weights_of(run, model, "cuda", bfloat16) if w.pieces}

    for method in ("muon", "normuon", "cegm"):
        assert precisions(method, True) == {torch.bfloat16}
        assert precisions(method, False) == {torch.float32}
    assert precisions("cegm", True, precision="float32") == {torch.float32}
    assert precisions("muon", False, precision="bfloat16") == {torch.bfloat16}


def test_shards_are_cut_by_rows_and_the_first_holds_most():
    weight = next(w for w in planned(llama, "adamw", {}) if w.shape == (61, 32))
    assert weight.shard(1) == 1.0
    assert weight.shard(4) == 16 / 61
    assert weight.shard(100) == 1 / 61


def test_heads_that_divide_nothing_are_refused():
    with pytest.raises(ValueError, match="heads=7 does not divide the 32 features"):
        planned(llama, "cegm", {"heads": 7})
