"""Where one weight of a fused projection ends: what a configuration says, at whatever depth, and nothing else."""

import pytest
import torch
from torch import nn

from cegm import CEGM
from cegm.fused import fused_pieces

transformers = pytest.importorskip("transformers")


class Facts(nn.Module):
    """A module that knows some numbers, in a configuration or by itself."""

    def __init__(self, config=None, **own):
        super().__init__()
        vars(self).update(own)
        if config is not None:
            self.config = config


class Numbers:
    def __init__(self, **numbers):
        vars(self).update(numbers)


def pieces(kind, outputs, *holders, inputs=32):
    return fused_pieces(kind, outputs, inputs, holders)


def test_the_nearest_configuration_tells_the_boundaries():
    grouped = Numbers(num_attention_heads=8, num_key_value_heads=2, head_dim=4)
    other = Numbers(num_attention_heads=4, num_key_value_heads=4, head_dim=4)
    assert pieces("qkv_proj", 48, Facts(), Facts(grouped), Facts(other)) == (32, 8, 8)
    assert pieces("qkv_proj", 48, Facts(other), Facts(grouped)) == (16, 16, 16)


def test_what_three_divides_is_whole_without_a_configuration():
    assert pieces("qkv_proj", 48, Facts()) == (48,)
    assert pieces("Wqkv", 96, Facts(), Facts()) == (96,)
    assert pieces("c_attn", 96) == (96,)


def test_a_configuration_whose_heads_do_not_make_up_the_rows_tells_nothing():
    assert pieces("qkv_proj", 50, Facts(Numbers(num_attention_heads=8, num_key_value_heads=2, head_dim=4))) == (50,)
    assert pieces("qkv_proj", 96, Facts(Numbers(num_attention_heads=8, num_key_value_heads=2, head_dim=4))) == (96,)


def test_an_attention_that_knows_its_own_heads_needs_no_configuration():
    assert pieces("Wqkv", 96, Facts(num_heads=4)) == (32, 32, 32)
    assert pieces("Wqkv", 64, Facts(n_heads=4, n_kv_heads=2)) == (32, 16, 16)


def test_wide_queries_are_no_third():
    """Queries twice as wide as the model, keys and values half as wide: three divides the rows all the same."""
    assert pieces("qkv_proj", 96, Facts(Numbers(num_attention_heads=8, num_key_value_heads=2, head_dim=8))) == (
        64,
        16,
        16,
    )


def test_one_key_for_all_queries_is_a_piece_and_interleaved_ones_are_not():
    assert pieces("c_attn", 40, Facts(Numbers(num_attention_heads=8, multi_query=True, head_dim=4))) == (32, 4, 4)
    assert pieces("c_attn", 96, Facts(Numbers(num_attention_heads=8, multi_query=False))) == (96,)
    codegen = Numbers(model_type="codegen", num_attention_heads=8)
    assert pieces("qkv_proj", 96, Facts(num_attention_heads=8), Facts(codegen)) == (96,)
    assert pieces("query_key_value", 96, Facts(Numbers(num_attention_heads=8))) == (96,)


def test_heads_narrower_than_the_model_are_three_pieces_not_two():
    """As many outputs as twice the inputs, which in GPT-2's cross attention alone are keys and values."""
    narrow = Numbers(num_attention_heads=4, num_key_value_heads=4, head_dim=8)
    assert pieces("qkv_proj", 96, Facts(narrow), inputs=48) == (32, 32, 32)
    unknown = Numbers(num_attention_heads=4, num_key_value_heads=4)
    assert pieces("qkv_proj", 96, Facts(unknown), inputs=48) == (32, 32, 32)
    assert pieces("qkv_proj", 64, Facts(Numbers(num_attention_heads=4)), inputs=32) == (64,)
    assert pieces("c_attn", 96, Facts(Numbers(n_head=4)), inputs=48) == (48, 48)


def test_configurations_may_be_mappings_or_hyperparameters():
    grouped = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 4}
    assert pieces("qkv_proj", 48, Facts(), Facts(grouped)) == (32, 8, 8)
    assert pieces("qkv_proj", 48, Facts(hparams=grouped)) == (32, 8, 8)


