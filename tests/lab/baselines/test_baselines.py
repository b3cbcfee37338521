import copy
import itertools

import pytest
import torch
from torch import nn

import models
from cegm.lab.baselines import METHODS, build_optimizer, option_names, ordered

pytest.importorskip("transformers")


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_once_with_a_role(method):
    model = models.llama()
    optimizer = build_optimizer(method, model, lr=1e-3, aux_lr=2e-3)
    members = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(members) == len(set(members))
    assert set(members) == set(model.parameters())
    assert {(g["role"], g["lr"]) for g in optimizer.param_groups} == {("matrix", 1e-3), ("adamw", 2e-3)}


def test_all_methods_agree_on_groups():
    model = models.llama()
    names = {p: n for n, p in model.named_parameters()}
    seen = [
        sorted(
            (g["role"], g["weight_decay"], names[p])
            for g in build_optimizer(m, model).param_groups
            for p in g["params"]
        )
        for m in METHODS
    ]
    assert all(groups == seen[0] for groups in seen)


@pytest.mark.parametrize("method", METHODS)
def test_state_round_trip_continues_bitwise(method):
    model, data = models.llama(), models.batches(8)
    optimizer = build_optimizer(method, model, lr=1e-2)
    models.train(model, optimizer, data[:4])
    twin = copy.deepcopy(model)
    resumed = build_optimizer(method, twin, lr=1e-2)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert models.train(model, optimizer, data[4:]) == models.train(twin, resumed, data[4:])
    assert models.weights_equal(model, twin)


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_goes_on_as_the_original_would(method):
    model, data = models.llama(), models.batches(8)
    optimizer = build_optimizer(method, model, lr=1e-2)
    models.train(model, optimizer, data[:4])
    twin, copied = copy.deepcopy((model, optimizer))
    ahead = models.train(twin, copied, data[4:])
    assert ahead == models.train(model, optimizer, data[4:])
    assert models.weights_equal(model, twin)


@pytest.mark.parametrize("method", METHODS)
def test_a_scheduler_moves_both_learning_rates(method):
    optimizer = build_optimizer(method, models.llama(), lr=1e-2, aux_lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    scheduler.step()
    assert {(g["role"], g["lr"]) for g in optimizer.param_groups} == {("matrix", 5e-3), ("adamw", 5e-4)}


def test_muon_is_torchs_muon_and_adamw():
    model, data = models.llama(), models.batches(20)
    twin = copy.deepcopy(model)
    ours = build_optimizer("muon", model, lr=1e-2, precision="bfloat16")
    roles = {
        n: g["role"] for g in ours.param_groups for p in g["params"] for n, q in model.named_parameters() if p is q
    }
    named = dict(twin.named_parameters())
    muon = torch.optim.Muon([named[n] for n in roles if roles[n] == "matrix"], lr=1e-2, adjust_lr_fn="match_rms_adamw")
    rest = [named[n] for n in roles if roles[n] == "adamw"]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0},
    ]
    adamw = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    models.train(model, ours, data)
    for ids in data:
        twin(input_ids=ids, labels=ids).loss.backward()
        for part in (muon, adamw):
            part.step()
            part.zero_grad()
    assert models.weights_equal(model, twin)


def test_muon_takes_a_fused_projection_apart():
    """A stacked query/key/value weight moves as three separate layers would."""
    stacked, parts = torch.nn.Linear(8, 24, bias=False), [torch.nn.Linear(8, 8, bias=False) for _ in range(3)]
    for part, rows in zip(parts, stacked.weight.data.split(8), strict=True):
        part.weight.data.copy_(rows)
    fused, separate = torch.nn.ModuleDict({"Wqkv": stacked}), torch.nn.ModuleList(parts)
    fused.num_heads = 2
    optimizers = [build_optimizer("muon", each, lr=1e-2, precision="float32") for each in (fused, separate)]
    for _ in range(3):
        stacked.weight.grad = torch.randn(24, 8)
        for part, rows in zip(parts, stacked.weight.grad.split(8), strict=True):
            part.weight.grad = rows.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(stacked.weight, torch.cat([part.weight for part in parts]), rtol=0, atol=1e-6)


