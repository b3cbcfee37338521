"""What a weight does, from the structure of a model alone: heads, routers, experts, and what is no matrix at all."""

import pytest
import torch
from torch import nn

from cegm import CEGM
from cegm.roles import assign

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")


def roles(model):
    return {a.name: a.role for a in assign(model)}


def reasons(model):
    return {a.name: a.reason for a in assign(model)}


def llama(**changes):
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return transformers.LlamaConfig(**{**sizes, "num_attention_heads": 2, **changes})


# ---------------------------------------------------------------------- output heads


class Decoder(nn.Module):
    """A language model of nobody's library, whose head may be called anything and stand anywhere."""

    def __init__(self, name, words=64, width=16, first=False):
        super().__init__()
        head = nn.Linear(width, words, bias=False)
        if first:
            self.add_module(name, head)
        self.tokens = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width)) for _ in range(2)]
        )
        if not first:
            self.add_module(name, head)


@pytest.mark.parametrize("name", ["decoder", "words", "to_vocabulary", "out", "predict"])
@pytest.mark.parametrize("first", [False, True])
def test_as_many_outputs_as_words_and_nothing_behind_is_a_head_by_whatever_name(name, first):
    found = reasons(Decoder(name, first=first))
    assert found[f"{name}.weight"] == "output head"
    assert sum(reason == "linear layer" for reason in found.values()) == 4


def test_a_vocabulary_as_large_as_the_model_is_wide():
    """Bytes over a width of 256: every square layer has as many outputs, and only the last one nothing behind it."""
    model = nn.ModuleDict({"bytes": nn.Embedding(256, 256), "body": nn.Linear(256, 256), "out": nn.Linear(256, 256)})
    assert reasons(model) == {
        "bytes.weight": "embedding",
        "body.weight": "linear layer",
        "body.bias": "vector",
        "out.weight": "output head",
        "out.bias": "vector",
    }


def test_a_layer_of_the_body_is_no_head_because_of_its_name_or_size():
    class Scorer(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = nn.Embedding(32, 16)
            self.score, self.head, self.output = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)
            self.last = nn.Linear(16, 16)

    found = roles(Scorer())
    assert {name for name, role in found.items() if role == "matrix"} == {
        "score.weight", "head.weight", "output.weight", "last.weight"
    }  # fmt: skip


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_fused_projection_as_high_as_the_vocabulary_is_no_head(blocks):
    class Attention(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.add_module(name, nn.Linear(16, 48))
            self.project = nn.Linear(16, 16)

    for name in ("c_attn", "to_everything"):
        model = nn.ModuleDict(
            {
                "tokens": nn.Embedding(48, 16),
                "layers": nn.ModuleList([Attention(name) for _ in range(blocks)]),
                "heads": nn.ModuleList([nn.Linear(16, 48) for _ in range(3)]),
            }
        )
        found = reasons(model)
        heads = [each for each, reason in found.items() if reason == "output head"]
        assert heads == [f"heads.{number}.weight" for number in range(3)]
        assert sum(reason == "linear layer" for reason in found.values()) == 2 * blocks


def test_heads_of_classifiers_are_told_by_the_number_of_classes():
    roberta = transformers.RobertaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=5
    )
    found = reasons(transformers.RobertaForSequenceClassification(roberta))
    assert found["classifier.out_proj.weight"] == "output head"
    assert found["classifier.dense.weight"] == "linear layer"
    rewards = transformers.LlamaForSequenceClassification(llama(num_labels=3, pad_token_id=0))
    assert reasons(rewards)["score.weight"] == "output head"

    class Timm(nn.Module):
        num_classes = 7

        def __init__(self):
            super().__init__()
            self.stem, self.last = nn.Linear(8, 16), nn.Linear(16, 7)

        def get_classifier(self):
            return self.last

    assert reasons(Timm())["last.weight"] == "output head"
    assert roles(Timm())["stem.weight"] == "matrix"


@pytest.mark.parametrize("wrap", ["lightning", "parallel", "twice"])
def test_what_a_model_calls_its_output_embeddings_is_seen_through_wrappers(wrap):
    class Wrapper(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.inside = inside

    model = transformers.LlamaForCausalLM(llama())
    wrapped = {"lightning": Wrapper, "parallel": nn.DataParallel, "twice": lambda m: Wrapper(Wrapper(m))}[wrap](model)
    found = reasons(wrapped)
    assert [name for name, reason in found.items() if reason == "output head"] == [
        name for name in found if name.endswith("lm_head.weight")
    ]


def test_heads_behind_adapters():
    kept = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    adapted = peft.LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    found = reasons(peft.get_peft_model(transformers.LlamaForCausalLM(llama()), kept))
    assert [reason for name, reason in found.items() if "lm_head" in name] == ["output head"]
    found = reasons(peft.get_peft_model(transformers.LlamaForCausalLM(llama()), adapted))
    head = {name.split("lora_")[1][0]: reason for name, reason in found.items() if "lm_head" in name}
    assert head == {"A": "linear layer", "B": "output head"}


def test_an_adapter_whose_rank_is_the_number_of_classes_is_no_head():
    model = transformers.LlamaForSequenceClassification(llama(num_labels=8, pad_token_id=0))
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=8, target_modules=["q_proj", "down_proj"], task_type="SEQ_CLS")
    )
    found = reasons(model)
    assert {reason for name, reason in found.items() if "lora_" in name} == {"linear layer"}
    assert {reason for name, reason in found.items() if "score" in name} == {"output head"}


# ---------------------------------------------------------------------- mixtures of experts


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