class PerHead(nn.Module):
    """An attention that takes query, key and value of one head after those of another."""

    num_heads = 4

    def forward(self, x):
        return self.qkv_proj(x).view(*x.shape[:-1], self.num_heads, 3 * 8).chunk(3, -1)


class Together(PerHead):
    """One that takes all queries first."""

    def forward(self, x):
        return self.qkv_proj(x).view(*x.shape[:-1], 3, self.num_heads, 8).unbind(-3)


def test_what_an_attention_takes_head_by_head_is_whole():
    assert pieces("qkv_proj", 96, PerHead()) == (96,)
    assert pieces("qkv_proj", 96, Together()) == (32, 32, 32)
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "head_dim": 8}
    kinds = ["linear_attention", "full_attention"]
    lightning = transformers.MiniMaxConfig(
        **sizes, num_hidden_layers=2, num_key_value_heads=2, num_local_experts=2, layer_types=kinds
    )
    found = [a.pieces for a in CEGM(transformers.MiniMaxForCausalLM(lightning)).matrices() if "qkv" in a.name]
    assert found == [(96,)]


def test_gate_and_up_are_halves_if_the_next_layer_takes_one():
    block = nn.ModuleDict({"gate_up_proj": nn.Linear(32, 48), "down_proj": nn.Linear(24, 32)})
    assert pieces("gate_up_proj", 48, block) == (24, 24)
    assert pieces("gate_up_proj", 48, nn.ModuleDict({"down_proj": nn.Linear(48, 32)})) == (48,)


@pytest.mark.parametrize(("outputs", "expected"), [(48, (24, 24)), (96, (96,))])
def test_the_next_layer_decides_though_others_take_as_many(outputs, expected):
    """A model half as wide as the projection is high, and one that is as wide."""
    taken = sum(expected) // len(expected)
    for width in (24, 48, 96):
        layer = nn.ModuleDict({"gate_up_proj": nn.Linear(width, outputs), "down_proj": nn.Linear(taken, width)})
        block = nn.ModuleDict({"attention": nn.Linear(width, width), "mlp": layer})
        assert pieces("gate_up_proj", outputs, layer, block, inputs=width) == expected


class Wrapped(nn.Module):
    """As Lightning modules, DistributedDataParallel and home-made trainers do."""

    def __init__(self, model, depth=1):
        super().__init__()
        self.net = model if depth == 1 else Wrapped(model, depth - 1)


def families():
    tiny = {"vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    yield transformers.Phi3ForCausalLM(
        transformers.Phi3Config(**tiny, intermediate_size=32, num_key_value_heads=1, pad_token_id=0, eos_token_id=1)
    )
    yield transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=17, n_embd=12, n_layer=1, n_head=2))
    yield transformers.GPTBigCodeForCausalLM(
        transformers.GPTBigCodeConfig(vocab_size=17, n_embd=16, n_layer=1, n_head=4, multi_query=True)
    )


EXPECTED = [(64, 16, 16), (12, 12, 12), (16, 4, 4)]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_wrappers_hide_no_boundary(depth):
    for model, expected in zip(families(), EXPECTED, strict=True):
        wrapped = Wrapped(model, depth) if depth else model
        found = [a.pieces for a in CEGM(wrapped).matrices() if "qkv" in a.name or "c_attn" in a.name]
        assert found == [expected]


def test_an_adapted_projection_keeps_its_boundaries():
    peft = pytest.importorskip("peft")
    model = next(families())
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["o_proj"], modules_to_save=["qkv_proj"]))
    found = [a.pieces for a in CEGM(adapted).matrices() if "qkv_proj" in a.name]
    assert found == [(64, 16, 16)]


def test_pieces_of_a_projection_are_views_of_it():
    model = next(families())
    (fused,) = [a for a in CEGM(model).matrices() if "qkv" in a.name]
    parts = fused.parameter.split([64, 16, 16])
    assert all(torch.equal(m.view(fused.parameter), part) for m, part in zip(fused.matrices(), parts, strict=True))
