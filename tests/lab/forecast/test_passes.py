"""Passes of models without memory, against sums by hand and real passes of the same models."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from cegm.lab.forecast.passes import meta_model, passes, settings_of
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


def traced(*given, **named):
    run = run_of(*given, **named)
    return passes(settings_of(run), run)


def test_operations_are_those_of_a_real_pass(tmp_path):
    found, model = traced(tmp_path), real(attn_implementation="eager")
    tokens = torch.zeros(2, 16, dtype=torch.long)
    with FlopCounterMode(display=False) as seen:
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    product = 2 * 32 * 16 * 32 * 2  # of scores or values in both blocks; eager attention computes the masked half, too
    assert found.forward + found.backward == seen.get_total_flops() - 6 * product + 7 * product / 2


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_operations_by_hand(tmp_path, blocks):
    found = traced(tmp_path, 2, 5, num_hidden_layers=blocks)
    block, head = 4 * 32 * 32 + 3 * 32 * 96, 61 * 32
    product = 2 * 10 * 5 * 32 / 2  # 10 tokens see 5 each, half of them masked
    assert found.again == blocks * (2 * 10 * block + 2 * product)
    assert found.forward == found.again + 2 * 10 * head
    assert found.backward == 2 * 2 * 10 * (blocks * block + head) + blocks * 5 * product


def test_adapters_alone_need_gradients_of_their_own(tmp_path):
    whole, adapted = traced(tmp_path), traced(tmp_path, options={"lora_r": 2})
    entries = 2 * (4 * 32 * 32 + 3 * 32 * 96) + 61 * 32
    pairs = 2 * 2 * (4 * (32 + 32) + 3 * (32 + 96))  # of rank 2 in 2 blocks
    assert adapted.forward - whole.forward == 2 * 32 * pairs
    # No gradient of frozen weights; the first block's three projections have adapters, which need none of their inputs.
    assert (
        whole.backward - adapted.backward == 2 * 32 * (entries + 3 * 32 * 32) - 2 * 2 * 32 * pairs + 3 * 2 * 32 * 2 * 32
    )


@pytest.mark.parametrize(("rows", "length"), [(1, 32), (3, 24)])
def test_activations_are_those_of_a_real_pass(tmp_path, rows, length):
    found = traced(tmp_path, rows, length)
    assert found.logits == 4 * rows * length * 61
    assert found.kept == kept_by(real(), rows, length)


def test_checkpointed_activations_are_inputs_of_blocks_one_block_and_the_rest(tmp_path):
    found = traced(tmp_path)
    model = real()
    model.gradient_checkpointing_enable()
    inputs_and_rest = kept_by(model, 2, 16)
    block = found.kept - traced(tmp_path, num_hidden_layers=1).kept
    assert found.checkpointed == pytest.approx(inputs_and_rest + block, rel=0.05)
    assert found.checkpointed < found.kept


def test_two_blocks_stand_for_many(tmp_path, monkeypatch):
    short = traced(tmp_path, num_hidden_layers=5)
    kinds = [kind for kind in ("full_attention", "sliding_attention") for _ in range(3)]
    monkeypatch.setattr(LlamaConfig, "layer_types", kinds[1:], raising=False)
    assert traced(tmp_path, num_hidden_layers=5) == short


def test_activations_grow_with_rows_and_halve_in_bfloat16(tmp_path):
    one, three = (traced(tmp_path, rows).kept for rows in (1, 3))
    assert three == pytest.approx(3 * one, rel=0.05)  # rotary tables are shared by rows
    half = traced(tmp_path, 1, options={"bf16": True}).kept
    assert 0.5 * one < half < 0.75 * one  # logits and norms stay in float32


MIXTURE = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 4}


@pytest.mark.parametrize("met", [1, 2])
def test_of_experts_those_count_that_a_token_meets(tmp_path, met):
    found = traced(tmp_path, **MIXTURE, num_experts_per_tok=met)
    block = 4 * 32 * 32 + met * 3 * 32 * 96 + 4 * 32  # attention, experts, router
    assert found.again == 2 * (2 * 32 * block + 2 * 2 * 32 * 16 * 32 / 2)


def test_copies_of_experts_are_not_kept(tmp_path):
    one, three = (traced(tmp_path, rows, **MIXTURE, num_experts_per_tok=1).kept for rows in (1, 3))
    assert three == pytest.approx(3 * one, rel=0.05)
    assert one < 2 * traced(tmp_path, 1).kept


def test_what_depends_on_numbers_is_refused_in_one_line(tmp_path, monkeypatch):
    def act(self, x):
        return x * x.sum().item()

    monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaMLP.forward", act)
    with pytest.raises(ValueError, match=r"depends on numbers .* cannot be counted") as caught:
        traced(tmp_path)
    assert "\n" not in str(caught.value)


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
