"""What stands where in a model, which projections torch's own attention has, and what decays."""

import pytest
import torch
from torch import nn

from cegm import CEGM
from cegm.roles import assign

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")


def llama(**changes):
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return transformers.LlamaConfig(**{**sizes, "num_attention_heads": 2, **changes})


# ---------------------------------------------------------------------- torch's own attention


def test_projections_of_torchs_attention_are_matrices_out_of_reach():
    layer = nn.TransformerDecoderLayer(16, 4, 32, batch_first=True)
    other = nn.MultiheadAttention(16, 4, kdim=12, vdim=10)
    found = {a.name: a for a in assign(nn.ModuleDict({"layer": layer, "other": other}))}
    packed = found["layer.self_attn.in_proj_weight"]
    assert (packed.role, packed.pieces) == ("matrix", (16, 16, 16))
    assert packed.reason == "linear layer, 3 fused, contexts out of reach"
    assert found["layer.self_attn.out_proj.weight"].reason == "linear layer, contexts out of reach"
    assert [found[f"other.{side}_proj_weight"].role for side in "qkv"] == ["matrix"] * 3
    assert found["layer.linear1.weight"].places


# ---------------------------------------------------------------------- weight decay


def decays(model):
    return {a.name for a in assign(model) if a.decays}


def test_only_weights_that_multiply_decay():
    class Everything(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.fc = nn.Embedding(5, 8), nn.Linear(8, 8)
            self.cell, self.bilinear, self.transposed = nn.GRU(8, 4), nn.Bilinear(8, 8, 3), nn.ConvTranspose1d(8, 4, 3)
            self.norm = nn.LayerNorm((5, 8))
            self.cls_token, self.position = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(1, 5, 8))
            self.table = nn.Parameter(torch.zeros(9, 4))  # of relative positions
            self.time = nn.Parameter(torch.zeros(8, 4))
            self.gain = nn.Parameter(torch.ones(8, 1, 1))
            self.value = nn.Linear(8, 1)

    assert decays(Everything()) == {
        "embed.weight", "fc.weight", "cell.weight_ih_l0", "cell.weight_hh_l0", "bilinear.weight", "transposed.weight"
    }  # fmt: skip


def test_what_a_model_marks_has_no_decay_whatever_it_is():
    class Marked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.first.weight._no_weight_decay = True

        def no_weight_decay(self):
            return {"second.weight"}

    model = nn.ModuleDict({"inside": Marked()})
    assert decays(model) == {"inside.third.weight"}
    optimizer = CEGM(model, lr=0.1, weight_decay=0.5)
    assert [(g["role"], len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups] == [
        ("matrix", 1, 0.5), ("matrix", 2, 0.0), ("adamw", 3, 0.0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "marked"),
    [
        ({"second.weight"}, {"second"}),
        (["second"], {"second"}),
        ("second", {"second"}),
        (True, {"first", "second"}),
        (False, set()),
        (None, set()),
        (lambda self: None, set()),
        (lambda self: ("second.weight",), {"second"}),
        (lambda self, skip: {"second.weight"}, set()),  # a method of another kind
        (property(lambda self: {"second.weight": 1}), {"second"}),
        (7, set()),
    ],
)
def test_a_model_marks_in_any_form(said, marked):
    class Marked(nn.Module):
        no_weight_decay = said

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    assert decays(nn.ModuleDict({"inside": Marked()})) == {f"inside.{n}.weight" for n in {"first", "second"} - marked}


def test_keywords_mark_too():
    class Swin(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.place = nn.Linear(8, 8), nn.Embedding(4, 8)

        def no_weight_decay_keywords(self):
            return {"place"}

    assert decays(Swin()) == {"first.weight"}


def test_marks_are_seen_through_adapters():
    class Marked(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.place = nn.Linear(8, 8), nn.Embedding(4, 8)

        def no_weight_decay(self):
            return {"place.weight"}

    model = peft.get_peft_model(Marked(), peft.LoraConfig(r=2, target_modules=["body"], modules_to_save=["place"]))
    assert all("lora_" in name for name in decays(model))


def test_what_a_parametrized_weight_is_made_of_decays():
    layers = nn.ModuleDict(
        {
            "spectral": nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)),
            "norm": nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
            "plain": nn.Linear(8, 8),
        }
    )
    assert decays(layers) == {
        "spectral.parametrizations.weight.original",
        "norm.parametrizations.weight.original1",
        "plain.weight",
    }


# ---------------------------------------------------------------------- what cannot be told


@pytest.mark.parametrize("lazy", [nn.LazyLinear(8), nn.LazyConv2d(8, 3)])
def test_lazy_layers_have_to_run_first(lazy):
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet .* run one forward pass first") as error:
        CEGM(nn.Sequential(lazy))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("empty", [(8, 0), (0, 8)])
def test_layers_without_inputs_or_outputs_are_left_alone(empty):
    optimizer = CEGM(nn.Sequential(nn.Linear(8, 8), nn.Linear(*empty)))
    assert [a.name for a in optimizer.matrices()] == ["0.weight"]
    optimizer.summary()


def test_adapters_of_rank_one_train():
    model = transformers.LlamaForCausalLM(llama())
    model = peft.get_peft_model(model, peft.LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM"))
    with pytest.warns(UserWarning, match="single row or column"):
        optimizer = CEGM(model, lr=1e-2)
    ids = torch.randint(40, (4, 9))
    losses = []
    for _ in range(10):
        losses.append(model(input_ids=ids, labels=ids).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
