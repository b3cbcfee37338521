"""A model that changes after its optimizer was built: looked at again, or refused with the remedy; nothing stands still unsaid."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import models
from cegm import CEGM
from cegm.context.layers import EntanglementLayer

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


def parts():
    torch.manual_seed(0)
    sizes = {"emb": nn.Embedding(11, 8), "fc": nn.Linear(8, 8), "fc2": nn.Linear(8, 8), "lm_head": nn.Linear(8, 11)}
    return nn.ModuleDict(sizes)


def loss(model, ids=None):
    ids = torch.arange(10).view(2, 5) if ids is None else ids
    hidden = model["fc2"](torch.tanh(model["fc"](model["emb"](ids))))
    return nn.functional.cross_entropy(model["lm_head"](hidden).flatten(0, 1), ids.flatten())


def steps(model, optimizer, count=3):
    for _ in range(count):
        loss(model).backward()
        optimizer.step()
        optimizer.zero_grad()


def roles(optimizer):
    names = {a.parameter: a.name for a in optimizer._assignments.values()}
    return {names[p]: g["role"] for g in optimizer.param_groups for p in g["params"]}


EXPECTED = {
    "emb.weight": "adamw", "fc.weight": "matrix", "fc.bias": "adamw", "fc2.weight": "matrix", "fc2.bias": "adamw",
    "lm_head.weight": "adamw", "lm_head.bias": "adamw",
}  # fmt: skip


@pytest.mark.parametrize("power", [0, -1])
def test_weights_unfrozen_later_join_the_groups_of_their_kind_and_train_as_if_they_had_been_there(power):
    model, twin = parts(), parts()
    for name in ("emb", "fc", "lm_head"):
        model[name].requires_grad_(False)
    optimizer = CEGM(model, lr=1e-2, gradient_power=power, refresh_every=25)
    model.requires_grad_(True)
    with pytest.warns(UserWarning, match=r"5 weights became trainable .* \(first emb.weight\)") as told:
        steps(model, optimizer)
    assert len(told) == 1
    assert roles(optimizer) == EXPECTED
    steps(twin, CEGM(twin, lr=1e-2, gradient_power=power, refresh_every=25))
    if power == 0:
        assert models.weights_equal(model, twin)
    else:  # the backward pass of its first step was over, so it is seen in its second, not in its 26th
        assert "demand_map" in optimizer.state[model["fc"].weight]


def test_schedulers_move_what_has_joined():
    model = parts()
    model["fc"].requires_grad_(False)
    optimizer = CEGM(model, lr=1e-2)
    scheduler = lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 10)
    model.requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps(model, optimizer)
    scheduler.step()
    rates = {g["lr"] for g in optimizer.param_groups}
    assert len(rates) == 1
    assert rates.pop() < 1e-2


def test_the_first_weight_of_a_kind_gets_a_group_of_its_own():
    model = parts()
    for name in ("fc", "fc2"):
        model[name].bias.requires_grad_(False)
    model["emb"].requires_grad_(False)
    model["lm_head"].requires_grad_(False)
    optimizer = CEGM(model, lr=1e-2, weight_decay=0.3)
    assert len(optimizer.param_groups) == 1
    model.requires_grad_(True)
    with pytest.warns(UserWarning, match="joined"):
        steps(model, optimizer)
    assert roles(optimizer) == EXPECTED
    assert sorted(g["weight_decay"] for g in optimizer.param_groups) == [0.0, 0.3, 0.3]


def test_a_group_added_later_has_the_roles_of_the_model_frozen_or_not():
    for unfrozen_first in (True, False):
        model = parts()
        others = [p for n in ("emb", "fc", "lm_head") for p in model[n].parameters()]
        for p in others:
            p.requires_grad_(False)
        optimizer = CEGM(model["fc2"].parameters(), model=model, refresh_every=1)
        if unfrozen_first:
            model.requires_grad_(True)
        optimizer.add_param_group({"params": others, "lr": 1e-3})
        model.requires_grad_(True)
        assert roles(optimizer) == EXPECTED
        steps(model, optimizer)
        assert "demand_map" in optimizer.state[model["fc"].weight]


def test_a_group_with_a_role_of_its_own_has_that_role():
    model = parts()
    optimizer = CEGM(model["fc2"].parameters(), model=model)
    optimizer.add_param_group({"params": [model["emb"].weight], "role": "matrix"})
    optimizer.add_param_group({"params": [model["fc"].weight], "role": "adamw"})
    found = roles(optimizer)
    assert (found["emb.weight"], found["fc.weight"]) == ("matrix", "adamw")
    before = model["emb"].weight.detach().clone()
    steps(model, optimizer)
    assert not torch.equal(before, model["emb"].weight)
    with pytest.raises(ValueError, match="is no matrix, but its group has role='matrix'"):
        optimizer.add_param_group({"params": [model["lm_head"].bias], "role": "matrix"})


def test_a_matrix_outside_of_the_model_needs_a_role():
    model, other = parts(), nn.Embedding(7, 8)
    optimizer = CEGM(model)
    with pytest.raises(ValueError, match=r"outside of the model .* give its group role='matrix' or role='adamw'"):
        optimizer.add_param_group({"params": [other.weight]})
    optimizer = CEGM(model)
    optimizer.add_param_group({"params": [other.weight], "role": "adamw"})
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})


def test_merged_adapters_make_room_for_the_weights_of_the_base():
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_attention_heads=2))
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = CEGM(adapted, lr=1e-2, refresh_every=1)
    ids = torch.randint(0, 40, (2, 9))
    adapted(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    merged = adapted.merge_and_unload().requires_grad_(True).train()
    twin = copy.deepcopy(merged)
    fresh = CEGM(twin, lr=1e-2, refresh_every=1)
    for model in (merged, twin):
        model(input_ids=ids, labels=ids).loss.backward()
    with pytest.warns(UserWarning, match="joined"):
        optimizer.step()
    fresh.step()
    assert set(merged.parameters()) == {p for g in optimizer.param_groups for p in g["params"]}
    assert set(optimizer.state) <= set(merged.parameters())
    q = merged.model.layers[0].self_attn.q_proj.weight
    assert "momentum" in optimizer.state[q]
    merged(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert "demand_map" in optimizer.state[q]


def test_a_weight_put_in_place_of_another_is_trained_in_its_stead():
    model = parts()
    optimizer = CEGM(model, lr=1e-2, refresh_every=1)
    steps(model, optimizer, 1)
    old = model["fc"].weight
    model["fc"].weight = nn.Parameter(torch.randn(8, 8) / 3)
    before = model["fc"].weight.detach().clone()
    with pytest.warns(UserWarning, match="1 weights became trainable"):
        steps(model, optimizer, 1)
    assert not torch.equal(model["fc"].weight, before)
    assert roles(optimizer) == EXPECTED
    assert old not in optimizer.state
    assert len(model["fc"]._forward_hooks) == 1


def test_a_model_that_gets_its_memory_after_the_optimizer():
    """On the meta device first, as large models are built."""
    with torch.device("meta"):
        model = parts()
    optimizer = CEGM(model, lr=1e-2, gradient_power=0)
    model.to_empty(device="cpu").load_state_dict(parts().state_dict())
    twin = parts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps(model, optimizer)
    steps(twin, CEGM(twin, lr=1e-2, gradient_power=0))
    assert models.weights_equal(model, twin)


def test_a_model_cast_to_another_precision_goes_on():
    model = parts()
    optimizer = CEGM(model, lr=1e-2, refresh_every=1)
    steps(model, optimizer, 2)
    model.double()
    before = loss(model).detach()
    steps(model, optimizer, 5)
    assert loss(model) < before


def test_layers_follow_their_weight_to_another_device():
    layer = EntanglementLayer("w", torch.device("cpu"), 4, (1, 4, 4), (2, 3, 3), "attention")
    layer.mass_carrier.grad = torch.ones(())
    layer.move(torch.device("meta"))
    assert {carrier.device.type for carrier in layer.carriers()} == {"meta"}
    assert [tuple(c.shape) for c in layer.carriers()] == [(1, 4, 4), (2, 3, 3), (4,), ()]
    assert not layer.recorded
    assert layer.seed.device.type == "meta"


def test_weights_that_are_all_gone_are_told_where_only_some_were_handed_over():
    model = parts()
    optimizer = CEGM(model["fc"].parameters(), model=model)
    model["fc"] = nn.Linear(8, 8)
    loss(model).backward()
    with pytest.warns(UserWarning, match="no weight of this optimizer has a gradient"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


def test_what_is_frozen_stays_and_a_model_that_is_gone_is_not_missed():
    model = parts()
    model["emb"].requires_grad_(False)
    optimizer = CEGM(nn.ModuleDict({"a": model}), lr=1e-2)  # the wrapper is gone at once
    before = model["emb"].weight.clone()
    steps(model, optimizer)
    assert torch.equal(model["emb"].weight, before)
    assert "emb.weight" not in " ".join(roles(optimizer))
