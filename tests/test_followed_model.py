"""A model that changes after its optimizer was built: looked at again, or refused with the remedy; nothing stands still unsaid."""

import copy
import gc
import pickle
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


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step),
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=9, cycle_momentum=False),
        lambda optimizer: lr_scheduler.SequentialLR(
            optimizer, [lr_scheduler.ConstantLR(optimizer), lr_scheduler.CosineAnnealingLR(optimizer, 9)], [2]
        ),
    ],
)
def test_the_first_weight_of_a_kind_finds_the_schedule_there(schedule):
    model = parts()
    for name in ("fc", "fc2"):
        model[name].bias.requires_grad_(False)
    model["emb"].requires_grad_(False)
    model["lm_head"].requires_grad_(False)
    optimizer = CEGM(model, lr=1e-2, weight_decay=0.3)
    scheduler = schedule(optimizer)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        for step in range(4):
            if step == 2:
                model.requires_grad_(True)
            steps(model, optimizer, 1)
            scheduler.step()
    assert [str(w.message)[:26] for w in told if "joined" in str(w.message)] == ["5 weights became trainable"]
    assert roles(optimizer) == EXPECTED
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.3, 0.3, 0.0]
    assert len({g["lr"] for g in optimizer.param_groups}) == 1


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
    optimizer.add_param_group({"params": [other.weight], "role": "adamw"})
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})


def test_merged_adapters_make_room_for_the_weights_of_the_base():
    adapted, ids = adapted_llama(), IDS
    optimizer = CEGM(adapted, lr=1e-2, refresh_every=1)
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


def once_told(optimizer, match):
    with pytest.warns(UserWarning, match=match):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


def test_weights_that_join_none_of_the_groups_are_told_where_only_some_were_handed_over():
    for change in ("replaced", "unfrozen", "added"):
        model = parts()
        model["fc2"].requires_grad_(False)
        optimizer = CEGM(model["fc"].parameters(), model=model)  # the others are another optimizer's
        steps(model, optimizer, 1)
        model["fc2"].requires_grad_(change == "unfrozen")
        if change == "replaced":
            model["fc"] = nn.Linear(8, 8)
        if change == "added":
            model["fc2"] = nn.Sequential(model["fc2"], nn.Linear(8, 8))
        loss(model).backward()
        first = {"replaced": r"fc\.weight", "unfrozen": r"fc2\.weight", "added": r"fc2\.1\.weight"}[change]
        once_told(optimizer, rf"2 weights .* in none of its groups \(first {first}\); add them with add_param_group")


def test_a_list_of_all_that_is_trainable_tells_what_is_unfrozen_later():
    model = parts()
    model["fc"].requires_grad_(False)
    optimizer = CEGM([p for p in model.parameters() if p.requires_grad], model=model)
    steps(model, optimizer, 2)
    model["fc"].requires_grad_(True)
    loss(model).backward()
    once_told(optimizer, r"2 weights .* in none of its groups \(first fc\.weight\)")


def test_a_model_that_is_gone_is_told_when_nothing_has_a_gradient_any_more():
    model = parts()
    optimizer = CEGM(model, lr=1e-2)
    steps(model, optimizer, 1)
    model = copy.deepcopy(model)
    gc.collect()
    loss(model).backward()
    once_told(optimizer, "the model that CEGM was given is gone; build it again for the new one")


def adapted_llama():
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_attention_heads=2))
    return peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


IDS = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(0))


