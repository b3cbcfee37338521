"""What PyTorch asks of every optimizer, asked of CEGM and Muon as entries of its own optimizer database.

`OptimizerInfo` says with which arguments and schedulers an optimizer is to be tried, what came later than its first
release, and what it has to refuse. Not applicable, and refused: complex and sparse gradients, and the flags `foreach`,
`fused`, `capturable`, `differentiable` and `maximize`, which neither optimizer has.
"""

import contextlib
import copy
import io
import pickle
import warnings
from itertools import chain

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.optim import swa_utils
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerErrorEnum,
    OptimizerInfo,
    OptimizerInput,
    get_error_inputs_for_all_optims,
)

import rounding
from cegm import CEGM
from cegm.context.layers import EntanglementLayer
from cegm.lab.baselines.muon import Muon
from cegm.options import OPTIONS

TOKENS, CLASSES = 11, 4


def inputs_of_both(device, dtype=None):
    return [
        OptimizerInput(None, {}, "default"),
        OptimizerInput(None, {"lr": 0.02}, "other lr"),
        OptimizerInput(None, {"lr": torch.tensor(0.01)}, "Tensor lr"),
        OptimizerInput(None, {"lr": 0.01, "weight_decay": 0.3}, "weight decay"),
        OptimizerInput(None, {"lr": 0.01, "aux_lr": 0.002, "aux_betas": (0.8, 0.9)}, "AdamW of its own"),
    ]


def inputs_of_cegm(device, dtype=None):
    found = [
        OptimizerInput(None, {"lr": 0.01, "preset": "paper"}, "paper"),
        OptimizerInput(None, {"lr": 0.01, "preset": "lite", "heads": 2}, "lite"),
        OptimizerInput(None, {"lr": 0.01, "power": -0.5, "recurrence": 0.9, "refresh_every": 2}, "recurrence"),
        OptimizerInput(None, {"lr": 0.01, "scores": "attention", "refresh_every": 1}, "attention"),
        OptimizerInput(None, {"lr": 0.01, "scores": "alignment", "hierarchy": "model", "refresh_every": 2}, "shared"),
        OptimizerInput(None, {"lr": 0.01, "scores": "random", "refresh_every": 1}, "random"),
        OptimizerInput(None, {"lr": 0.01, "coefficient": "hypergradient", "map_first": True}, "hypergradient"),
    ]
    return inputs_of_both(device, dtype) + found


def inputs_of_muon(device, dtype=None):
    found = [
        OptimizerInput(None, {"lr": 0.01, "momentum": 0.8}, "momentum"),
        OptimizerInput(None, {"lr": 0.01, "nesterov": False}, "no look-ahead"),
    ]
    return inputs_of_both(device, dtype) + found


def errors_of_cegm(device, dtype):
    """Torch's own, which hand over parameters, and ours."""
    ours = [
        ([torch.ones(2, 3, dtype=torch.complex64)], {}, ValueError, "is complex"),
        ([{"params": {torch.ones(2, 2)}}], {}, TypeError, "in an order"),
        (["weight"], {}, TypeError, "only optimize Tensors"),
        (None, {"lr": -1.0}, ValueError, "lr=-1.0 must be at least 0"),
        (None, {"aux_lr": torch.tensor([0.1, 0.1])}, ValueError, "aux_lr has 2"),
        (None, {"foreach": True}, TypeError, "foreach"),
        (None, {"maximize": True}, TypeError, "maximize"),
    ]
    return get_error_inputs_for_all_optims(device, dtype) + [
        ErrorOptimizerInput(OptimizerInput(params, kwargs, message), error_type=kind, error_regex=message)
        for params, kwargs, kind, message in ours
    ]


def errors_of_muon(device, dtype):
    """Muon takes a model and nothing else, so of torch's those about parameters do not apply."""
    return [e for e in errors_of_cegm(device, dtype) if e.optimizer_error_input.params is None]


