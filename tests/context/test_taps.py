"""Where a weight meets its contexts: what is seen equals what met the weight, whatever the module around it looks like."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from cegm import CEGM
from cegm.baselines import build_optimizer
from cegm.context.patches import context_rows, demand_rows
from cegm.context.taps import Observer, Place, is_plain, watch


class Witness(Observer):
    """Keeps what it sees: for every product its contexts (tokens, inputs), and after backward its demands (tokens, outputs)."""

    def __init__(self, parameter):
        super().__init__()
        self.parameter, self.seen = parameter, []

    def listens(self, module):
        return True

    def see(self, output, contexts, walk, part):
        entry = {"part": part, "contexts": context_rows(contexts, walk).detach()}
        self.seen.append(entry)
        tapped = output.clone()
        tapped.register_hook(
            lambda d: entry.update(demands=demand_rows(d, walk).reshape(-1, d.shape[1 if walk else -1]))
        )
        return tapped

    def gradient(self, part=0):
        """sum_i d_i c_i^T of one matrix: equal to its gradient if, and only if, everything was seen."""
        return sum(e["demands"].T @ e["contexts"] for e in self.seen if e["part"] == part)


def witnessed(module, path="weight", transposed=False):
    place = Place(module, path)
    witness = Witness(place.weight())
    watch(place, witness, transposed)
    return witness


class Tuple(nn.Linear):
    def forward(self, x):
        return super().forward(x), None


class Renamed(nn.Linear):
    def forward(self, hidden_states, *, scale=2.0):
        return scale * F.linear(hidden_states, self.weight) + self.bias


class Scaled(nn.Linear):
    """Gives its product back twice, and takes two arguments."""

    def forward(self, gain, x):
        return {"out": F.linear(x * gain, self.weight, self.bias), "again": F.linear(x, self.weight)}


class Product(nn.Module):
    """A weight of no layer, stored either way and used by a matrix product."""

    def __init__(self, transposed):
        super().__init__()
        self.weight = nn.Parameter(torch.randn((6, 4) if transposed else (4, 6)) / 3)
        self.transposed = transposed

    def forward(self, x):
        return x @ (self.weight if self.transposed else self.weight.T)


class Parts(nn.Module):
    """Keys and values from rows of one weight, as cross attention takes them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6) / 3)

    def forward(self, x):
        first, rest = self.weight.split([2, 4])
        return torch.cat([F.linear(x, first), F.linear(x.flip(0), rest)], dim=-1)


CALLS = [
    (Tuple(6, 4), lambda m, x: m(x)[0]),
    (Renamed(6, 4), lambda m, x: m(hidden_states=x, scale=3.0)),
    (Scaled(6, 4), lambda m, x: sum(m(0.5, x).values())),
    (Product(False), lambda m, x: m(x)),
    (Product(True), lambda m, x: m(x)),
    (Parts(), lambda m, x: m(x)),
]


@pytest.mark.parametrize(("module", "call"), CALLS, ids=lambda each: type(each).__name__)
def test_products_inside_a_modules_own_forward_are_seen(module, call):
    module.zero_grad()
    transposed = getattr(module, "transposed", False)
    witness = witnessed(module, transposed=transposed)
    call(module, torch.randn(5, 6)).square().sum().backward()
    expected = module.weight.grad.T if transposed else module.weight.grad
    torch.testing.assert_close(witness.gradient(), expected)


