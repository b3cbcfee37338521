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
from torch.overrides import _get_current_function_mode_stack

from cegm import CEGM
from cegm.context.taps import Place, is_plain, watch
from cegm.lab.baselines import build_optimizer
from witness import witnessed


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


CALLS = [
    (Tuple(6, 4), lambda m, x: m(x)[0]),
    (Renamed(6, 4), lambda m, x: m(hidden_states=x, scale=3.0)),
    (Scaled(6, 4), lambda m, x: sum(m(0.5, x).values())),
]


@pytest.mark.parametrize(("module", "call"), CALLS, ids=lambda each: type(each).__name__)
def test_products_inside_a_modules_own_forward_are_seen(module, call):
    module.zero_grad()
    witness = witnessed(module)
    call(module, torch.randn(5, 6)).square().sum().backward()
    assert witness.agrees()


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
    assert witness.agrees()


def test_a_layer_of_the_library_is_watched_by_itself_and_an_overridden_one_is_not():
    class Child(nn.Linear):
        pass

    replaced = nn.Linear(3, 3)
    replaced.forward = replaced.forward
    plain = [nn.Linear(3, 3), Child(3, 3), nn.Conv1d(3, 3, 1), nn.Conv2d(3, 3, 1)]
    assert all(is_plain(Place(module, "weight")) for module in plain)
    assert not any(is_plain(Place(module, "weight")) for module in (Tuple(3, 3), Same(3, 3, 1), replaced))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_error_inside_leaves_nothing_behind(error):
    class Fails(nn.Linear):
        def forward(self, x):
            F.linear(x, self.weight)
            raise error("inside")

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.gain = Fails(3, 3), nn.Parameter(torch.randn(3, 3))

        def forward(self, x):
            return self.inner(x @ self.gain)

    module = Around()
    witnesses = [witnessed(module, "gain", transposed=True), witnessed(module.inner)]
    for _ in range(2):
        with pytest.raises(error, match="inside") as caught:
            module(torch.randn(2, 3))
        assert caught.tb is not None  # its frames are alive
        assert not _get_current_function_mode_stack()
    seen = [len(witness.seen) for witness in witnesses]
    F.linear(torch.randn(2, 3), module.inner.weight)
    assert [len(witness.seen) for witness in witnesses] == seen == [2, 2]


class Twin(nn.Module):
    """Holds the weight of its own child, and uses it both ways."""

    def __init__(self):
        super().__init__()
        self.child = nn.Linear(4, 4)
        self.weight = self.child.weight

    def forward(self, x):
        return F.linear(self.child(x), self.weight)


def test_a_weight_with_two_places_one_inside_the_other_is_seen_once():
    module = Twin()
    witness = witnessed(module)
    watch(Place(module.child, "weight"), witness)
    module(torch.randn(3, 4)).square().sum().backward()
    assert witness.agrees()
    assert len(witness.seen) == 2


class Again(nn.Linear):
    def forward(self, x, depth=2):
        return self(torch.tanh(F.linear(x, self.weight)), depth - 1) if depth else x


def test_a_module_that_calls_itself_is_seen_once():
    module = Again(4, 4)
    witness = witnessed(module)
    module(torch.randn(3, 4)).square().sum().backward()
    assert len(witness.seen) == 2
    assert witness.agrees()


@pytest.mark.parametrize("kind", [nn.Linear, Renamed])
def test_shallow_copies_run_themselves_and_replicas_are_left_alone(kind):
    module = kind(4, 6)
    witness = witnessed(module)
    twin = copy.copy(module)
    twin.scale = 5
    assert twin(torch.randn(3, 4)).shape == (3, 6)
    assert len(witness.seen) == 1  # the weight is the same
    replica = module._replicate_for_data_parallel()
    replica.weight, replica.bias = torch.zeros(2, 4, requires_grad=True), torch.zeros(2)
    assert replica(torch.randn(3, 4)).shape == (3, 2)
    assert len(witness.seen) == 1


# ---------------------------------------------------------------------- other hooks


HOOKS = {
    "tuple": lambda m, x, y: (y * 2,),
    "wider": lambda m, x, y: torch.cat([y, y], -1),
    "scaled": lambda m, x, y: y * 2,
    "looks on": lambda m, x, y: None,
}


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("module", [nn.Linear(4, 6), nn.Conv1d(4, 6, 1), Renamed(4, 6)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("when", ["before", "after", "first", "everywhere"])
def test_the_product_is_seen_whatever_other_hooks_make_of_it(when, module, name):
    module = copy.deepcopy(module)
    if when == "before":
        module.register_forward_hook(HOOKS[name])
    witness = witnessed(module)
    handle = None
    if when in ("after", "first"):
        module.register_forward_hook(HOOKS[name], prepend=when == "first")
    if when == "everywhere":
        handle = torch.nn.modules.module.register_module_forward_hook(HOOKS[name])
    try:
        first(module(torch.randn(2, 4, 4))).square().sum().backward()
    finally:
        if handle is not None:
            handle.remove()
    comes_first = when in ("first", "everywhere") and name != "looks on" and not isinstance(module, Renamed)
    assert witness.lost if comes_first else witness.agrees()
    assert bool(witness.seen) != comes_first


@pytest.mark.parametrize("module", [nn.Linear(4, 6), Renamed(4, 6)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("prepend", [False, True])
def test_an_input_that_a_hook_changes_is_seen_changed(module, prepend):
    module = copy.deepcopy(module)
    witness = witnessed(module)
    module.register_forward_pre_hook(lambda m, x: (x[0] * 3,), prepend=prepend)
    module(torch.randn(5, 4)).square().sum().backward()
    assert witness.agrees()


def test_two_observers_of_one_layer_see_the_same():
    for module in (nn.Linear(4, 6), Renamed(4, 6)):
        witnesses = [witnessed(module), witnessed(module)]
        module(torch.randn(5, 4)).square().sum().backward()
        assert all(witness.agrees() for witness in witnesses)
        witnesses[0].unhook()
        module.zero_grad()
        witnesses[1].seen.clear()
        module(torch.randn(5, 4)).square().sum().backward()
        assert witnesses[1].agrees()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_watched_model_can_be_scripted():
    class Own(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight, self.bias), x

    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Conv1d(5, 5, 1), Own(6, 4))
    optimizers = CEGM(model), CEGM(model)
    scripted, x = torch.jit.script(model), torch.randn(5, 4)
    assert torch.equal(scripted(x)[0], model(x)[0])
    assert len(optimizers) == 2


# ---------------------------------------------------------------------- hooks and their optimizer


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + ("_call_impl" in vars(m)) for m in model.modules())


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
    assert hooks(model) == 2
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
