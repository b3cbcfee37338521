"""Capture: what a layer records must equal sums over tokens, however the batch reaches it."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import oracle
import rounding
from cegm.context.hierarchy import Sharers
from cegm.context.layers import EntanglementLayer
from cegm.context.recorder import Recorder
from cegm.context.taps import Place, watch


def watched(module, heads=1, scores="uniform", demands=True, **options):
    outputs, inputs = module.weight.flatten(1).shape
    shapes = [(heads, width // heads, width // heads) for width in (inputs, outputs)]
    layer = EntanglementLayer(
        "w", module.weight.device, inputs, shapes[0], shapes[1] if demands else None, scores, **options
    )
    layer.recorder = Recorder("w", module.weight, [layer])  # which nobody else holds
    layer.recorder.recording = True
    watch(Place(module, "weight"), layer.recorder)
    return layer


def expected_means(contexts, demands):
    contexts, demands = contexts.flatten(0, -2).double(), demands.flatten(0, -2).double()
    used = demands.abs().sum(-1) > 0
    count = int(used.sum())
    means = [sum(torch.outer(x, x) for x in vectors[used]) / count for vectors in (contexts, demands)]
    return [m.float()[None] for m in means]


def assert_recorded(layer, contexts, demands):
    sizes = expected_means(contexts.abs(), demands.abs())
    for recorded, expected, size in zip(
        layer.collect().values(), expected_means(contexts, demands), sizes, strict=True
    ):
        rounding.agree(recorded, expected, rounding.of_sum(contexts.flatten(0, -2).shape[0] + 1, size))


SCORED = 64
"""Roundings of a score of up to a dozen products: their sum, twice over, a logarithm or a root, and an exponential."""


def assert_weighed(recorded, vectors, weights):
    size = oracle.context_matrix(vectors.abs(), weights, 1)
    bound = rounding.of_sum(SCORED + len(vectors), size)
    rounding.agree(recorded[0], oracle.context_matrix(vectors, weights, 1), bound)


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
    layer.recorder.recording = False
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
    assert all(mean.dtype == torch.float32 for mean in layer.collect().values())


def test_compiled_model_records_the_same():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    layers = [watched(model[0]), watched(model[2])]
    x = torch.randn(7, 4)
    model(x).square().sum().backward()
    eager = [layer.collect() for layer in layers]
    for layer in layers:
        layer.clear()
    torch.compile(model, backend="aot_eager", fullgraph=True)(x).square().sum().backward()
    for layer, means in zip(layers, eager, strict=True):
        for recorded, expected in zip(layer.collect().values(), means.values(), strict=True):
            assert torch.allclose(recorded, expected, rtol=1e-5, atol=1e-7)


def test_carriers_hold_no_memory():
    layer = watched(nn.Linear(64, 64))
    assert all(carrier.untyped_storage().nbytes() == 4 for carrier in layer.carriers())


# ---------------------------------------------------------------------- scores that look at contexts


@pytest.mark.parametrize("scores", ["attention", "alignment"])
def test_scores_with_a_guide_weigh_what_is_recorded(scores):
    linear, x, d = nn.Linear(8, 6), torch.randn(3, 5, 8), torch.randn(3, 5, 6)
    layer = watched(linear, scores=scores)
    layer.guide = torch.randn(8) if scores == "attention" else torch.randn(6, 8)
    for row in range(3):  # micro-batches
        linear(x[row]).backward(d[row])
    rows, demands = x.flatten(0, 1), d.flatten(0, 1)
    weights = oracle.weights_of_tokens(scores, demands, rows, layer.guide)
    found = layer.collect()
    assert_weighed(found["context"], rows, weights)
    assert_weighed(found["demand"], demands, weights)
    if scores == "attention":
        bound = rounding.of_sum(SCORED + len(rows), (weights[:, None] * rows.abs()).sum(0))
        rounding.agree(found["summary"], (weights[:, None] * rows).sum(0), bound)


def test_the_sink_is_left_out_on_request():
    linear, x, d = nn.Linear(4, 6), torch.randn(3, 5, 4), torch.randn(3, 5, 6)
    layer = watched(linear, exclude_sink=True)
    linear(x).backward(d)
    assert_recorded(layer, x[:, 1:], d[:, 1:])


def test_bfloat16_contexts_are_summed_in_float32():
    linear, x, d = nn.Linear(8, 6).bfloat16(), torch.randn(300, 8).bfloat16(), torch.randn(300, 6).bfloat16()
    layer = watched(linear, scores="attention")
    layer.guide = torch.randn(8)
    linear(x).backward(d)
    weights = oracle.weights_of_tokens("attention", d, x, layer.guide)
    assert_weighed(layer.collect()["context"], x, weights)


def test_a_backward_pass_under_autocast_sums_in_float32():
    linear, x, d = nn.Linear(8, 6), torch.randn(300, 8), torch.randn(300, 6)
    layer = watched(linear)
    output = linear(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output.backward(d)
    assert_recorded(layer, x, d)


def test_a_single_vector_and_a_named_input_are_tokens_too():
    linear, x, d = nn.Linear(4, 6), torch.randn(4), torch.randn(6)
    layer = watched(linear)
    linear(input=x).backward(d)
    assert_recorded(layer, x[None], d[None])


@pytest.mark.parametrize("sharers", [None, Sharers])
def test_texts_of_several_lengths_are_recorded_as_loose_tokens(sharers):
    linear, texts, d = nn.Linear(4, 6), [torch.randn(3, 4), torch.randn(5, 4)], torch.randn(8, 6)
    layer = watched(linear, sharers=sharers and sharers())
    linear(torch.nested.nested_tensor(texts, layout=torch.jagged)).values().backward(d)
    assert_recorded(layer, torch.cat(texts), d)


def test_sparse_inputs_are_recorded_as_dense_ones():
    linear, x, d = nn.Linear(4, 6), torch.randn(5, 4).relu(), torch.randn(5, 6)
    layer = watched(linear)
    linear(x.to_sparse()).backward(d)
    assert_recorded(layer, x, d)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4)])
def test_no_tokens_add_nothing(shape):
    linear, x, d = nn.Linear(4, 6), torch.randn(5, 4), torch.randn(5, 6)
    layer = watched(linear)
    linear(x).backward(d)
    linear(torch.randn(shape)).sum().backward()
    assert_recorded(layer, x, d)


def test_strided_nested_tensors_are_left_out_with_a_word():
    linear = nn.Linear(4, 6)
    layer = watched(linear)
    nested = linear(torch.nested.nested_tensor([torch.randn(3, 4), torch.randn(5, 4)]))
    nested.to_padded_tensor(0.0).sum().backward()
    assert layer.collect() is None
    assert "no rows" in layer.recorder.trouble


@pytest.mark.parametrize("scores", ["random", "shuffled"])
def test_micro_batches_draw_anew_and_again_the_same_from_the_same_seed(scores):
    linear, x, d = nn.Linear(4, 6), torch.randn(1, 4), torch.ones(1, 6)
    layer = watched(linear, scores=scores)

    def masses():
        layer.seed.fill_(5)
        found = []
        for _ in range(4):
            layer.clear()
            linear(x).backward(d)
            found.append(float(layer.mass_carrier.grad))
        return found

    first = masses()
    assert first == masses()
    assert len(set(first)) == (4 if scores == "random" else 1)  # one token can only be dealt its own weight


# ---------------------------------------------------------------------- layers that share scores


def shared_means(parts):
    """Means of each (contexts, demands) under the mean of the layers' gradient log-scores, with loops."""
    logits = torch.stack([oracle.logits_of_tokens("gradient", d.flatten(0, -2)) for _, d in parts])  # (layers, tokens)
    means = []
    for (x, d), own in zip(parts, logits, strict=True):
        shared = []
        for token in range(logits.shape[1]):
            reaching = [float(f) for f in logits[:, token] if f > -float("inf")]
            shared.append(sum(reaching) / len(reaching) if own[token] > -float("inf") else -float("inf"))
        weights = torch.softmax(torch.tensor(shared, dtype=torch.float64), dim=0)
        means.append([oracle.context_matrix(v.flatten(0, -2), weights, 1) for v in (x, d)])
    return means