SCHEDULERS = (
    lambda o: schedulers.StepLR(o, gamma=0.9, step_size=3),
    lambda o: schedulers.MultiStepLR(o, [4, 8], gamma=0.5),
    lambda o: schedulers.ConstantLR(o, 0.5, total_iters=4),
    lambda o: schedulers.LinearLR(o, 0.4, total_iters=4),
    lambda o: schedulers.ExponentialLR(o, 0.95),
    lambda o: schedulers.PolynomialLR(o, total_iters=30),
    lambda o: schedulers.CosineAnnealingLR(o, T_max=20),
    lambda o: schedulers.CosineAnnealingWarmRestarts(o, T_0=5),
    lambda o: schedulers.LambdaLR(o, lambda step: 0.97**step),
    lambda o: schedulers.MultiplicativeLR(o, lambda step: 0.98),
    lambda o: schedulers.CyclicLR(o, [0.5 * float(g["lr"]) for g in o.param_groups], 0.02, cycle_momentum=False),
    lambda o: schedulers.OneCycleLR(o, [float(g["lr"]) for g in o.param_groups], 40, cycle_momentum=False),
    lambda o: schedulers.ReduceLROnPlateau(o, patience=2),
    lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, total_iters=3), schedulers.ExponentialLR(o, 0.95)], [3]
    ),
    lambda o: schedulers.ChainedScheduler([schedulers.ConstantLR(o, 0.5), schedulers.ExponentialLR(o, 0.95)]),
    lambda o: swa_utils.SWALR(o, swa_lr=0.005, anneal_epochs=5),
)

FIRST = {
    "weight_decay", "cautious", "entanglement", "nesterov", "scores", "heads", "recurrence", "refresh_every", "power",
    "gradient_power", "damping", "normalize", "row_moment", "layer_scale", "coefficient", "coefficient_step",
    "coefficient_range", "precision", "aux_lr", "aux_betas", "aux_weight_decay", "eps",
}  # fmt: skip
"""Options of version 0.1.0."""

LATER = tuple(name for name in OPTIONS if name not in FIRST)

COMMON = {
    "scheduler_inputs": tuple([each] for each in SCHEDULERS),
    "supported_impls": (),
    "not_og_supported_flags": LATER,
    "supports_complex": False,
}
DATABASE = [
    OptimizerInfo(CEGM, optim_inputs_func=inputs_of_cegm, optim_error_inputs_func=errors_of_cegm, **COMMON),
    OptimizerInfo(Muon, optim_inputs_func=inputs_of_muon, optim_error_inputs_func=errors_of_muon, **COMMON),
]

every_optimizer = pytest.mark.parametrize("info", DATABASE, ids=lambda info: info.name)
every_input = pytest.mark.parametrize(
    ("info", "given"),
    [(info, given) for info in DATABASE for given in info.optim_inputs_func("cpu")],
    ids=lambda value: value.name if isinstance(value, OptimizerInfo) else value.desc.replace(" ", "-"),
)


def network():
    """An embedding and vectors for AdamW, two matrices for Algorithm 1."""
    return nn.Sequential(nn.Embedding(TOKENS, 6), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, TOKENS, (3, 7), generator=generator), torch.randint(0, CLASSES, (21,), generator=generator)


def loss_of(model, seed=0):
    tokens, classes = batch(seed)
    return nn.functional.cross_entropy(model(tokens).flatten(0, 1).float(), classes)


def train(model, optimizer, steps, start=0, scheduler=None):
    """Losses over steps on changing batches."""
    losses = []
    for seed in range(start, start + steps):
        loss = loss_of(model, seed)
        loss.backward()
        optimizer.observe_loss(loss)
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step(*([loss.item()] if isinstance(scheduler, schedulers.ReduceLROnPlateau) else []))
        losses.append(loss.item())
    return losses


def pair(info, given):
    """The same model twice, each with an optimizer of its own."""
    first = network()
    second = copy.deepcopy(first)
    return [(model, info.optim_cls(model, **given.kwargs)) for model in (first, second)]


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model, expected):
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)


