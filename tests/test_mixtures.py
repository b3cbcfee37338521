"""Mixtures of experts: which batches of matrices are experts, how they are stored, and which layers choose among them."""

import pytest
import torch
from torch import nn

from cegm import CEGM
from cegm.roles import assign
from models import holding, reasons, roles

transformers = pytest.importorskip("transformers")


def model_of(**inside):
    """A model of width 8 with such a mixture in it."""
    return holding(norm=nn.LayerNorm(8), body=nn.Linear(8, 8), inside=holding(**inside))


def found_in(model):
    return {a.name.removeprefix("inside.").removesuffix(".weight"): a for a in assign(model)}


class Sparse(nn.Module):
    """A mixture of nobody's library: its router beside a list of experts."""

    def __init__(self, router, experts=4):
        super().__init__()
        self.add_module(router, nn.Linear(16, experts, bias=False))
        self.experts = nn.ModuleList([nn.Linear(16, 16, bias=False) for _ in range(experts)])


@pytest.mark.parametrize("name", ["choose", "switch", "router", "to_logits"])
def test_as_many_outputs_as_experts_beside_it_is_a_router_by_whatever_name(name):
    found = reasons(Sparse(name))
    assert found.pop(f"{name}.weight") == "router"
    assert set(found.values()) == {"linear layer"}


def test_the_gate_of_a_feed_forward_layer_is_no_router():
    block = nn.ModuleDict({"gate": nn.Linear(16, 32), "up": nn.Linear(16, 32), "down": nn.Linear(32, 16)})
    assert {role for name, role in roles(block).items() if "weight" in name} == {"matrix"}


def test_layers_beside_blocks_are_no_routers_when_there_are_as_many_blocks():
    model = nn.ModuleDict(
        {"into": nn.Linear(3, 4), "blocks": nn.ModuleList([nn.Sequential(nn.Linear(4, 4)) for _ in range(4)])}
    )
    assert reasons(model)["into.weight"] == "linear layer"


class Stacked(nn.Module):
    """Experts as batches of matrices, stored either way."""

    def __init__(self, transposed, experts=3, width=8, hidden=20):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        up, down = (experts, hidden, width), (experts, width, hidden)
        up, down = ((experts, width, hidden), (experts, hidden, width)) if transposed else (up, down)
        self.up, self.down = nn.Parameter(torch.randn(up) / 4), nn.Parameter(torch.randn(down) / 4)
        self.bias = nn.Parameter(torch.zeros(experts, hidden))


@pytest.mark.parametrize("transposed", [False, True])
def test_experts_in_one_parameter_are_matrices_stored_as_the_width_of_the_model_tells(transposed):
    found = {a.name: a for a in assign(Stacked(transposed))}
    up, down = found["up"], found["down"]
    assert (up.role, up.experts, up.transposed, up.pieces) == ("matrix", 3, transposed, (20,))
    assert (down.role, down.experts, down.transposed, down.pieces) == ("matrix", 3, transposed, (8,))
    assert [matrix.shape for matrix in up.matrices()] == [(20, 8)] * 3
    assert not found["bias"].decays
    for expert, matrix in enumerate(up.matrices()):
        stored = up.parameter[expert]
        assert torch.equal(matrix.view(up.parameter), stored.T if transposed else stored)


def test_other_batches_are_left_to_adamw_and_the_last_line_says_so():
    class Prompts(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 8)
            self.prefix = nn.Parameter(torch.zeros(3, 10, 8))

    optimizer = CEGM(Prompts())
    assert "prefix (240, no linear layer (Prompts))" in optimizer.summary().splitlines()[-1]
    named = CEGM(Prompts(), group_patterns=[("prefix", "matrix")])
    assert "among them" not in named.summary().splitlines()[-1]
    assert {a.name: a.experts for a in named.matrices()}["prefix"] == 3


# ---------------------------------------------------------------------- what is a batch of matrices


@pytest.mark.parametrize(
    "tables",
    [
        {"keys": (4, 5, 8), "values": (4, 5, 8)},
        {"row": (2, 5, 8), "column": (2, 5, 8)},
        {"q": (8, 2, 4), "k": (8, 2, 4), "o": (8, 4, 2)},  # the width first, then heads
        {"wq": (2, 8, 4), "wk": (2, 8, 4), "wv": (2, 8, 4)},
        {"A_log": (2, 8, 16), "dt_proj_weight": (2, 8, 4)},
        {"codes": (4, 16, 8), "scales": (4, 16, 8)},
    ],
)
def test_batches_that_share_a_side_are_no_experts_yet(tables):
    found = found_in(model_of(**tables))
    assert {found[name].role for name in tables} == {"adamw"}
    assert {name for name in tables if found[name].decays} <= {"dt_proj_weight"}