def test_a_momentum_that_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"momentum=1.0 is outside \[0, 1\)"):
        build_optimizer("muon", models.llama(), momentum=1.0)


def test_muon_in_float32_stays_close_to_bfloat16():
    """Two roundings of the same update: after one step, weights differ by far less than the step."""
    model = models.llama()
    before, twin = copy.deepcopy(model), copy.deepcopy(model)
    for each, precision in ((model, "bfloat16"), (twin, "float32")):
        models.train(each, build_optimizer("muon", each, lr=1e-2, precision=precision), models.batches(1))
    step = sum(
        (p - q).detach().square().sum().item() for p, q in zip(model.parameters(), before.parameters(), strict=True)
    )
    gap = sum(
        (p - q).detach().square().sum().item() for p, q in zip(model.parameters(), twin.parameters(), strict=True)
    )
    assert 0 < gap < 1e-3 * step


def test_unknown_names_are_one_line_errors_with_the_nearest():
    model = models.llama()
    with pytest.raises(ValueError, match="did you mean 'muon'"):
        build_optimizer("moun", model)
    with pytest.raises(ValueError, match="cegm has no option 'gradient_pwr'; did you mean 'gradient_power'"):
        build_optimizer("cegm", model, gradient_pwr=1)
    assert "momentum" in option_names("muon")


def test_diagnostics_of_adamw_are_those_of_the_step_it_took():
    model = models.llama()
    optimizer = build_optimizer("adamw", model, lr=1e-2, weight_decay=0.0)
    for ids in models.batches(3):
        optimizer.zero_grad()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    found = optimizer.diagnostics()
    muon = build_optimizer("muon", model)
    assert list(found) == [matrix.name for assignment in muon.matrices() for matrix in assignment.matrices()]
    for name, parameter in model.named_parameters():
        if (layer := name.removesuffix(".weight")) in found:
            step = parameter.detach() - before[name]
            expected = {
                "gradient_norm": parameter.grad.norm(),
                "update_to_weight": step.norm() / parameter.norm(),
                "gradient_rank": _rank(parameter.grad),
                "update_rank": _rank(step),
            }
            assert found[layer] == pytest.approx({key: float(value) for key, value in expected.items()}, rel=2e-3)


def test_diagnostics_of_adamw_take_fused_projections_apart_and_leave_out_what_got_no_gradient():
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    model = nn.ModuleDict({"attn": nn.ModuleDict({"c_attn": conv1d(24, 8)}), "idle": nn.Linear(8, 8)})
    model["attn"].num_heads = 2
    optimizer = build_optimizer("adamw", model, lr=1e-2)
    model["attn"]["c_attn"](torch.randn(5, 8)).square().sum().backward()
    optimizer.step()
    found = optimizer.diagnostics()
    pieces = [f"attn.c_attn[{start}:{start + 8}]" for start in (0, 8, 16)]
    assert list(found) == pieces
    gradient = model["attn"]["c_attn"].weight.grad  # (inputs, outputs)
    assert found[pieces[1]]["gradient_rank"] == pytest.approx(_rank(gradient[:, 8:16]), rel=1e-3)


def _rank(matrix):
    energies = torch.linalg.svdvals(matrix.double()).square()
    return float(energies.sum() ** 2 / energies.square().sum())


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["adamw", "muon", "cegm"], ["cegm", "muon", "adamw"]),
        (["muon", "normuon", "soap", "cegm"], ["cegm", "normuon", "soap", "muon"]),
        (["soap", "shampoo", "cegm"], ["cegm", "shampoo", "soap"]),
        (["soap", "adamw", "mac"], ["mac", "soap", "adamw"]),
        (["muon", "adamw"], ["muon", "adamw"]),
        (["adamw"], ["adamw"]),
        (["cegm"], ["cegm"]),
        (["cegm", "of nobody", "adamw", "another"], ["cegm", "another", "of nobody", "adamw"]),
        (["of nobody", "another"], ["another", "of nobody"]),
        ([], []),
    ],
)
def test_the_subject_is_first_and_the_baseline_last_however_methods_are_given(methods, expected):
    for given in itertools.islice(itertools.permutations(methods), 24):
        assert ordered(given) == expected
    assert ordered(methods * 2) == expected