class TestUpdates:
    @every_input
    def test_the_loss_falls(self, info, given):
        model = network()
        optimizer = info.optim_cls(model, **given.kwargs)
        before = loss_of(model).item()
        for _ in range(25):
            train(model, optimizer, 1)
        assert loss_of(model).item() < before

    @every_input
    def test_without_gradients_nothing_moves(self, info, given):
        model = network()
        optimizer = info.optim_cls(model, **given.kwargs)
        before = weights(model)
        optimizer.observe_loss(1.0)
        optimizer.step()
        assert_same(model, before)
        assert not any(optimizer.state.values())

    @every_input
    def test_zero_gradients_move_nothing_without_decay(self, info, given):
        model = network()
        optimizer = info.optim_cls(model, **{**given.kwargs, "weight_decay": 0.0})
        before = weights(model)
        for _ in range(2):
            (loss_of(model) * 0).backward()
            optimizer.observe_loss(0.0)
            optimizer.step()
        assert_same(model, before)

    @every_optimizer
    def test_a_closure_is_called_once_and_its_loss_comes_back(self, info):
        (model, optimizer), (twin, plain) = pair(info, OptimizerInput(None, {"lr": 0.01}))
        calls = []

        def closure():
            optimizer.zero_grad()
            calls.append(loss_of(model))
            calls[-1].backward()
            return calls[-1]

        assert optimizer.step(closure) is calls[0]
        train(twin, plain, 1)
        assert len(calls) == 1
        assert_same(model, weights(twin))

    @every_optimizer
    def test_dtypes_may_be_mixed(self, info):
        model = network()
        model[3].to(torch.bfloat16)
        optimizer = info.optim_cls(model, lr=0.01)
        for seed in range(3):
            tokens, classes = batch(seed)
            hidden = model[2](model[1](model[0](tokens)))
            nn.functional.cross_entropy(model[3](hidden.bfloat16()).flatten(0, 1).float(), classes).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert {p.dtype for p in model.parameters()} == {torch.float32, torch.bfloat16}
        assert all(p.isfinite().all() for p in model.parameters())

    @every_optimizer
    def test_what_it_must_refuse(self, info):
        for error in info.optim_error_inputs_func("cpu", torch.float32):
            case = error.optimizer_error_input
            assert error.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR
            params = network() if case.params is None else case.params
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="CEGM was given no model")
                if issubclass(error.error_type, Warning):
                    # torch's sample weight is 1 x 1, which is no matrix and refused after the warning
                    with pytest.warns(error.error_type, match=error.error_regex), contextlib.suppress(ValueError):
                        info.optim_cls(params, **case.kwargs)
                else:
                    with pytest.raises(error.error_type, match=error.error_regex):
                        info.optim_cls(params, **case.kwargs)

    @every_input
    def test_it_can_be_printed(self, info, given):
        text = repr(info.optim_cls(network(), **given.kwargs))
        assert text.startswith(f"{info.name} (")
        assert all(f"{name}: {value}" in text for name, value in given.kwargs.items() if name != "momentum")


class TestGroups:
    @every_optimizer
    def test_a_group_whose_rate_is_zero_stays(self, info):
        model = network()
        optimizer = info.optim_cls(model, lr=0.01)
        for group in optimizer.param_groups:
            group["lr"] = 0.0 if group["role"] == "matrix" else group["lr"]
        before = weights(model)
        train(model, optimizer, 2)
        still = [name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])]
        assert still == ["1.weight", "3.weight"]

    @every_optimizer
    def test_a_layer_that_thaws_is_added(self, info):
        """Adding a group while training, as torch's own document has it for layers that thaw."""
        model = network()
        model[3].requires_grad_(False)
        optimizer = info.optim_cls(model, lr=0.01)
        train(model, optimizer, 2)
        model[3].requires_grad_(True)
        before = weights(model)
        optimizer.add_param_group({"params": list(model[3].parameters()), "lr": 0.05})
        assert [g["lr"] for g in optimizer.param_groups if model[3].weight in set(g["params"])] == [0.05]
        train(model, optimizer, 2)
        assert not torch.equal(model[3].weight, before["3.weight"])
        assert "momentum" in optimizer.state[model[3].weight]
        with pytest.raises(ValueError, match="more than one parameter group"):
            optimizer.add_param_group({"params": [model[3].weight]})

    def test_named_parameters_keep_their_names_through_a_checkpoint(self):
        model = network()
        optimizer = CEGM(model.named_parameters(), lr=0.01, model=model)
        train(model, optimizer, 2)
        saved = optimizer.state_dict()
        names = [group["param_names"] for group in saved["param_groups"]]
        assert names == [["1.weight", "3.weight"], ["0.weight"], ["1.bias", "3.bias"]]
        for group in optimizer.param_groups:
            named = dict(model.named_parameters())
            assert all(named[name] is p for name, p in zip(group["param_names"], group["params"], strict=True))
        for fresh in (CEGM(model, lr=0.01), CEGM(model.named_parameters(), lr=0.01, model=model)):
            fresh.load_state_dict(saved)
            assert fresh.state_dict()["state"].keys() == saved["state"].keys()
        with pytest.raises(ValueError, match="without names"):
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})


