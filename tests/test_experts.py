"""Mixtures of experts: every expert is a matrix with contexts of its own, equal to what a slow loop over tokens says."""

import copy

import pytest
import torch
from torch import nn

import oracle
from cegm import CEGM
from cegm.assignment import Assignment, Matrix
from cegm.options import RECOMMENDED

transformers = pytest.importorskip("transformers")


def mixtral(implementation="eager", experts=4, **changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": experts}
    config = transformers.MixtralConfig(**{**sizes, **heads, **changes})
    model = transformers.MixtralForCausalLM(config)
    model.config._experts_implementation = implementation
    return model.train()


def gpt_oss():
    torch.manual_seed(0)
    sizes = {"vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2}
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(**sizes, **heads)).train()


def ids(rows=2, tokens=9):
    return torch.randint(0, 48, (rows, tokens), generator=torch.Generator().manual_seed(1))


def train(model, optimizer, count=1, data=None):
    losses = []
    for _ in range(count):
        batch = ids() if data is None else data
        losses.append(model(input_ids=batch, labels=batch).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    return [float(each.detach()) for each in losses]


class Unstacked(nn.Module):
    """The experts of transformers' Mixtral as plain layers, which hooks of the library see one by one."""

    def __init__(self, experts):
        super().__init__()
        stacks = experts.gate_up_proj.detach(), experts.down_proj.detach()
        self.gates, self.ups, self.downs = (nn.ModuleList() for _ in range(3))
        for gate_up, down in zip(*stacks, strict=True):
            for layers, weight in zip((self.gates, self.ups, self.downs), (*gate_up.chunk(2), down), strict=True):
                layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                layer.weight.data.copy_(weight)
                layers.append(layer)
        self.act_fn = experts.act_fn

    def forward(self, hidden, chosen, weights):
        total = torch.zeros_like(hidden)
        for expert in range(len(self.gates)):
            place, token = torch.where((chosen == expert).T)
            if len(token):
                own = hidden[token]
                own = self.downs[expert](self.act_fn(self.gates[expert](own)) * self.ups[expert](own))
                total.index_add_(0, token, own * weights[token, place, None])
        return total


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
@pytest.mark.parametrize("options", [{}, {"recurrence": 0.5}, {"scores": "attention", "heads": 1}])
def test_stacked_experts_move_as_a_list_of_layers_would(implementation, options):
    given = {"lr": 1e-2, "refresh_every": 1, "power": -0.5, "precision": "float32", "heads": 2, **options}
    model = mixtral(implementation)
    apart = copy.deepcopy(model)
    block = apart.model.layers[0].mlp
    block.experts = Unstacked(block.experts)
    train(model, CEGM(model, **given), 3)
    train(apart, CEGM(apart, **given), 3)
    stacked, layers = model.model.layers[0].mlp.experts, block.experts
    for expert in range(4):
        gate, up = stacked.gate_up_proj[expert].chunk(2)
        for weight, layer in ((gate, layers.gates), (up, layers.ups), (stacked.down_proj[expert], layers.downs)):
            torch.testing.assert_close(weight, layer[expert].weight, rtol=1e-3, atol=2e-5)


def test_contexts_of_each_expert_are_sums_over_its_tokens():
    """By the oracle: contexts are what the router sent, demands what came back, both gathered without the optimizer."""
    model = mixtral()
    experts = model.model.layers[0].mlp.experts
    optimizer = CEGM(model, lr=0.0, refresh_every=1, power=-0.5, gradient_power=-1.0, heads=1)
    seen = {}

    def remember(module, inputs):
        seen["hidden"], seen["chosen"] = inputs[0].detach(), inputs[1]

    handle = experts.register_forward_pre_hook(remember)
    train(model, optimizer)
    handle.remove()
    state = optimizer.state[experts.gate_up_proj]
    for expert in range(4):
        predicts = torch.arange(9).expand(2, 9).flatten() < 8  # what the last token of a row predicts is in no loss
        tokens = seen["hidden"][(seen["chosen"] == expert).any(dim=-1) & predicts]
        assert len(tokens), "every expert has tokens"
        mean = oracle.context_matrix(tokens, torch.full((len(tokens),), 1 / len(tokens), dtype=torch.float64), 1)
        expected = oracle.phi(mean, -0.5, RECOMMENDED["damping"])
        torch.testing.assert_close(state["context_map"][expert].double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_an_expert_that_no_token_reached_keeps_its_map_and_its_weights(implementation):
    model = mixtral(implementation, experts=6, num_experts_per_tok=1)
    optimizer = CEGM(model, lr=1e-2, refresh_every=1, power=-0.5, weight_decay=0.1)
    train(model, optimizer, 4, ids(4, 16))
    experts, lone = model.model.layers[0].mlp.experts, torch.full((1, 2), 7)
    maps = {k: v.clone() for k, v in optimizer.state[experts.down_proj].items()}
    before = experts.down_proj.detach().clone()
    model(input_ids=lone, labels=lone).loss.backward()
    unreached = [e for e in range(6) if not experts.down_proj.grad[e].any()]
    assert 0 < len(unreached) < 6
    optimizer.step()
    heads = len(maps["context_map"]) // 6
    for expert in unreached:
        rows = slice(expert * heads, (expert + 1) * heads)
        assert torch.equal(experts.down_proj[expert], before[expert])
        assert torch.equal(optimizer.state[experts.down_proj]["context_map"][rows], maps["context_map"][rows])
        assert torch.equal(optimizer.state[experts.down_proj]["momentum"][expert], maps["momentum"][expert])
    reached = next(e for e in range(6) if e not in unreached)
    assert not torch.equal(experts.down_proj[reached], before[reached])


def test_experts_without_a_gradient_stay_and_stop_nothing():
    model = mixtral(num_hidden_layers=2)
    optimizer = CEGM(model, lr=1e-2)
    optimizer.step()  # before any gradient
    model.model.layers[0].requires_grad_(False)
    before = model.model.layers[0].mlp.experts.down_proj.detach().clone()
    train(model, optimizer)
    assert torch.equal(model.model.layers[0].mlp.experts.down_proj, before)


def test_a_mixture_learns():
    for model in (mixtral(), mixtral("grouped_mm"), gpt_oss()):
        losses = train(model, CEGM(model, lr=2e-2, refresh_every=5), 25)
        assert losses[-1] < 0.6 * losses[0]


def test_interleaved_gates_stay_whole_and_inputs_first_is_seen():
    model = gpt_oss()
    found = {a.name.rpartition(".")[2]: a for a in CEGM(model).matrices() if "experts" in a.name}
    assert found["gate_up_proj"].transposed
    assert found["gate_up_proj"].pieces == (48,)
    optimizer = CEGM(model, lr=1e-2, refresh_every=1, power=-0.5, heads=1)
    train(model, optimizer)
    assert optimizer.state[found["gate_up_proj"].parameter]["context_map"].shape == (4, 16, 16)


def test_accumulation_sums_over_experts():
    options = {"lr": 1e-2, "refresh_every": 1, "power": -0.5, "precision": "float32"}
    model, data = mixtral(), ids(4, 8)
    twin = copy.deepcopy(model)
    for each, parts in ((model, [data]), (twin, data.split(2))):
        optimizer = CEGM(each, **options)
        for part in parts:
            (each(input_ids=part, labels=part).loss / len(parts)).backward()
        optimizer.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)


def test_state_of_experts_resumes_to_the_bit(tmp_path):
    options = {"lr": 1e-2, "refresh_every": 2, "power": -0.5, "recurrence": 0.5, "scores": "attention"}
    model = mixtral()
    optimizer = CEGM(model, **options)
    train(model, optimizer, 3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    twin = copy.deepcopy(model)
    again = CEGM(twin, **options)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert train(model, optimizer, 3) == train(twin, again, 3)


def test_diagnostics_name_the_expert():
    model = mixtral()
    optimizer = CEGM(model, lr=1e-2, refresh_every=1)
    model(input_ids=ids(), labels=ids()).loss.backward()
    assert optimizer.diagnostics() == {}  # nothing has moved, and nothing is made by asking
    assert not optimizer.state
    optimizer.step()
    found = optimizer.diagnostics()
    assert "model.layers.0.mlp.experts.gate_up_proj[3, 24:48]" in found
    assert found["model.layers.0.mlp.experts.down_proj[2]"]["gradient_context_rank"] > 1


@pytest.mark.parametrize("transposed", [False, True])
def test_shards_of_a_stack_have_whole_experts(transposed):
    stack = nn.Parameter(torch.randn(5, 3, 4))
    assignment = Assignment("w", stack, "matrix", "experts", transposed, ((4 if transposed else 3),), experts=5)
    shards = {first: stack.detach()[first : first + 2] for first in (0, 2, 4)}
    for matrix in assignment.matrices():
        parts = [matrix.view(shard, first) for first, shard in shards.items()]
        assert isinstance(matrix, Matrix)
        assert torch.equal(torch.cat(parts), matrix.view(stack.detach()))