@pytest.mark.parametrize(
    ("batches", "beside"),
    [
        ({"w": (4, 12, 8)}, {"num_experts": 4}),
        ({"w": (4, 12, 8)}, {"config": {"moe_num_experts": 4}}),
        ({"w": (4, 8, 8)}, {"gate": nn.Linear(8, 4)}),
        ({"w1": (4, 12, 8), "w3": (4, 12, 8), "w2": (4, 8, 12)}, {}),
        ({"expert_weights": (4, 12, 8)}, {}),
    ],
)
def test_a_mixture_says_that_its_batches_are_experts(batches, beside):
    found = found_in(model_of(**beside, **batches))
    assert {(found[name].role, found[name].experts, found[name].decays) for name in batches} == {("matrix", 4, True)}


def test_a_configuration_that_counts_as_many_heads_says_nothing_of_experts():
    found = found_in(model_of(config={"num_experts": 4, "num_attention_heads": 4}, q=(4, 8, 2)))
    assert found["q"].role == "adamw"


def test_biases_of_experts_are_no_matrices():
    found = found_in(model_of(num_experts=4, w=(4, 12, 8), bias=(4, 1, 12), w_bias=(4, 3, 12)))
    assert [found[name].role for name in ("w", "bias", "w_bias")] == ["matrix", "adamw", "adamw"]
    assert not found["bias"].decays


def test_a_single_expert_is_left_to_adamw_with_decay_and_the_last_line_says_so():
    model = model_of(num_experts=1, up=(1, 12, 8), down=(1, 8, 12))
    assert {(a.role, a.reason, a.decays) for name, a in found_in(model).items() if name in ("up", "down")} == {
        ("adamw", "the only expert", True)
    }
    assert "inside.up (96, the only expert)" in CEGM(model).summary().splitlines()[-1]


def test_experts_one_below_the_other_are_matrices_of_their_own():
    model = model_of(moe_num_experts=4, ffn_hidden_size=12, w1=(48, 8), w2=(48, 8), unlike=(20, 8))
    found = found_in(model)
    assert [matrix.shape for matrix in found["w1"].matrices()] == [(12, 8)] * 4
    assert found["w2"].decays
    assert not found["w1"].places
    assert found["unlike"].role == "adamw"
    for number, matrix in enumerate(found["w1"].matrices()):
        assert torch.equal(matrix.view(found["w1"].parameter), found["w1"].parameter[12 * number : 12 * (number + 1)])


# ---------------------------------------------------------------------- how it is stored


@pytest.mark.parametrize("width", [8, 12])
def test_a_module_that_knows_its_sides_says_how_its_experts_are_stored(width):
    down = holding(num_experts=3, input_size=12, output_size=8, weight=(3, 8, 12))
    turned = holding(num_experts=3, input_size=12, output_size=8, weight=(3, 12, 8))
    model = nn.ModuleDict({"norm": nn.LayerNorm(width), "down": down, "turned": turned})
    found = {a.name: a for a in assign(model)}
    assert (found["down.weight"].transposed, found["turned.weight"].transposed) == (False, True)
    assert {(found[name].height, found[name].inputs) for name in ("down.weight", "turned.weight")} == {(8, 12)}


def test_what_goes_down_gives_the_width_of_the_model():
    found = found_in(model_of(num_experts=3, down_proj=(3, 8, 12)))["down_proj"]
    assert (found.transposed, found.height) == (False, 8)
    found = found_in(model_of(num_experts=3, down_proj=(3, 12, 8)))["down_proj"]
    assert (found.transposed, found.height) == (True, 8)


# ---------------------------------------------------------------------- routers


def feed_forward(hidden):
    return nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 8))


@pytest.mark.parametrize("behind", [0, 1])
def test_a_router_of_listed_experts_with_something_else_in_the_list(behind):
    choose = nn.Linear(8, 5)
    router = {"choose": holding(layer=choose) if behind else choose}
    experts = nn.ModuleDict({**{f"expert_{number}": feed_forward(12) for number in range(5)}, "drop": nn.Dropout()})
    found = found_in(model_of(**router, experts=experts))
    assert found["choose.layer" if behind else "choose"].reason == "router"