class Same(nn.Conv2d):
    """Pads inside, as timm's and TensorFlow's layers do."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, dilation=self.dilation)


class Signal(nn.Conv1d):
    def forward(self, x):
        return F.conv1d(F.pad(x, (4, 0)), self.weight, None, stride=1, padding="valid", dilation=2)[..., 1:]


@pytest.mark.parametrize(
    ("module", "x"),
    [(Same(3, 8, 3, stride=2), torch.randn(2, 3, 9, 9)), (Signal(3, 5, 3), torch.randn(2, 3, 11)),
     (Same(3, 8, (2, 3), dilation=(1, 2)), torch.randn(3, 9, 12)[None])],
)  # fmt: skip
def test_convolutions_that_pad_inside_are_seen_padded(module, x):
    witness = witnessed(module)
    module(x).square().sum().backward()
    torch.testing.assert_close(witness.gradient(), module.weight.grad.flatten(1))


class Experts(nn.Module):
    """A stack of matrices used in one of the ways that mixtures use theirs."""

    def __init__(self, way, transposed):
        super().__init__()
        self.way, self.transposed = way, transposed
        self.stack = nn.Parameter(torch.randn((3, 8, 4) if transposed else (3, 4, 8)) / 3)

    def right(self):
        return self.stack if self.transposed else self.stack.mT

    def forward(self, x, counts):
        if self.way == "grouped":
            ends = torch.tensor(counts).cumsum(0).to(torch.int32)
            return F.grouped_mm(x, self.right(), offs=ends)
        if self.way == "batched":
            return torch.bmm(x.unflatten(0, (3, -1)), self.right()).flatten(0, 1)
        if self.way == "linear":
            return torch.cat([F.linear(each, self.right()[e].T) for e, each in enumerate(x.split(counts))])
        return torch.cat([each @ self.right()[torch.tensor(e)] for e, each in enumerate(x.split(counts))])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("way", "counts"), [("linear", (5, 0, 2)), ("product", (1, 6, 0)), ("grouped", (0, 3, 5)), ("batched", (3, 3, 3))]
)
def test_each_matrix_of_a_stack_sees_its_own_tokens(way, counts, transposed):
    module = Experts(way, transposed)
    witness = witnessed(module, "stack", transposed)
    x = torch.randn(sum(counts), 8)
    (module(x, counts)[: sum(counts)] ** 2).sum().backward()
    for expert, count in enumerate(counts):
        if count:
            expected = module.stack.grad[expert]
            torch.testing.assert_close(witness.gradient(expert), expected.T if transposed else expected)
    assert {e["part"] for e in witness.seen if len(e["contexts"])} == {e for e, count in enumerate(counts) if count}


def test_a_weight_used_the_other_way_round_is_not_seen_at_all():
    """Contexts of the wrong side would be worse than none."""
    square = nn.Parameter(torch.randn(5, 5))
    module = nn.Module()
    module.weight = square
    module.forward = lambda x: x @ square  # (inputs, outputs), though it was not said so
    witness = witnessed(module)
    module(torch.randn(3, 5)).sum().backward()
    assert not witness.seen


def test_a_layer_of_the_library_is_watched_by_itself_and_an_overridden_one_is_not():
    class Child(nn.Linear):
        pass

    replaced = nn.Linear(3, 3)
    replaced.forward = replaced.forward
    plain = [nn.Linear(3, 3), Child(3, 3), nn.Conv1d(3, 3, 1), nn.Conv2d(3, 3, 1)]
    assert all(is_plain(Place(module, "weight")) for module in plain)
    assert not any(is_plain(Place(module, "weight")) for module in (Tuple(3, 3), Same(3, 3, 1), replaced))


def test_an_error_inside_leaves_no_mode_behind():
    class Fails(nn.Linear):
        def forward(self, x):
            F.linear(x, self.weight)
            raise RuntimeError("inside")

    module = Fails(3, 3)
    witness = witnessed(module)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="inside"):
            module(torch.randn(2, 3))
    seen = len(witness.seen)
    F.linear(torch.randn(2, 3), module.weight)
    assert len(witness.seen) == seen


# ---------------------------------------------------------------------- hooks and their optimizer


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def network():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), Tuple(6, 4))


def loss(model):
    return model(torch.ones(3, 4))[0].square().sum()


@pytest.mark.parametrize("method", ["cegm", "newton_muon", "mac"])
def test_hooks_go_with_their_optimizer(method):
    model = network()
    for _ in range(5):
        optimizer = build_optimizer(method, model)
        loss(model).backward()
        optimizer.step()
    gc.collect()
    one = hooks(model)
    del optimizer
    gc.collect()
    assert one > 0
    assert hooks(model) == 0


def test_an_optimizer_that_is_dropped_without_a_step_is_gone():
    model = network()
    reference = weakref.ref(CEGM(model, hierarchy="model"))
    gc.collect()
    assert reference() is None
    assert hooks(model) == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_model_is_copied_without_the_hooks_of_an_optimizer_that_stays(copied):
    model = network()
    optimizer = CEGM(model, refresh_every=1)
    loss(model).backward()
    twin = copied(model)
    gc.collect()
    assert hooks(twin) == 0
    assert hooks(model) == 3
    optimizer.step()
    again = CEGM(twin, refresh_every=1)
    loss(twin).backward()
    again.step()
    assert all("demand_map" in again.state[m.weight] for m in (twin[0], twin[2]))


def test_a_copy_of_both_records_in_the_copy():
    model = network()
    optimizer = CEGM(model, lr=1e-2, refresh_every=1)
    twin, copied = copy.deepcopy((model, optimizer))
    loss(twin).backward()
    copied.step()
    assert all("demand_map" in copied.state[m.weight] for m in (twin[0], twin[2]))
    assert not optimizer.state


# ---------------------------------------------------------------------- function transforms


def batched(model, x):
    torch.autograd.grad(model(x).flatten()[:3], x, torch.eye(3), is_grads_batched=True)


TRANSFORMS = {
    "grad": lambda m, x, p: grad(lambda p: functional_call(m, p, (x,)).sum())(p),
    "vmap of grad": lambda m, x, p: vmap(grad(lambda p, x: functional_call(m, p, (x,)).sum()), (None, 0))(p, x),
    "jvp": lambda m, x, p: jvp(lambda x: m(x), (x,), (x,)),
    "vmap over rows": lambda m, x, p: vmap(m)(x),
    "trace": lambda m, x, p: torch.jit.trace(m, x, check_trace=False),
    "batched gradients": lambda m, x, p: batched(m, x.clone().requires_grad_()),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("scores", ["uniform", "gradient"])
@pytest.mark.parametrize("hierarchy", ["layer", "model"])
@pytest.mark.parametrize("transform", list(TRANSFORMS))
def test_transforms_work_on_steps_that_record_and_add_nothing_to_them(transform, hierarchy, scores):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), Renamed(6, 4))
    twin, x = copy.deepcopy(model), torch.randn(5, 3, 4)
    options = {"lr": 1e-2, "refresh_every": 1, "power": -0.5, "hierarchy": hierarchy, "scores": scores}
    optimizers = [CEGM(each, **options) for each in (model, twin)]
    TRANSFORMS[transform](model, x, dict(model.named_parameters()))
    for each, optimizer in zip((model, twin), optimizers, strict=True):
        each.zero_grad()
        each(x).square().sum().backward()
        optimizer.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_compiled_forward_of_its_own_says_that_it_shows_nothing():
    model = nn.Sequential(nn.Linear(4, 6), Renamed(6, 4))
    optimizer = CEGM(model, refresh_every=1)
    torch.compile(model, backend="aot_eager")(torch.ones(3, 4)).square().sum().backward()
    with pytest.warns(UserWarning, match=r"1\.weight .* compiled"):
        optimizer.step()
    assert "demand_map" in optimizer.state[model[0].weight]
    assert "demand_map" not in optimizer.state[model[1].weight]


def test_gradients_made_by_a_transform_say_once_why_there_are_no_contexts():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4))
    optimizer, x = CEGM(model), torch.randn(5, 4)
    gradients = grad(lambda p: functional_call(model, p, (x,)).square().sum())(dict(model.named_parameters()))
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name]
    with pytest.warns(UserWarning, match=r"torch\.func") as told:
        optimizer.step()
    assert len(told) == 1


# ---------------------------------------------------------------------- passes that give no gradient


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))


def frozen(model, x):
    model.requires_grad_(False)
    model(x.clone().requires_grad_()).sum().mul(3.0).backward()
    model.requires_grad_(True)


def penalty(model, x):
    x = x.clone().requires_grad_()
    torch.autograd.grad(model(x).sum(), x)


def other_weights(model, x):
    functional_call(
        model, {n: p.detach() * 2 for n, p in model.named_parameters()}, (x.clone().requires_grad_(),)
    ).sum().backward()


@pytest.mark.parametrize("hierarchy", ["layer", "model"])
@pytest.mark.parametrize(
    "other", [frozen, penalty, other_weights, lambda m, x: m(x), lambda m, x: m.eval()(x) and m.train()]
)
def test_a_pass_that_gives_a_weight_no_gradient_gives_it_no_context(other, hierarchy):
    x, z = torch.randn(20, 6), torch.randn(20, 6) * 5
    results = []
    for disturbed in (False, True):
        model = net()
        optimizer = CEGM(model, lr=1e-2, refresh_every=1, power=-0.5, hierarchy=hierarchy)
        model(x).pow(2).mean().backward()
        if disturbed and other.__name__ != "<lambda>":
            other(model, z)
        optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