class TestRates:
    @every_optimizer
    @pytest.mark.parametrize("index", range(len(SCHEDULERS)))
    def test_a_scheduler_goes_the_right_way_and_moves_every_group_alike(self, info, index):
        model = network()
        optimizer = info.optim_cls(model, lr=0.01)
        (build,) = info.scheduler_inputs[index]
        scheduler = build(optimizer)
        before = loss_of(model).item()
        seen = set()
        for _ in range(15):
            train(model, optimizer, 1, scheduler=scheduler)
            rates = {float(group["lr"]) for group in optimizer.param_groups}
            assert len(rates) == 1
            seen |= rates
        assert loss_of(model).item() < before
        if not isinstance(scheduler, schedulers.ReduceLROnPlateau):
            assert len(seen) > 1

    @every_optimizer
    def test_a_tensor_rate_is_the_number_it_holds(self, info):
        given = torch.tensor(0.01, dtype=torch.float64)
        model = network()
        twin = copy.deepcopy(model)
        plain, tensor = info.optim_cls(model, lr=0.01), info.optim_cls(twin, lr=given)
        steps = [schedulers.ExponentialLR(optimizer, 0.5) for optimizer in (plain, tensor)]
        for _ in range(3):
            train(model, plain, 1, scheduler=steps[0])
            train(twin, tensor, 1, scheduler=steps[1])
        assert_same(model, weights(twin))
        assert given == 0.01  # the scheduler wrote into the groups' own
        assert len({group["lr"].data_ptr() for group in tensor.param_groups}) == len(tensor.param_groups)
        assert all(float(group["lr"]) == 0.00125 for group in tensor.param_groups)


class TestCheckpoints:
    @every_input
    def test_a_checkpoint_goes_on_to_the_bit_through_weights_only(self, info, given):
        (model, optimizer), (twin, fresh) = pair(info, given)
        train(model, optimizer, 5)
        file = io.BytesIO()
        torch.save((model.state_dict(), optimizer.state_dict()), file)
        file.seek(0)
        saved_weights, saved_state = torch.load(file, weights_only=True)
        twin.load_state_dict(saved_weights)
        fresh.load_state_dict(saved_state)
        assert train(model, optimizer, 5, start=5) == train(twin, fresh, 5, start=5)
        assert_same(model, weights(twin))

    @every_input
    def test_two_runs_have_the_same_state(self, info, given):
        (model, optimizer), (twin, other) = pair(info, given)
        assert train(model, optimizer, 4) == train(twin, other, 4)
        first, second = (each.state_dict() for each in (optimizer, other))
        assert str(first["param_groups"]) == str(second["param_groups"])
        torch.testing.assert_close(first["state"], second["state"], rtol=0, atol=0)

    @every_input
    def test_every_weight_has_state_and_all_of_it_is_plain(self, info, given):
        model = network()
        optimizer = info.optim_cls(model, **given.kwargs)
        train(model, optimizer, 2)
        assert all(optimizer.state[p] for p in model.parameters())
        values = chain.from_iterable(state.values() for state in optimizer.state.values())
        assert {type(value) for value in values} <= {torch.Tensor, float, int}

    @every_optimizer
    def test_a_state_from_before_some_options_loads(self, info):
        (model, optimizer), (twin, fresh) = pair(info, OptimizerInput(None, {"lr": 0.01}))
        train(model, optimizer, 3)
        older = copy.deepcopy(optimizer.state_dict())
        for group in older["param_groups"]:
            for flag in info.not_og_supported_flags:
                del group[flag]
        twin.load_state_dict(model.state_dict())
        fresh.load_state_dict(older)
        assert train(model, optimizer, 3, start=3) == train(twin, fresh, 3, start=3)

    @every_optimizer
    def test_named_and_nameless_states_load_into_each_other(self, info):
        (model, optimizer), (_, fresh) = pair(info, OptimizerInput(None, {"lr": 0.01}))
        train(model, optimizer, 2)
        saved = optimizer.state_dict()
        for group in saved["param_groups"]:
            group["param_names"] = [f"layer {index}" for index in group["params"]]
        fresh.load_state_dict(saved)
        assert fresh.state_dict()["state"].keys() == saved["state"].keys()

    @every_optimizer
    def test_another_number_of_groups_or_weights_is_refused(self, info):
        saved = info.optim_cls(network()).state_dict()
        with pytest.raises(ValueError, match="different number of parameter groups"):
            info.optim_cls(nn.Sequential(nn.Linear(3, 3, bias=False))).load_state_dict(saved)
        with pytest.raises(ValueError, match="doesn't match the size"):
            info.optim_cls(nn.Sequential(network(), nn.Linear(4, 4))).load_state_dict(saved)