def assert_shared(layers, parts):
    sizes = shared_means([(x.abs(), d.abs()) for x, d in parts])
    for layer, expected, each in zip(layers, shared_means(parts), sizes, strict=True):
        for recorded, mean, size in zip(layer.collect().values(), expected, each, strict=True):
            rounding.agree(recorded[0], mean, rounding.of_sum(SCORED + parts[0][0].flatten(0, -2).shape[0], size))


def two_layers(**options):
    sharers = Sharers()
    linears = [nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)]
    return linears, [watched(linear, scores="gradient", sharers=sharers, **options) for linear in linears]


def forward(linears, x):
    hidden = torch.tanh(linears[0](x))
    return hidden, linears[1](hidden)


def demands_of(linears, x, d):
    """Contexts and demands of both layers, from a pass of their own over bare copies."""
    bare = [copy.deepcopy(linear) for linear in linears]
    for linear in bare:
        linear._forward_hooks.clear()
    first = bare[0](x)
    first.retain_grad()
    hidden = torch.tanh(first)
    bare[1](hidden).backward(d)
    return [(x, first.grad), (hidden.detach(), d)]


def test_sharers_weigh_tokens_by_the_mean_of_their_log_scores():
    linears, layers = two_layers()
    x, d = torch.randn(3, 5, 4), torch.randn(3, 5, 3)
    d[1, 2] = 0
    forward(linears, x)[1].backward(d)
    assert_shared(layers, demands_of(linears, x, d))


