"""Capture: what a layer records must equal sums over tokens, however the batch reaches it."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cegm.context.layers import EntanglementLayer


def watched(module, heads=1, scores="uniform", demands=True):
    outputs, inputs = module.weight.shape
    shapes = [(heads, width // heads, width // heads) for width in (inputs, outputs)]
    layer = EntanglementLayer("w", [module], module.weight.device, shapes[0], shapes[1] if demands else None, scores)
    layer.recording = True
    return layer


def expected_means(contexts, demands):
    contexts, demands = contexts.flatten(0, -2).double(), demands.flatten(0, -2).double()
    used = demands.abs().sum(-1) > 0
    count = int(used.sum())
    means = [sum(torch.outer(x, x) for x in vectors[used]) / count for vectors in (contexts, demands)]
    return [m.float()[None] for m in means]


def assert_recorded(layer, contexts, demands):
    for recorded, expected in zip(layer.collect(), expected_means(contexts, demands), strict=True):
        assert torch.allclose(recorded, expected, rtol=1e-4, atol=1e-6)


def test_statistics_are_sums_over_tokens():
    linear, x, d = nn.Linear(4, 6), torch.randn(3, 5, 4), torch.randn(3, 5, 6)
    layer = watched(linear)
    linear(x).backward(d)
    assert_recorded(layer, x, d)


def test_the_layers_output_and_gradients_are_untouched():
    linear, x = nn.Linear(4, 6), torch.randn(3, 4, requires_grad=True)
    bare = copy.deepcopy(linear)
    y = x.detach().clone().requires_grad_()
    watched(linear)
    linear(x).square().sum().backward()
    bare(y).square().sum().backward()
    assert torch.equal(linear.weight.grad, bare.weight.grad)
    assert torch.equal(linear.bias.grad, bare.bias.grad)
    assert torch.equal(x.grad, y.grad)


def test_micro_batches_sum_to_the_whole_batch():
    linear, x, d = nn.Linear(4, 6), torch.randn(8, 4), torch.randn(8, 6)
    layer = watched(linear)
    for row in range(8):
        linear(x[row : row + 1]).backward(d[row : row + 1])
    assert_recorded(layer, x, d)


def test_a_layer_called_twice_sums():
    linear, x, d = nn.Linear(4, 4), torch.randn(3, 4), torch.randn(3, 4)
    layer = watched(linear)
    hidden = linear(x)
    hidden.retain_grad()
    linear(hidden).backward(d)
    assert_recorded(layer, torch.cat([x, hidden.detach()]), torch.cat([hidden.grad, d]))


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_counts_a_token_once(reentrant):
    linear, x, d = nn.Linear(4, 6), torch.randn(5, 4, requires_grad=True), torch.randn(5, 6)
    layer = watched(linear)
    checkpoint(lambda z: linear(z), x, use_reentrant=reentrant).backward(d)
    assert_recorded(layer, x.detach(), d)


def test_padding_without_demand_is_left_out():
    linear, x, d = nn.Linear(4, 6), torch.randn(6, 4), torch.randn(6, 6)
    d[[1, 5]] = 0
    layer = watched(linear)
    linear(x).backward(d)
    assert_recorded(layer, x, d)


def test_nothing_is_recorded_in_evaluation_without_gradients_or_unasked():
    linear, x = nn.Linear(4, 6), torch.randn(2, 4)
    layer = watched(linear)
    with torch.no_grad():
        linear(x)
    linear.eval()
    linear(x).sum().backward()
    linear.train()
    layer.recording = False
    linear(x).sum().backward()
    assert layer.collect() is None


def test_a_frozen_layer_before_trainable_ones_is_not_recorded_without_gradient():
    linear = nn.Linear(4, 6).requires_grad_(False)
    layer = watched(linear)
    assert not linear(torch.randn(2, 4)).requires_grad
    assert layer.collect() is None


def test_in_place_operations_on_the_output_still_work():
    linear, x = nn.Linear(4, 6), torch.randn(5, 4)
    layer = watched(linear)
    nn.functional.relu(linear(x), inplace=True).sum().backward()
    d = (x @ linear.weight.T + linear.bias > 0).float()
    assert_recorded(layer, x, d.detach())


def test_autocast_statistics_are_float32():
    linear, x = nn.Linear(4, 6), torch.randn(5, 4)
    layer = watched(linear)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        linear(x).float().square().sum().backward()
    assert all(mean.dtype == torch.float32 for mean in layer.collect())


def test_compiled_model_records_the_same():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    layers = [watched(model[0]), watched(model[2])]
    x = torch.randn(7, 4)
    model(x).square().sum().backward()
    eager = [layer.collect() for layer in layers]
    for layer in layers:
        layer.clear()
    torch.compile(model, backend="aot_eager")(x).square().sum().backward()
    for layer, means in zip(layers, eager, strict=True):
        for recorded, expected in zip(layer.collect(), means, strict=True):
            assert torch.allclose(recorded, expected, rtol=1e-5, atol=1e-7)


def test_carriers_hold_no_memory():
    layer = watched(nn.Linear(64, 64))
    assert all(carrier.untyped_storage().nbytes() == 4 for carrier in layer.carriers())