class TestCopies:
    @every_input
    def test_a_copy_goes_on_as_the_original_would_and_leaves_it_alone(self, info, given):
        model = network()
        optimizer = info.optim_cls(model, **given.kwargs)
        scheduler = schedulers.ExponentialLR(optimizer, 1.0)  # puts a `step` on the instance
        train(model, optimizer, 4, scheduler=scheduler)
        twin, copied = copy.deepcopy((model, optimizer))
        before = weights(model)
        losses = train(twin, copied, 6, start=4)
        assert_same(model, before)
        assert losses == train(model, optimizer, 6, start=4)
        assert_same(model, weights(twin))

    @every_optimizer
    def test_a_copy_alone_has_parameters_of_its_own(self, info):
        model = network()
        optimizer = info.optim_cls(model, lr=0.01)
        train(model, optimizer, 2)
        copied = copy.deepcopy(optimizer)
        before = weights(model)
        for group in copied.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its layers were never called
            copied.step()
        assert_same(model, before)

    @every_optimizer
    def test_a_copy_has_every_public_attribute(self, info):
        optimizer = info.optim_cls(network(), lr=0.01)
        copied = copy.deepcopy(optimizer)
        special = ("state", "param_groups", "defaults")
        names = [name for name in dir(optimizer) if not name.startswith("_") and name not in special]
        for name in names:
            value = getattr(optimizer, name)
            assert callable(value) or getattr(copied, name) == value
        assert copied.defaults == {**optimizer.defaults, "differentiable": False}  # torch adds it to every copy
        assert copied.summary() == optimizer.summary()
        assert repr(copied).replace("    differentiable: False\n", "") == repr(optimizer)

    @every_input
    def test_a_pickle_goes_on_as_the_original_would(self, info, given):
        model = network()
        optimizer = info.optim_cls(model, **given.kwargs)
        optimizer.register_step_pre_hook(lambda *_: None)  # cannot be pickled, and belongs to others
        train(model, optimizer, 3)
        twin, copied = pickle.loads(pickle.dumps((model, optimizer)))
        assert train(model, optimizer, 4, start=3) == train(twin, copied, 4, start=3)

    def test_a_copied_model_records_nothing(self, monkeypatch):
        """Of an average of weights, say: its layers would gather contexts that nobody collects."""
        model = network()
        CEGM(model, lr=0.01, refresh_every=1)
        twin = copy.deepcopy(model)
        monkeypatch.setattr(EntanglementLayer, "next_seed", lambda self: pytest.fail("a copy recorded"))
        loss_of(twin).backward()

    @every_optimizer
    def test_averages_of_weights_are_what_they_say_and_disturb_nothing(self, info):
        (model, optimizer), (twin, plain) = pair(info, OptimizerInput(None, {"lr": 0.01}))
        ema = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
        swa = swa_utils.AveragedModel(model)
        expected, total = None, None
        for seed in range(5):
            train(model, optimizer, 1, start=seed)
            for average in (ema, swa):
                average.update_parameters(model)
                loss_of(average, seed).backward()  # trains nothing, but passes through the copied layers
            now = weights(model)
            expected = now if expected is None else {k: 0.9 * expected[k] + 0.1 * now[k] for k in now}
            total = now if total is None else {k: total[k] + now[k] for k in now}
        for name, tensor in ema.module.state_dict().items():
            torch.testing.assert_close(tensor, expected[name])
        for name, tensor in swa.module.state_dict().items():
            torch.testing.assert_close(tensor, total[name] / 5)
        train(twin, plain, 5)
        assert_same(model, weights(twin))