def test_sharers_over_micro_batches_after_a_forward_pass_that_was_given_up():
    linears, layers = two_layers()
    x, d = torch.randn(4, 5, 4), torch.randn(4, 5, 3)
    forward(linears, torch.randn(1, 2, 4))  # never run backward
    for row in range(4):
        forward(linears, x[row : row + 1])[1].backward(d[row : row + 1])
    assert_shared(layers, demands_of(linears, x, d))


def test_two_forward_passes_before_their_backward_passes_do_not_mix():
    linears, layers = two_layers()
    x, d = torch.randn(2, 5, 4), torch.randn(2, 5, 3)
    outputs = [forward(linears, x[row : row + 1])[1] for row in range(2)]
    for row in range(2):
        outputs[row].backward(d[row : row + 1])
    assert_shared(layers, demands_of(linears, x, d))


def test_two_forward_passes_with_one_backward_pass_do_not_mix():
    linears, layers = two_layers()
    x, d = torch.randn(2, 5, 4), torch.randn(2, 5, 3)
    outputs = torch.cat([forward(linears, x[row : row + 1])[1] for row in range(2)])
    outputs.backward(d)
    assert_shared(layers, demands_of(linears, x, d))


def test_a_layer_called_more_often_than_the_others_keeps_its_own_scores():
    linears, layers = two_layers()
    cell, sharers = nn.Linear(4, 4, bias=False), layers[0].sharers
    repeated = watched(cell, scores="gradient", sharers=sharers)
    x, d = torch.randn(3, 5, 4), torch.randn(3, 5, 3)
    inputs, hidden = [], x
    for _ in range(2):
        inputs.append(hidden.detach())
        hidden = cell(hidden)
        hidden.retain_grad()
        inputs.append(hidden)
    forward(linears, hidden)[1].backward(d)
    contexts, demands = torch.cat(inputs[::2]), torch.cat([y.grad for y in inputs[1::2]])
    weights = oracle.weights_of_tokens("gradient", demands.flatten(0, 1))
    assert_weighed(repeated.collect()["context"], contexts.flatten(0, 1), weights)
    assert_shared(layers, demands_of(linears, inputs[-1].detach(), d))


def test_what_a_broken_backward_pass_left_is_forgotten():
    linears, layers = two_layers()
    x, d = torch.randn(3, 5, 4), torch.randn(3, 5, 3)
    z = torch.randn(3, 5, 4, requires_grad=True)
    torch.autograd.grad(forward(linears, z)[1].sum(), z)  # never reaches the carriers
    layers[0].sharers.clear()
    for layer in layers:
        layer.clear()
    forward(linears, x)[1].backward(d)
    assert_shared(layers, demands_of(linears, x, d))


def test_a_model_can_be_copied_between_forward_and_backward_pass():
    linears, _ = two_layers()
    forward(linears, torch.randn(3, 5, 4))
    assert copy.deepcopy(nn.ModuleList(linears))[0].weight.shape == (6, 4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_block_of_sharers(reentrant):
    linears, layers = two_layers()
    x, d = torch.randn(1, 5, 4, requires_grad=True), torch.randn(1, 5, 3)
    checkpoint(lambda z: forward(linears, z)[1], x, use_reentrant=reentrant).backward(d)
    assert_shared(layers, demands_of(linears, x.detach(), d))


@pytest.mark.parametrize("tokens", [4, 6])
def test_loose_tokens_keep_their_own_scores(tokens):
    """As a mixture's experts see them: equally many tokens need not be the same ones."""
    linears, layers = two_layers()
    x, d = torch.randn(6, 4), torch.randn(6, 6)
    y, e = torch.randn(tokens, 6), torch.randn(tokens, 3)
    (linears[0](x) * d).sum().add((linears[1](y) * e).sum()).backward()
    for layer, part in zip(layers, [(x, d), (y, e)], strict=True):
        assert_shared([layer], [part])


def test_a_compiled_model_shares_the_same():
    linears, layers = two_layers()
    x = torch.randn(2, 7, 4)
    model = nn.Sequential(linears[0], nn.Tanh(), linears[1])
    torch.compile(model, backend="aot_eager")(x).square().sum().backward()
    compiled = [layer.collect() for layer in layers]
    for layer in layers:
        layer.clear()
    model(x).square().sum().backward()
    for layer, means in zip(layers, compiled, strict=True):
        for recorded, expected in zip(layer.collect().values(), means.values(), strict=True):
            assert torch.allclose(recorded, expected, rtol=1e-5, atol=1e-7)
