import pytest
import torch
from torch import nn

from cegm.assignment import assign_without_model, block_of, table
from cegm.roles import assign

transformers = pytest.importorskip("transformers")


def roles(model, patterns=()):
    return {a.name: (a.role, a.reason) for a in assign(model, patterns)}


class Mixture(nn.Module):
    """Embedding, tied head, router, recurrent cell, convolution, one-row matrix: every role at once."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.gate = nn.Linear(6, 2)
        self.gate_proj = nn.Linear(6, 8, bias=False)
        self.cell = nn.LSTM(6, 4)
        self.convolution = nn.Conv1d(6, 4, 3)
        self.pointwise = nn.Conv2d(6, 4, 1)
        self.depthwise = nn.Conv1d(6, 6, 3, groups=6)
        self.strided = nn.Conv2d(6, 4, 3).to(memory_format=torch.channels_last)
        self.volume = nn.Conv3d(2, 3, 2)
        self.value = nn.Linear(6, 1)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.norm = nn.LayerNorm(6)
        self.lm_head = nn.Linear(6, 11, bias=False)
        self.tied = nn.Linear(6, 11, bias=False)
        self.tied.weight = self.embed.weight


def test_roles_of_every_kind():
    found = roles(Mixture())
    assert found["gate_proj.weight"] == ("matrix", "linear layer")
    assert found["embed.weight"] == ("adamw", "embedding")
    assert found["lm_head.weight"] == ("adamw", "output head")
    assert found["gate.weight"] == ("adamw", "router")
    assert found["cell.weight_ih_l0"] == ("adamw", "no hook sees it (LSTM)")
    assert found["convolution.weight"] == ("matrix", "convolution")
    assert found["pointwise.weight"] == ("matrix", "convolution")
    assert found["depthwise.weight"] == ("adamw", "grouped convolution")
    assert found["strided.weight"] == ("adamw", "convolution in channels_last memory")
    assert found["volume.weight"] == ("adamw", "no linear layer (Conv3d)")
    assert found["value.weight"] == ("adamw", "vector")
    assert found["norm.weight"] == ("adamw", "vector")
    matrices = [name for name, (role, _) in found.items() if role == "matrix"]
    assert matrices == ["gate_proj.weight", "convolution.weight", "pointwise.weight"]


def test_every_trainable_parameter_exactly_once():
    model = Mixture()
    assigned = [a.parameter for a in assign(model)]
    assert len(assigned) == len(set(assigned))
    assert set(assigned) == {p for p in model.parameters() if p.requires_grad}


def test_a_kernel_is_seen_with_one_row_per_output():
    module = nn.Conv2d(6, 4, (3, 2))
    (matrix,) = assign(nn.ModuleDict({"a": module}))[0].matrices()
    assert matrix.shape == (4, 36)
    matrix.view(module.weight.data)[1, :] = 0  # the view reaches the kernel itself
    assert module.weight[1].abs().sum() == 0
    assert module.weight[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "model.layers.3"),
        ("transformer.h.11.mlp.experts.4.w1.weight", "transformer.h.11"),
        ("encoder.proj.weight", "encoder.proj"),
    ],
)
def test_the_block_of_a_parameter_ends_with_its_first_number(name, block):
    assert block_of(name) == block


def test_first_matching_pattern_wins():
    patterns = [("lm_head.*", "matrix"), ("*", "adamw")]
    found = roles(Mixture(), patterns)
    assert [name for name, (role, _) in found.items() if role == "matrix"] == ["lm_head.weight"]
    head = next(a for a in assign(Mixture(), patterns) if a.name == "lm_head.weight")
    assert head.modules, "an overridden head keeps its module, so that contexts reach it"


def test_a_matrix_that_a_pattern_names_decays_as_matrices_do():
    class Free(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.free = nn.Linear(8, 6), nn.Parameter(torch.zeros(6, 10))
            self.marked = nn.Parameter(torch.zeros(6, 10))
            self.marked._no_weight_decay = True

    found = {a.name: a.decays for a in assign(Free(), [("free", "matrix"), ("marked", "matrix")])}
    assert (found["free"], found["marked"]) == (True, False)
    assert not {a.name: a.decays for a in assign(Free())}["free"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([("nothing.*", "adamw")], "matches no trainable parameter"),
        ([("lm_head.*", "muon")], "use one of matrix, adamw"),
        ([("norm.*", "matrix")], "norm.weight"),
    ],
)
def test_wrong_patterns_are_one_line_errors(patterns, message):
    with pytest.raises(ValueError, match=message) as error:
        assign(Mixture(), patterns)
    assert "\n" not in str(error.value)


def test_gpt2_is_transposed_and_its_attention_fused():
    config = transformers.GPT2Config(vocab_size=17, n_embd=12, n_layer=1, n_head=2, n_positions=8)
    model = transformers.GPT2LMHeadModel(config)
    attention = next(a for a in assign(model) if a.name.endswith("c_attn.weight"))
    assert attention.transposed
    assert attention.pieces == (12, 12, 12)
    views = [m.view(attention.parameter) for m in attention.matrices()]
    expected = attention.parameter.T.split(12)
    assert all(torch.equal(view, part) for view, part in zip(views, expected, strict=True))
    assert all(view.untyped_storage().data_ptr() == attention.parameter.untyped_storage().data_ptr() for view in views)
    assert roles(model)["transformer.wte.weight"] == ("adamw", "embedding")


def test_without_a_model_dimensions_decide():
    assert assign_without_model("a", torch.zeros(3, 4)).role == "matrix"
    assert assign_without_model("b", torch.zeros(4)).role == "adamw"
    assert assign_without_model("c", torch.zeros(1, 4)).role == "adamw"
    assert assign_without_model("d", torch.zeros(2, 3, 4)).role == "adamw"


def test_table_counts_every_weight():
    model = Mixture()
    text = table(assign(model))
    matrix = sum(m.weight.numel() for m in (model.gate_proj, model.convolution, model.pointwise))
    other = sum(p.numel() for p in model.parameters() if p.requires_grad) - matrix
    last = text.splitlines()[-1]
    assert last.startswith(f"total: {matrix:,} weights by Algorithm 1, {other:,} by AdamW, among them ")
    assert "cell.weight_ih_l0 (96, no hook sees it (LSTM))" in last  # large, and neither embedding nor head
    assert "embed.weight" not in last
    assert "router" in text
