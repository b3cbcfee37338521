"""Work and activations of models without memory, against real passes of the same models."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from cegm.lab.plan import model as planned
from cegm.lab.plan.model import activations, forward_operations, meta_model, settings_of, shape_of
from cegm.lab.train.model import load_model, load_tokenizer
from cegm.lab.train.run_config import RunConfig

SIZES = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 61, "hidden_size": 32, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}  # fmt: skip


def run_of(folder, rows=2, length=16, options=(), **changes):
    entry = {name: value for name, value in {**SIZES, **changes}.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(entry))
    return RunConfig(str(folder), per_device_train_batch_size=rows, max_length=length, **dict(options))


def real(**changes):
    names = {k: v for k, v in {**SIZES, **changes}.items() if k not in ("model_type", "architectures")}
    return LlamaForCausalLM(LlamaConfig(**names)).train()


def kept_by(model, rows, length):
    """Bytes that a real forward pass saves, weights left out."""
    sizes, held, weights = {}, [], {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(storage)
        return tensor

    tokens = torch.zeros(rows, length, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=tokens, labels=tokens, use_cache=False)
    return sum(sizes.values())


@pytest.mark.parametrize("name", ["tiny", "small", "reader"])
def test_fresh_models_have_the_weights_of_real_ones(name):
    run = RunConfig(name)
    model = meta_model(settings_of(run), run)
    assert all(p.is_meta for p in model.parameters())
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in load_model(run, load_tokenizer(run)).named_parameters()
    }


def test_operations_are_those_that_torch_counts(tmp_path):
    run = run_of(tmp_path)
    settings = settings_of(run)
    forward, backward = forward_operations(meta_model(settings, run), shape_of(settings), 32, 16)
    model = real(attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(2, 16, dtype=torch.long), use_cache=False).logits.sum().backward()
    attention = 2 * 2 * 32 * 16 * 32 * 2 / 2  # the masked half, which eager attention computes too
    rotary = 2 * 4 * 16  # positions times frequencies
    assert forward + backward + 3 * attention == pytest.approx(counter.get_total_flops(), abs=4 * rotary)


def test_operations_by_hand(tmp_path):
    run = run_of(tmp_path, num_hidden_layers=1)
    settings = settings_of(run)
    weights = 4 * 32 * 32 + 3 * 32 * 96 + 61 * 32
    attention = 2 * 10 * 5 * 32  # 10 tokens see 5 each, in two products, half of them masked
    forward, backward = forward_operations(meta_model(settings, run), shape_of(settings), 10, 5)
    assert forward == 2 * 10 * weights + attention
    assert backward == 2 * forward


def test_frozen_weights_need_no_gradients_of_their_own(tmp_path):
    run = run_of(tmp_path)
    settings, model = settings_of(run), meta_model(settings_of(run), run)
    whole = forward_operations(model, shape_of(settings), 32, 16)[1]
    model.lm_head.requires_grad_(False)
    assert whole - forward_operations(model, shape_of(settings), 32, 16)[1] == 2 * 32 * 61 * 32


@pytest.mark.parametrize(("rows", "length"), [(1, 32), (3, 24)])
def test_activations_are_those_of_a_real_pass(tmp_path, rows, length):
    found = activations(settings_of(run := run_of(tmp_path, rows, length)), run)
    assert found.whole == kept_by(real(), rows, length)


def test_checkpointed_activations_are_inputs_of_blocks_one_block_and_the_rest(tmp_path):
    found = activations(settings_of(run := run_of(tmp_path)), run)
    model = real()
    model.gradient_checkpointing_enable()
    inputs_and_rest = kept_by(model, 2, 16)
    block = found.whole - activations(settings_of(one := run_of(tmp_path, num_hidden_layers=1)), one).whole
    assert found.checkpointed == pytest.approx(inputs_and_rest + block, rel=0.05)
    assert found.checkpointed < found.whole


def test_two_blocks_stand_for_many(tmp_path, monkeypatch):
    run = run_of(tmp_path, num_hidden_layers=5)
    short = activations(settings_of(run), run)
    monkeypatch.setattr(planned, "TRACED", 99)
    assert activations(settings_of(run), run) == short


def test_activations_grow_with_rows_and_halve_in_bfloat16(tmp_path):
    one, three = (activations(settings_of(run := run_of(tmp_path, rows)), run).whole for rows in (1, 3))
    assert three == pytest.approx(3 * one, rel=0.05)  # rotary tables are shared by rows
    half = activations(settings_of(run := run_of(tmp_path, 1, options={"bf16": True})), run).whole
    assert 0.5 * one < half < 0.75 * one  # logits and norms stay in float32


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size"])
def test_a_configuration_without_a_needed_field(tmp_path, name, monkeypatch):
    run = run_of(tmp_path)
    settings = planned.pretrained_config(run)
    settings.__dict__.pop(name)
    monkeypatch.setattr(planned, "pretrained_config", lambda _: settings)
    monkeypatch.delattr(type(settings), name, raising=False)
    with pytest.raises(ValueError, match=f"has no {name}, which a plan counts with"):
        settings_of(run)


def test_experts_are_refused(tmp_path):
    mixture = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 4}
    run = run_of(tmp_path, **mixture)
    with pytest.raises(ValueError, match=r"experts.* has three dimensions.*cannot be planned"):
        meta_model(settings_of(run), run)


def test_an_unknown_model_is_one_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="model 'no-such/model' is no local folder") as caught:
        settings_of(RunConfig("no-such/model"))
    assert "\n" not in str(caught.value)


def test_adapters_are_what_is_trained(tmp_path):
    run = run_of(tmp_path, options={"lora_r": 2})
    model = meta_model(settings_of(run), run)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