def test_a_shared_expert_as_wide_as_there_are_experts_is_no_router():
    shared = holding(gate_proj=nn.Linear(8, 4), up_proj=nn.Linear(8, 4), down_proj=nn.Linear(4, 8))
    experts = holding(num_experts=4, up=(4, 12, 8), down=(4, 8, 12))
    found = found_in(model_of(gate=nn.Linear(8, 4), experts=experts, shared=shared))
    assert found["gate"].reason == "router"
    assert {a.role for name, a in found.items() if name.startswith("shared") and "bias" not in name} == {"matrix"}


def test_keys_as_wide_as_there_are_experts_beside_the_attention_are_no_router():
    attention = {name: nn.Linear(8, size) for name, size in {"q": 8, "k": 4, "v": 4, "o": 8}.items()}
    mixture = holding(choose=nn.Linear(8, 4), num_experts=4, up=(4, 12, 8), down=(4, 8, 12))
    found = found_in(model_of(attention=holding(**attention), mixture=mixture))
    assert found["mixture.choose"].reason == "router"
    assert {found[f"attention.{name}"].role for name in "qkvo"} == {"matrix"}


# ---------------------------------------------------------------------- families


TINY = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}


def test_experts_and_routers_of_families_that_differ():
    ffn = {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2}
    attention = {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}
    sizes = {"d_model": 32, "n_heads": 4, "n_layers": 1, "vocab_size": 96, "max_seq_len": 64, "pad_token_id": 0}
    dbrx = transformers.DbrxForCausalLM(transformers.DbrxConfig(**sizes, attn_config=attention, ffn_config=ffn))
    experts = [a for a in assign(dbrx) if "experts" in a.name]
    assert {(a.role, a.pieces) for a in experts} == {("matrix", (24, 24, 24, 24))}
    assert [r for name, r in reasons(dbrx).items() if "router" in name] == ["router"]

    jet = transformers.JetMoeConfig(
        **TINY, kv_channels=8, intermediate_size=24, num_local_experts=4, num_experts_per_tok=2
    )
    found = {a.name.split("layers.0.")[-1]: a for a in assign(transformers.JetMoeForCausalLM(jet))}
    assert (found["mlp.input_linear.weight"].height, found["mlp.input_linear.weight"].inputs) == (48, 32)
    assert (found["mlp.output_linear.weight"].height, found["mlp.output_linear.weight"].inputs) == (32, 24)

    with torch.device("meta"):
        longcat = transformers.LongcatFlashForCausalLM(transformers.LongcatFlashConfig(num_layers=1))
        zamba = transformers.ZambaForCausalLM(transformers.ZambaConfig())
        xlnet = transformers.XLNetLMHeadModel(transformers.XLNetConfig(n_layer=1))
    found = reasons(longcat)
    assert found["model.layers.0.mlp.router.classifier.weight"] == "router"
    assert found["model.layers.0.mlp.experts.down_proj"] == "experts"
    assert {(a.role, a.decays) for a in assign(zamba) if a.name.endswith("A_log")} == {("adamw", False)}
    found = {a.name.split("layer.0.")[-1]: a for a in assign(xlnet)}
    assert (found["rel_attn.q"].role, found["rel_attn.q"].experts, found["ff.layer_2.weight"].role) == (
        "adamw", 1, "matrix"
    )  # fmt: skip


@pytest.mark.parametrize("container", [nn.ParameterDict, nn.ParameterList])
def test_experts_in_a_container_of_parameters_are_seen_by_the_module_around(container):
    """A container of parameters never runs."""

    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.num_experts = nn.Linear(8, 8), 4
            held = {"0": torch.randn(4, 12, 8), "1": torch.randn(4, 8, 12)}
            self.experts = container(held if container is nn.ParameterDict else list(held.values()))

        def forward(self, x):
            first, second = (self.experts[key if container is nn.ParameterList else str(key)] for key in (0, 1))
            hidden = nn.functional.layer_norm(self.embed(x), (8,))
            return sum(nn.functional.linear(nn.functional.linear(hidden, first[e]).relu(), second[e]) for e in range(4))

    model = Mixture()
    optimizer = CEGM(model, refresh_every=1, heads=1)
    x = torch.randn(5, 8)
    model(x).square().sum().backward()
    optimizer.step()
    for parameter in model.experts.parameters():
        height = parameter.shape[1]
        assert optimizer.state[parameter]["demand_map"].shape == (4, height, height)
