"""Weights whose module does not say which way round they are stored: the first product tells, and all goes on as if it had been known."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cegm import CEGM

OPTIONS = [{}, {"scores": "attention"}, {"scores": "alignment"}, {"recurrence": 0.5, "gradient_power": -1.0}]
SHAPES = [(8, 6), (8, 8)]


class InputsFirst(nn.Linear):
    """Stores (inputs, outputs), which nothing about it tells."""

    def forward(self, x):
        return x @ self.weight


def inputs_first(shape):
    return nn.Sequential(InputsFirst(shape[1], shape[0], bias=False))


def build(model, **options):
    return CEGM(model, lr=1e-2, refresh_every=2, power=-0.5, precision="float32", **options)


def step(model, optimizer, x):
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_matrix_moves_as_its_transpose_in_a_linear_layer_does(shape, options):
    turned, plain = inputs_first(shape), nn.Sequential(nn.Linear(*shape, bias=False))
    plain[0].weight.data.copy_(turned[0].weight.T)
    optimizers = build(turned, **options), build(plain, **options)
    for _ in range(5):
        x = torch.randn(9, shape[0])
        for model, optimizer in zip((turned, plain), optimizers, strict=True):
            step(model, optimizer, x)
    torch.testing.assert_close(turned[0].weight.T, plain[0].weight)
    for key in ("context_map", "demand_map"):
        found, expected = (o.state[m[0].weight][key] for o, m in zip(optimizers, (turned, plain), strict=True))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cut", [2, 3])
def test_what_was_learnt_is_resumed_to_the_bit(shape, options, cut):
    model, data = inputs_first(shape), [torch.randn(9, shape[0]) for _ in range(6)]
    optimizer = build(model, **options)
    for x in data[:cut]:
        step(model, optimizer, x)
    twin = copy.deepcopy(model)
    again = build(twin, **options)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for x in data[cut:]:
        step(model, optimizer, x)
        step(twin, again, x)
    assert torch.equal(model[0].weight, twin[0].weight)


class Square(nn.Module):
    """Experts whose matrices are as high as wide, used one way or the other."""

    def __init__(self, turned):
        super().__init__()
        self.turned, self.num_experts = turned, 3
        self.first, self.second = (nn.Parameter(torch.randn(3, 8, 8) / 3) for _ in range(2))

    def forward(self, x):
        for stack in (self.first, self.second):
            parts = [each @ w if self.turned else F.linear(each, w) for each, w in zip(x, stack, strict=True)]
            x = torch.tanh(torch.stack(parts))
        return x


def test_square_experts_move_the_same_whichever_way_they_are_stored():
    models = [nn.Sequential(Square(turned)) for turned in (False, True)]
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        q.data.copy_(p.mT)
    optimizers = [build(model) for model in models]
    for _ in range(4):
        x = torch.randn(3, 5, 8)
        for model, optimizer in zip(models, optimizers, strict=True):
            step(model, optimizer, x)
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(q.mT, p)
        assert "context_map" in optimizers[0].state[p]


def test_a_weight_used_both_ways_is_lost_and_said_so_once():
    class Both(nn.Linear):
        def forward(self, x):
            return F.linear(torch.tanh(x @ self.weight), self.weight)

    model = nn.Sequential(Both(8, 6, bias=False))
    optimizer = build(model)
    with pytest.warns(UserWarning, match="the other way round"):
        step(model, optimizer, torch.randn(9, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            step(model, optimizer, torch.randn(9, 6))
    assert "context_map" not in optimizer.state[model[0].weight]
