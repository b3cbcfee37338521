"""A convolution is a linear layer over patches: rows must say so for every way of walking."""

import pytest
import torch
from torch import nn

import rounding
from cegm.context.patches import context_rows, demand_rows, geometry

CONVOLUTIONS = [
    (nn.Conv1d(3, 4, 3), (2, 3, 11)),
    (nn.Conv1d(3, 4, 5, stride=2, padding=2, dilation=2), (2, 3, 17)),
    (nn.Conv1d(3, 4, 4, padding="same"), (2, 3, 9)),
    (nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular"), (2, 2, 9)),
    (nn.Conv1d(3, 4, 3), (3, 11)),
    (nn.Conv2d(3, 4, (3, 2)), (2, 3, 7, 8)),
    (nn.Conv2d(3, 4, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (2, 3, 9, 9)),
    (nn.Conv2d(3, 4, (3, 4), padding="same", padding_mode="reflect"), (2, 3, 7, 8)),
    (nn.Conv2d(3, 4, 1), (3, 7, 8)),
]

GROUPED = [
    (nn.Conv1d(6, 4, 3, groups=2), (2, 6, 9)),
    (nn.Conv2d(4, 8, (2, 3), stride=2, padding=1, groups=4), (4, 7, 8)),
]


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS, ids=lambda value: str(value).replace(" ", ""))
def test_rows_reproduce_output_and_gradient(module, shape):
    x = torch.randn(shape)
    output = module(x)
    gradient = torch.randn_like(output)
    output.backward(gradient)
    walk = geometry(module)
    contexts, demands = context_rows(x, walk), demand_rows(gradient, walk)
    weight = module.weight.flatten(1)
    size = contexts.abs() @ weight.abs().T + module.bias.abs()
    bound = rounding.of_sum(weight.shape[1] + 1, size)
    rounding.agree(contexts @ weight.T + module.bias, demand_rows(output, walk), bound)
    bound = rounding.of_sum(len(demands), demands.abs().T @ contexts.abs())
    rounding.agree(demands.T @ contexts, module.weight.grad.flatten(1), bound)
    module.zero_grad()


@pytest.mark.parametrize(("module", "shape"), GROUPED, ids=lambda value: str(value).replace(" ", ""))
def test_a_grouped_convolution_has_rows_for_every_group(module, shape):
    x = torch.randn(shape)
    output = module(x)
    gradient = torch.randn_like(output)
    output.backward(gradient)
    walk = geometry(module)
    contexts, demands = context_rows(x, walk), demand_rows(gradient, walk)
    assert len(contexts) == len(demands) == module.groups * gradient.numel() // len(module.weight)
    bound = rounding.of_sum(len(demands), demands.abs().T @ contexts.abs())
    rounding.agree(demands.T @ contexts, module.weight.grad.flatten(1), bound)
    module.zero_grad()


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_rows_are_those_of_the_dense_tensor(layout):
    x = torch.randn(5, 4).relu()
    assert torch.equal(context_rows(x.to_sparse(layout=layout), None), x)


def test_texts_of_several_lengths_are_rows_one_behind_the_other():
    texts = [torch.randn(3, 4), torch.randn(5, 4)]
    jagged = torch.nested.nested_tensor(texts, layout=torch.jagged)
    assert torch.equal(context_rows(jagged, None), torch.cat(texts))
    assert torch.equal(demand_rows(jagged, None), torch.cat(texts))


def test_a_linear_layer_keeps_its_rows():
    x = torch.randn(2, 5, 4)
    assert geometry(nn.Linear(4, 3)) is None
    assert torch.equal(context_rows(x, None), x.reshape(10, 4))
    assert demand_rows(x, None) is x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rows_keep_their_precision(dtype):
    assert context_rows(torch.randn(3, 4, dtype=dtype), None).dtype == dtype
    assert context_rows(torch.randn(1, 3, 9, dtype=dtype), geometry(nn.Conv1d(3, 4, 3))).dtype == dtype