class TestHooks:
    @every_optimizer
    def test_step_hooks_run_around_the_step_and_leave(self, info):
        model = network()
        optimizer = info.optim_cls(model, lr=0.01)
        seen = []

        def note(when):
            return lambda opt, args, kwargs: seen.append((when, opt is optimizer, model[1].weight[0, 0].item()))

        handles = [
            optimizer.register_step_pre_hook(note("before")),
            optimizer.register_step_post_hook(note("after")),
            register_optimizer_step_pre_hook(note("before all")),
            register_optimizer_step_post_hook(note("after all")),
        ]
        train(model, optimizer, 1)
        for handle in handles:
            handle.remove()
        train(model, optimizer, 1)
        assert [when for when, _, _ in seen] == ["before all", "before", "after", "after all"]
        assert all(mine for _, mine, _ in seen)
        assert seen[0][2] == seen[1][2] != seen[2][2]

    @every_optimizer
    def test_hooks_of_saving_and_loading_have_their_say(self, info):
        (model, optimizer), (_, fresh) = pair(info, OptimizerInput(None, {"lr": 0.01}))
        train(model, optimizer, 2)
        order = []
        optimizer.register_state_dict_pre_hook(lambda opt: order.append("saving"))
        optimizer.register_state_dict_post_hook(lambda opt, saved: {**saved, "note": 7})
        saved = optimizer.state_dict()
        assert saved["note"] == 7

        def halve(opt, given):
            order.append("loading")
            state = copy.deepcopy(given["state"])
            for values in state.values():
                for key in values.keys() & {"momentum", "exp_avg"}:
                    values[key] /= 2
            return {**given, "state": state}

        def look(opt):
            order.append(opt.state[opt.param_groups[0]["params"][0]]["momentum"].clone())

        fresh.register_load_state_dict_pre_hook(halve)
        fresh.register_load_state_dict_post_hook(look)
        fresh.load_state_dict(saved)
        assert order[:2] == ["saving", "loading"]
        torch.testing.assert_close(order[2], optimizer.state[model[1].weight]["momentum"] / 2)
        assert len(fresh._optimizer_load_state_dict_pre_hooks) == len(fresh._optimizer_load_state_dict_post_hooks) == 1

    @every_optimizer
    def test_a_post_hook_finds_statistics_in_full_precision(self, info):
        model = network().bfloat16()
        options = {"lr": 0.01, **({"power": -0.5, "refresh_every": 1} if info.optim_cls is CEGM else {})}
        optimizer, fresh = info.optim_cls(model, **options), info.optim_cls(model, **options)
        train(model, optimizer, 2)
        dtypes = {key: v.dtype for state in optimizer.state.values() for key, v in state.items() if torch.is_tensor(v)}
        seen = {}

        def look(opt):
            seen.update({k: v.dtype for state in opt.state.values() for k, v in state.items() if torch.is_tensor(v)})

        fresh.register_load_state_dict_post_hook(look)
        fresh.load_state_dict(optimizer.state_dict())
        assert seen == dtypes


