"""Each peer against the slow form of its paper, or against another implementation."""

import copy
import math

import pytest
import torch
from torch import nn

import models
from cegm.lab.baselines import build_optimizer

pytest.importorskip("transformers")
pytorch_optimizer = pytest.importorskip("pytorch_optimizer")


def layer(outputs=6, inputs=10, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False))


def gradients(shape, steps=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(steps)]


def follow(method, model, grads, **options):
    """Weights after each step on given gradients, (steps, outputs, inputs)."""
    optimizer = build_optimizer(method, model, lr=0.1, weight_decay=0.3, **options)
    path = []
    for grad in grads:
        model[0].weight.grad = grad.clone()
        optimizer.step()
        path.append(model[0].weight.detach().clone())
    return torch.stack(path)


def test_normuon_is_the_librarys():
    """Algorithm 1 of the paper has steps of .2 root mean square per entry; ours scale by the larger side as Muon's do."""
    model = layer()
    twin = copy.deepcopy(model)
    grads = gradients((6, 10))
    ours = follow("normuon", model, grads, precision="bfloat16", entanglement=0.05)
    group = {"params": [twin[0].weight], "use_muon": True, "lr": 0.1, "weight_decay": 0.3, "momentum": 0.95}
    theirs = pytorch_optimizer.NorMuon([group], update_scale="match_rms")
    path = []
    for grad in grads:
        twin[0].weight.grad = grad.clone()
        theirs.step()
        path.append(twin[0].weight.detach().clone())
    steps, other = torch.stack(path).diff(dim=0), ours.diff(dim=0)
    cosine = nn.functional.cosine_similarity(steps.flatten(1), other.flatten(1))
    assert cosine.min() > 0.998  # both round to bfloat16 in five iterations
    assert 0.85 < (other.norm() / steps.norm()).item() < 1.15  # the quintic iteration leaves norms a little off