def test_merged_weights_are_trained_when_the_wrapper_that_was_merged_is_gone():
    """As `model = model.merge_and_unload()` leaves it."""
    model = adapted_llama()
    optimizer = CEGM(model, lr=1e-2, refresh_every=1, group_patterns=[("*v_proj*lora_A*", "adamw")])
    model(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()
    model = model.merge_and_unload().requires_grad_(True).train()
    gc.collect()
    twin = copy.deepcopy(model)
    fresh = CEGM(twin, lr=1e-2, refresh_every=1)
    for each in (model, twin):
        each.zero_grad()
        each(input_ids=IDS, labels=IDS).loss.backward()
    with pytest.warns(UserWarning, match=r"12 weights became trainable .* joined its groups"):
        optimizer.step()
    fresh.step()
    ours, theirs = (dict(m.named_parameters()) for m in (model, twin))
    for group, expected in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        assert [n for p in group["params"] for n in ours if ours[n] is p] == [
            n for p in expected["params"] for n in theirs if theirs[n] is p
        ]


def test_a_run_that_grew_goes_on_from_its_checkpoint_to_the_bit():
    """Weights stand in the model's order, as a new optimizer would list them."""

    def step(model, optimizer):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()

    model = parts()
    for name in ("emb", "fc"):
        model[name].requires_grad_(False)
    optimizer = CEGM(model, lr=1e-2, refresh_every=1)
    step(model, optimizer)
    for name in ("fc", "emb"):
        model[name].requires_grad_(True)
        with pytest.warns(UserWarning, match="joined"):
            step(model, optimizer)
    twin = parts()
    twin.load_state_dict(model.state_dict())
    resumed = CEGM(twin, lr=1e-2, refresh_every=1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        step(model, optimizer)
        step(twin, resumed)
    assert models.weights_equal(model, twin)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("resize", ["data", "module"])
def test_a_weight_of_another_shape_begins_anew_or_is_refused(whole, resize):
    model = parts()
    optimizer = CEGM(model if whole else list(model.parameters()), lr=1e-2, model=model, refresh_every=1)
    steps(model, optimizer, 2)
    wide = parts()
    wide["fc"], wide["fc2"] = nn.Linear(8, 12), nn.Linear(12, 8)
    for name in ("fc", "fc2"):
        if resize == "data":  # as resize_token_embeddings does it
            for kind in ("weight", "bias"):
                getattr(model[name], kind).data = getattr(wide[name], kind).data
            model[name].in_features, model[name].out_features = wide[name].in_features, wide[name].out_features
        else:
            model[name] = wide[name]
    if whole:
        with pytest.warns(UserWarning, match=r"got another shape .* begin anew|became trainable"):
            steps(model, optimizer, 1)
        assert roles(optimizer) == EXPECTED
        assert optimizer.state[model["fc"].weight]["momentum"].shape == (12, 8)
        before = loss(model)
        steps(model, optimizer, 5)
        assert loss(model) < before
        assert optimizer.state[model["fc"].weight]["demand_map"].shape[:2].numel() == 12
    elif resize == "data":
        with pytest.raises(ValueError, match=r"fc\.weight has another shape .* build it again"):
            steps(model, optimizer, 1)


def test_a_vocabulary_that_grows_is_followed():
    model = adapted_llama().unload().requires_grad_(True)
    optimizer = CEGM(model, lr=1e-2, refresh_every=1)
    for size in (40, 50, 30):
        model.resize_token_embeddings(size)
        ids = IDS % size
        losses = []
        for _ in range(6):
            optimizer.zero_grad()
            output = model(input_ids=ids, labels=ids).loss
            output.backward()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                optimizer.step()
            losses.append(float(output.detach()))
            del output  # and its graph, which remembers the shape
        assert losses[-1] < losses[0]
    assert {p: g["role"] for g in optimizer.param_groups for p in g["params"]}[model.lm_head.weight] == "adamw"


def test_weights_of_no_model_stay_when_the_model_changes():
    model, scale = parts(), nn.Parameter(torch.ones(1))
    model["fc"].requires_grad_(False)
    optimizer = CEGM(model, lr=1e-2, refresh_every=1)
    optimizer.add_param_group({"params": [scale]})
    model.requires_grad_(True)
    model["fc2"] = nn.Linear(8, 8)
    for _ in range(2):
        before = scale.detach().clone()
        optimizer.zero_grad()
        (loss(model) * scale.square()).sum().backward()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step()
        assert not torch.equal(before, scale)


def test_a_layer_added_between_two_looks_at_the_contexts_moves_at_the_next_step():
    model = parts()
    optimizer = CEGM(model, lr=1e-2, refresh_every=100)
    steps(model, optimizer, 2)
    model["fc2"] = nn.Sequential(model["fc2"], nn.Linear(8, 8))
    before = model["fc2"][1].weight.detach().clone()
    with pytest.warns(UserWarning, match="2 weights became trainable"):
        steps(model, optimizer, 1)
    assert not torch.equal(model["fc2"][1].weight, before)


def test_a_head_alone_is_trained_first_and_the_body_when_it_is_unfrozen():
    model = parts()
    model.requires_grad_(False)
    model["lm_head"].requires_grad_(True)
    with pytest.warns(UserWarning, match="every matrix for Algorithm 1 is frozen, so AdamW updates all weights"):
        optimizer = CEGM(model, lr=1e-2)
    steps(model, optimizer, 1)
    model.requires_grad_(True)
    with pytest.warns(UserWarning, match="joined"):
        steps(model, optimizer, 1)
    assert roles(optimizer) == EXPECTED
    with pytest.raises(ValueError, match="no matrix for Algorithm 1"):
        CEGM(nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4)))


def test_nothing_of_an_optimizer_is_left_in_torch_when_it_is_gone():
    from torch.nn.modules import module as torch_module

    def registered():
        return len(torch_module._global_parameter_registration_hooks) + len(
            torch_module._global_module_registration_hooks
        )

    gc.collect()  # of other tests
    before, model = registered(), parts()
    optimizers = [CEGM(model) for _ in range(3)]
    optimizers.append(copy.deepcopy(optimizers[0]))
    optimizers.append(pickle.loads(pickle.dumps(optimizers[0])))
    assert registered() == before + 10
    optimizers.clear()
    gc.collect()
    assert registered() == before


def test_what_is_frozen_stays_and_a_model_that_is_gone_is_not_missed():
    model = parts()
    model["emb"].requires_grad_(False)
    optimizer = CEGM(nn.ModuleDict({"a": model}), lr=1e-2)  # the wrapper is gone at once
    before = model["emb"].weight.clone()
    steps(model, optimizer)
    assert torch.equal(model["emb"].weight, before)
    assert "emb.weight" not in " ".join(roles(optimizer))