class TestScaler:
    @every_input
    def test_a_scaler_changes_nothing_when_scales_are_powers_of_two(self, info, given):
        """Also under recurrence, where the scale changes while contexts are remembered."""
        (model, optimizer), (twin, plain) = pair(info, given)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        optimizer.watch_scaler(scaler)
        losses = []
        for seed in range(8):
            loss = loss_of(model, seed)
            scaler.scale(loss).backward()
            optimizer.observe_loss(loss)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert scaler.get_scale() > 2.0**10
        assert losses == pytest.approx(train(twin, plain, 8), rel=1e-5)

    def test_without_being_watched_a_scale_that_changes_bends_the_memory(self):
        """What `watch_scaler` is for: the second step counts 256 times as much in `T_t` as the first."""
        demands = {}
        for watched in (False, True):
            torch.manual_seed(0)
            model = network()
            optimizer = CEGM(model, lr=0.0, recurrence=0.5, refresh_every=1, heads=1)
            scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_factor=16.0, growth_interval=1)
            if watched:
                optimizer.watch_scaler(scaler)
            for seed in range(2):
                scaler.scale(loss_of(model, seed)).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            demands[watched] = optimizer.state[model[3].weight]["demand"]
        torch.manual_seed(0)
        model = network()
        optimizer = CEGM(model, lr=0.0, recurrence=0.5, refresh_every=1, heads=1)
        train(model, optimizer, 2)
        expected = optimizer.state[model[3].weight]["demand"]
        torch.testing.assert_close(demands[True], expected)
        first, second = demands[False] / demands[False].norm(), expected / expected.norm()
        assert float((first - second).norm()) > 1e-3

    @every_input
    def test_a_step_that_overflows_leaves_no_trace(self, info, given):
        (model, optimizer), (twin, plain) = pair(info, given)
        if given.kwargs.get("scores") == "random":
            pytest.skip("each forward pass takes its draws, a lost one too")
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        optimizer.watch_scaler(scaler)
        for seed in (0, 1, 2):
            loss = loss_of(model, seed) * (1.0 if seed != 1 else float("inf"))
            scaler.scale(loss).backward()
            optimizer.observe_loss(loss)
            scaler.step(optimizer)
            scaler.update()
            model.zero_grad()  # not the optimizer's, and still the contexts of the lost step are gone
            if seed != 1:
                train(twin, plain, 1, start=seed)
            for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
                torch.testing.assert_close(parameter, other)


class TestGivenUp:
    @pytest.mark.parametrize("hierarchy", ["layer", "block"])
    def test_the_models_zero_grad_gives_contexts_up_too(self, hierarchy):
        given = OptimizerInput(None, {"lr": 0.01, "refresh_every": 1, "hierarchy": hierarchy})
        (model, optimizer), (twin, plain) = pair(DATABASE[0], given)
        (100 * loss_of(model, 7)).backward()
        model.zero_grad()
        train(model, optimizer, 1)
        train(twin, plain, 1)
        assert_same(model, weights(twin))

    def test_accumulation_is_no_giving_up(self):
        given = OptimizerInput(None, {"lr": 0.01, "refresh_every": 1, "heads": 1})
        (model, optimizer), _ = pair(DATABASE[0], given)
        for seed in (1, 2):
            loss_of(model, seed).backward()
        (layer,) = optimizer._contexts._recorders[model[1].weight].layers
        assert layer.mass_carrier.grad == 2 * 21


@every_optimizer
def test_a_compiled_step_is_the_step(info):
    (model, optimizer), (twin, plain) = pair(info, OptimizerInput(None, {"lr": 0.01}))
    step = torch.compile(optimizer.step, backend="eager")
    for seed in range(3):
        twin.load_state_dict(model.state_dict())  # from the same place: a polar factor makes more of what rounding left
        plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        loss_of(model, seed).backward()
        step()
        optimizer.zero_grad()
        train(twin, plain, 1, start=seed)
        for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
            # torch traces another order of AdamW: a step rounds a weight twice, and its ten operations their .01
            bound = rounding.of_sum(2, other.detach().abs()) + rounding.of_sum(10, 0.01)
            rounding.agree(parameter, other, bound)