@pytest.mark.parametrize("frequency", [1, 3])
def test_soap_is_the_papers_loop(frequency):
    """Adam in the eigenbasis of both factors; a power iteration and QR refresh the basis. Square: no null space to differ in."""
    model = layer(6, 6)
    weight = model[0].weight.detach().double().clone()
    grads = gradients((6, 6), steps=8)
    path = follow("soap", model, grads, precondition_frequency=frequency)
    left, right = 0.05 * grads[0].double() @ grads[0].double().T, 0.05 * grads[0].double().T @ grads[0].double()
    bases = [torch.linalg.eigh(f).eigenvectors.flip(1) for f in (left, right)]
    first = second = torch.zeros(6, 6, dtype=torch.float64)
    for step, grad in enumerate((g.double() for g in grads[1:]), start=1):
        first = 0.95 * first + 0.05 * grad
        turned = bases[0].T @ grad @ bases[1]
        second = 0.95 * second + 0.05 * turned**2
        inner = (bases[0].T @ first @ bases[1]) / (1 - 0.95**step) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
        weight = (weight - 0.1 * bases[0] @ inner @ bases[1].T) * (1 - 0.1 * 0.3)
        left, right = 0.95 * left + 0.05 * grad @ grad.T, 0.95 * right + 0.05 * grad.T @ grad
        if step % frequency == 0:
            for side, factor in enumerate((left, right)):
                turned_factor = factor @ bases[side]
                order = (bases[side] * turned_factor).sum(dim=0).argsort(descending=True)
                bases[side] = torch.linalg.qr(turned_factor[:, order]).Q
                second = second.index_select(side, order)
        torch.testing.assert_close(path[step].double(), weight, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(("outputs", "inputs"), [(6, 10), (10, 6), (5, 5), (1, 7)])
def test_one_sided_shampoo_is_the_loop(outputs, inputs):
    grads = gradients((outputs, inputs))
    if outputs == 1:  # a single row is no matrix
        with pytest.raises(ValueError, match="no matrix for OneSidedShampoo"):
            follow("shampoo", layer(outputs, inputs), grads)
        return
    model = layer(outputs, inputs)
    weight = model[0].weight.detach().double().clone()
    path = follow("shampoo", model, grads, precondition_frequency=3)
    mean = factor = 0.0
    for step, grad in enumerate(g.double() for g in grads):
        mean = 0.95 * mean + 0.05 * grad
        square = grad @ grad.T if outputs <= inputs else grad.T @ grad
        factor = 0.95 * factor + 0.05 * square
        if step < 3 or (step + 1) % 3 == 1:
            corrected = factor / (1 - 0.95 ** (step + 1))
            values, vectors = torch.linalg.eigh(
                corrected + 1e-6 * corrected.trace() / len(corrected) * torch.eye(len(corrected))
            )
            root = vectors @ torch.diag(values**-0.5) @ vectors.T
        short = mean / (1 - 0.95 ** (step + 1))
        direction = root @ short if outputs <= inputs else short @ root
        weight = weight * (1 - 0.1 * 0.3) - 0.1 * 0.2 * math.sqrt(max(outputs, inputs)) * direction
        torch.testing.assert_close(path[step].double(), weight, rtol=1e-4, atol=1e-4)


def test_newton_muon_is_the_papers_loop():
    """`polar(momentum(G (K + .2 tr(K)/n I)^-1))`, K refreshed every 16 steps; the polar factor by singular values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 6, bias=False), nn.Tanh(), nn.Linear(6, 4, bias=False))
    optimizer = build_optimizer("newton_muon", model, lr=0.05, weight_decay=0.0, nesterov=False, precision="float32")
    data = [torch.randn(32, 10, generator=torch.Generator().manual_seed(s)) * torch.arange(1, 11) for s in range(20)]
    moment = inverse = momentum = None
    for step, x in enumerate(data):
        before = model[0].weight.detach().clone()
        model(x).square().mean().backward()
        grad = model[0].weight.grad.double().clone()
        optimizer.step()
        optimizer.zero_grad()
        if step % 16 == 0:
            now = x.double().T @ x.double() / len(x)
            moment = now if moment is None else 0.8 * moment + 0.2 * now
            inverse = torch.linalg.inv(moment + 0.2 * moment.trace() / 10 * torch.eye(10))
        mapped = grad @ inverse
        momentum = 0.05 * mapped if momentum is None else 0.95 * momentum + 0.05 * mapped
        u, _, v = torch.linalg.svd(momentum, full_matrices=False)
        moved = (before - model[0].weight.detach()).double()
        cosine = nn.functional.cosine_similarity(moved.flatten(), (u @ v).flatten(), dim=0)
        assert cosine > 0.97  # the quintic iteration leaves singular values between .7 and 1.2


def test_mac_maps_by_the_mean_activation():
    """After the first step's map, AdamW: sign descent on `G (I - m m^T / (rho + |m|^2))`, rho .5 of the mean square."""
    model = layer()
    x = torch.randn(32, 10) + 2.0
    before = model[0].weight.detach().double().clone()
    optimizer = build_optimizer("mac", model, lr=0.1, weight_decay=0.0, damping=0.5)
    loss = model(x[:16]).square().sum() + model(x[16:]).square().sum()
    loss.backward()
    grad = model[0].weight.grad.double().clone()
    optimizer.step()
    m = x.double().mean(dim=0)
    square = float(m @ m)
    rho = 0.5 * float(x.double().square().mean())
    expected = grad @ (torch.eye(10) - torch.outer(m, m) / (rho + square))
    torch.testing.assert_close(model[0].weight.grad.double(), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(model[0].weight.detach().double(), before - 0.1 * expected.sign(), rtol=1e-4, atol=1e-4)


def test_mac_weighs_values_by_causal_attention():
    model, (ids,) = models.llama(layers=1), models.batches(1)
    optimizer = build_optimizer("mac", model, lr=1e-2)
    seen = {}
    value = model.model.layers[0].self_attn.v_proj
    value.register_forward_hook(lambda module, inputs, output: seen.update(x=inputs[0].detach()))
    model.train()
    output = model(input_ids=ids, labels=ids, output_attentions=True)
    output.loss.backward()
    attention = output.attentions[0].detach().double()  # (rows, heads, queries, keys)
    total, count = torch.zeros(32, dtype=torch.float64), 0
    for row in range(attention.shape[0]):
        for head in range(attention.shape[1]):
            for query in range(attention.shape[2]):
                assert attention[row, head, query, query + 1 :].sum() == 0  # causal
                for key in range(query + 1):
                    total += attention[row, head, query, key] * seen["x"][row, key]
                count += 1
    optimizer.step()
    state = optimizer.state[value.weight]
    torch.testing.assert_close(state["moments"][:-1].double() / 0.05, total / count, rtol=1e-4, atol=1e-6)


def test_mac_leaves_gradients_alone_where_activations_have_no_mean():
    model = layer()
    x = torch.randn(32, 10)
    x = torch.cat([x, -x])
    optimizer = build_optimizer("mac", model, lr=0.1)
    (model(x) * torch.randn(64, 6)).sum().backward()
    before = model[0].weight.grad.clone()
    optimizer.step()
    torch.testing.assert_close(model[0].weight.grad, before)


def test_mac_maps_weights_that_are_stored_transposed():
    from transformers.pytorch_utils import Conv1D

    plain, turned = layer(), nn.Sequential(Conv1D(6, 10))
    turned[0].weight.data.copy_(plain[0].weight.data.T)
    x, d = torch.randn(32, 10) + 1, torch.randn(32, 6)
    for model in (plain, turned):
        optimizer = build_optimizer("mac", model, lr=0.1)
        model(x).backward(d)
        optimizer.step()
    torch.testing.assert_close(turned[0].weight, plain[0].weight.T)


def test_mac_forgets_a_step_that_was_given_up():
    one, two = layer(), layer()
    x, d = torch.randn(8, 10) + 1, torch.randn(8, 6)
    optimizers = [build_optimizer("mac", model, lr=0.1) for model in (one, two)]
    one(3 * x).backward(d)
    optimizers[0].zero_grad()
    for model, optimizer in zip((one, two), optimizers, strict=True):
        model(x).backward(d)
        optimizer.step()
    assert models.weights_equal(one, two)


def test_shampoo_starts_a_late_weight_as_it_would_have_started_it():
    """A weight whose first gradient comes after many steps of the others, an expert that was never routed to."""
    grads = gradients((6, 10), steps=5)
    alone = follow("shampoo", layer(), grads, precondition_frequency=3)
    pair = nn.ModuleList([nn.Linear(10, 6, bias=False), layer()[0]])
    optimizer = build_optimizer("shampoo", pair, lr=0.1, weight_decay=0.3, precondition_frequency=3)
    for grad in [None] * 4 + grads:
        pair[0].weight.grad = torch.randn(6, 10)
        pair[1].weight.grad = None if grad is None else grad.clone()
        optimizer.step()
    torch.testing.assert_close(pair[1].weight.detach(), alone[-1])


@pytest.mark.parametrize("method", ["muon", "soap", "shampoo", "mac"])
def test_a_deep_copy_steps_and_bfloat16_weights_resume(method):
    model = layer(6, 6).bfloat16()
    optimizer = build_optimizer(method, model, lr=0.1)

    def step(one, stepper):
        one[0].weight.grad = torch.ones(6, 6, dtype=torch.bfloat16)
        stepper.step()

    step(model, optimizer)
    step(model, optimizer)
    twin = copy.deepcopy(model)
    resumed = build_optimizer(method, twin, lr=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steppers = [(model, optimizer), (twin, resumed)]
    if method in ("shampoo", "mac"):  # torch leaves most of an optimizer out of a copy
        steppers.append(copy.deepcopy((model, optimizer)))
    for one, stepper in steppers:
        step(one, stepper)
    assert all(models.weights_equal(model, one) for one, _ in steppers)


def test_mac_refuses_attention_that_hides_its_weights():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.v_proj = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            return self.v_proj(x)

    model = nn.Sequential(Attention())
    optimizer = build_optimizer("mac", model)  # its hooks live as long as it does
    with pytest.raises(ValueError, match="no attention weights"):
        model(torch.ones(2, 3, 4))
    assert optimizer.param_groups


def test_schedule_free_evaluates_the_average():
    """Evaluation sees the mean of the iterates `z`, all of equal weight at a constant rate."""
    model = layer()
    optimizer = build_optimizer("schedule_free", model, lr=0.1, weight_decay=0.0, betas=(0.9, 0.999))
    iterates = []
    for grad in gradients((6, 10), steps=5):
        model[0].weight.grad = grad.clone()
        optimizer.step()
        iterates.append(optimizer.state[model[0].weight]["z"].clone())
    optimizer.eval()
    torch.testing.assert_close(model[0].weight.detach(), torch.stack(iterates).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_a_wrong_option_says_so():
    with pytest.raises(ValueError, match="mean_beta=1"):
        build_optimizer("mac", layer(), mean_beta=1.0)
    with pytest.raises(ValueError, match="precondition_frequency=0"):
        build_optimizer("shampoo", layer(), precondition_frequency=0)


def adamw_loop(weight, grads, hold, penalty=lambda weight: 0.0):
    """AdamW in float64 as `follow` runs it; `hold` moves the weight before a step, `penalty` adds to its gradient."""
    first = second = torch.zeros_like(weight)
    path = []
    for step, grad in enumerate((g.double() for g in grads), start=1):
        grad = grad + penalty(weight)
        first, second = 0.9 * first + 0.1 * grad, 0.95 * second + 0.05 * grad**2
        weight = hold(weight) * (1 - 0.1 * 0.3)
        weight = weight - 0.1 * (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
        path.append(weight)
    return torch.stack(path)


@pytest.mark.parametrize("pull", [0.0, 3.0, 1e9])
def test_l2_sp_is_adamw_whose_weights_are_drawn_to_their_beginning(pull):
    model = layer()
    beginning = model[0].weight.detach().double().clone()
    grads = gradients((6, 10))
    path = follow("l2_sp", model, grads, pull=pull)
    expected = adamw_loop(beginning, grads, lambda w: beginning + (w - beginning) / (1 + 0.1 * pull))
    torch.testing.assert_close(path.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 2.0])
@pytest.mark.parametrize("known", [True, False])
def test_ewc_is_adamw_on_the_loss_and_a_weighed_distance_from_the_beginning(penalty, known):
    model = layer()
    beginning = model[0].weight.detach().double().clone()
    fisher = torch.rand(6, 10, generator=torch.Generator().manual_seed(5)) if known else torch.ones(6, 10)
    grads = gradients((6, 10))
    path = follow("ewc", model, grads, penalty=penalty, retain={"0.weight": fisher} if known else None)
    expected = adamw_loop(beginning, grads, lambda w: w, lambda w: penalty * fisher.double() * (w - beginning))
    torch.testing.assert_close(path.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["l2_sp", "ewc"])
def test_without_strength_what_is_anchored_is_adamw_to_the_bit(method):
    twins = [layer(), layer()]
    grads = gradients((6, 10))
    strength = {"l2_sp": "pull", "ewc": "penalty"}[method]
    assert torch.equal(follow(method, twins[0], grads, **{strength: 0.0}), follow("adamw", twins[1], grads))
    with pytest.raises(ValueError, match=f"{strength}=-1 is below 0"):
        build_optimizer(method, layer(), **{strength: -1.0})
