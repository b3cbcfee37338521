"""LoRA factors under `normalize="product"`: what a run makes of their product does not depend on how it is factored."""

import copy

import pytest
import torch

import models
from cegm import CEGM
from cegm.context.card import ContextCard, sampled, spectrum

peft = pytest.importorskip("peft")

PLAIN = {"gradient_power": 0.0, "row_moment": False}
MATRICES = [("*lora_[AB]*", "matrix")]
"""Also of the last layer, which looks like a head, and of rank 1."""


def adapted(rank=3, begun=True, seed=0, **lora):
    """A perceptron in float64 with adapters on both layers, which have begun or not."""
    torch.manual_seed(seed)
    model = models.perceptron((12, 10, 8)).double()
    model = peft.get_peft_model(model, peft.LoraConfig(r=rank, target_modules=["0", "2"], **lora)).double()
    if begun:
        for layer in layers(model):
            torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.3)
    return model


def layers(model):
    return [module for module in model.modules() if hasattr(module, "lora_A")]


def factors(layer):
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def products(model):
    return [(b @ a).detach() for a, b in map(factors, layers(model))]


@torch.no_grad()
def refactored(model, change):
    """The same function with `A -> M A` and `B -> B M^-1`."""
    model = copy.deepcopy(model)
    for first, second in map(factors, layers(model)):
        matrix = change(len(first)).to(first.dtype)
        first.copy_(matrix @ first)
        second.copy_(second @ torch.linalg.inv(matrix))
    return model


def any_matrix(rank):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rank, rank, generator=generator, dtype=torch.float64) + 2 * torch.eye(rank)


def built(model, **options):
    return CEGM(model, **{"normalize": "product", "lr": 0.01, "group_patterns": MATRICES, **options})


def train(model, steps=50, optimizer=None, **options):
    """Some steps on data that is the same for all; the optimizer."""
    optimizer = optimizer or built(model, **options)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        x = torch.randn(16, 12, generator=generator, dtype=torch.float64)
        (model(x) - x[:, :8].roll(1, dims=1).sign()).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def difference(model, other):
    """Of the products after a run, relative to how large they are."""
    pairs = zip(products(model), products(other), strict=True)
    return max(float((one - two).norm() / one.norm()) for one, two in pairs)


CHANGES = {
    "an eighth": lambda rank: torch.eye(rank) / 8,
    "eight": lambda rank: torch.eye(rank) * 8,
    "any matrix": any_matrix,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "B is zero"])
@pytest.mark.parametrize(
    ("options", "lora"),
    [
        (PLAIN, {}),
        ({**PLAIN, "weight_decay": 1.0, "nesterov": False, "layer_scale": "spectral"}, {}),
        ({**PLAIN, "coefficient": "cosine", "coefficient_period": 20}, {"use_rslora": True}),
        (PLAIN, {"use_dora": True}),
        (PLAIN, {"rank": 1}),
    ],
    ids=["polar", "decay", "coefficient and rsLoRA", "DoRA", "rank 1"],
)
def test_fifty_steps_make_the_same_product_of_any_factors(change, begun, options, lora):
    model = adapted(begun=begun, **lora)
    other = refactored(model, change)
    start = products(model)
    train(model, **options)
    train(other, **options)
    assert difference(model, other) < 1e-9
    assert min(float((end - begin).norm()) for begin, end in zip(start, products(model), strict=True)) > 0.1


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("options", [{}, {"power": -0.5, "map_first": True, "recurrence": 0.9}, {"flow_time": 1.0}])
def test_so_do_contexts_of_the_outer_sides_and_moments_of_its_outputs_which_are_kept_in_float32(change, options):
    model = adapted()
    other = refactored(model, change)
    train(model, refresh_every=5, **options)
    train(other, refresh_every=5, **options)
    assert difference(model, other) < 1e-4


@pytest.mark.parametrize("normalize", ["polar", "adam", "frobenius"])
def test_other_rules_depend_on_the_factors(normalize):
    model = adapted()
    other = refactored(model, CHANGES["eight"])
    for each in (model, other):
        train(each, **{**PLAIN, "normalize": normalize, "nesterov": False})
    assert difference(model, other) > 0.1


def test_contexts_and_moments_over_the_rank_are_not_kept():
    model = adapted()
    optimizer = train(model, steps=2, power=-0.5)
    for layer in layers(model):
        first, second = (optimizer.state[factor] for factor in factors(layer))
        assert "context_map" in first
        assert "demand_map" not in first
        assert "row_moment" not in first
        assert "demand_map" in second
        assert "context_map" not in second
        assert "row_moment" in second


def test_a_step_of_a_factor_has_the_singular_values_of_a_step_of_the_product():
    model = adapted(begun=False)
    (first, second), *_ = map(factors, layers(model))
    before = first.detach().clone()
    train(model, steps=1, **PLAIN, weight_decay=0.0)
    torch.testing.assert_close(first, before, rtol=0, atol=0)  # while B is zero A has no gradient
    values = torch.linalg.svdvals((second @ first).detach())[:3] / (0.01 * 0.2 * 10**0.5)
    assert ((values > 0.6) & (values < 1.3)).all()  # Muon's quintic


def test_factor_a_moves_by_a_tenth_of_itself_at_most_while_b_is_small():
    model = adapted(begun=False)
    optimizer = train(model, steps=1, **PLAIN, weight_decay=0.0)
    for _ in range(5):
        before = [first.detach().clone() for first, _ in map(factors, layers(model))]
        train(model, steps=1, optimizer=optimizer)
        for (first, _), old in zip(map(factors, layers(model)), before, strict=True):
            metric = torch.linalg.inv(torch.linalg.cholesky(old @ old.T))
            assert 0.0 < torch.linalg.matrix_norm(metric @ (first.detach() - old), ord=2) < 0.13


def test_a_first_step_at_rate_zero_changes_nothing():
    model = adapted(begun=False)
    before = copy.deepcopy(model.state_dict())
    optimizer = train(model, steps=1, lr=0.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    train(model, steps=2, optimizer=optimizer)
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_whole_weights_beside_adapters_go_by_polar_to_the_bit():
    twins = [adapted(modules_to_save=["2"]) for _ in range(2)]
    for twin, normalize in zip(twins, ("product", "polar"), strict=True):
        train(twin, steps=1, normalize=normalize, group_patterns=[])
    one, two = (twin.state_dict() for twin in twins)
    kept = [name for name in one if "modules_to_save" in name]
    assert kept
    assert all(torch.equal(one[name], two[name]) for name in kept)


def test_a_run_goes_on_from_its_state_and_in_a_copy_to_the_bit():
    model = adapted()
    optimizer = train(model, steps=5)
    twin, copied = copy.deepcopy((model, optimizer))
    loaded = copy.deepcopy(model)
    resumed = built(loaded)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, own in ((model, optimizer), (twin, copied), (loaded, resumed)):
        train(each, steps=5, optimizer=own)
    assert models.weights_equal(model, twin)
    assert models.weights_equal(model, loaded)


def test_after_merging_a_run_goes_on_with_the_whole_weights():
    model = adapted()
    optimizer = train(model, steps=2)
    whole = model.merge_and_unload()
    for parameter in whole.parameters():
        parameter.requires_grad_()
    before = copy.deepcopy(whole.state_dict())
    with pytest.warns(UserWarning, match="have joined its groups"):
        train(whole, steps=2, optimizer=optimizer)
    assert all(not torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def test_one_frozen_factor_is_still_the_metric_of_the_other():
    results = []
    for change in (CHANGES["any matrix"], torch.eye):
        model = refactored(adapted(), change)
        for first, _ in map(factors, layers(model)):
            first.requires_grad_(False)
        train(model, **PLAIN)
        results.append(model)
    assert difference(*results) < 1e-9


@pytest.mark.parametrize("pull", [0.0, 1.0])
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "B is zero"])
def test_a_context_card_turns_steps_of_the_product(begun, pull):
    model, moments = adapted(begun=begun), {}
    other = refactored(model, CHANGES["any matrix"])
    for name, layer in zip(("0", "2"), layers(model), strict=True):
        contexts = torch.randn(50, layer.in_features).cumsum(1)
        moments[f"{name}.weight"] = contexts.mT @ contexts / 50
    samples = {
        f"{name}.weight": sampled(layer.base_layer.weight) for name, layer in zip("02", layers(model), strict=True)
    }
    made = ContextCard({name: spectrum(moment, 4) for name, moment in moments.items()}, {}, samples, ())
    for each in (model, other):
        train(each, retain=made, retain_pull=pull, **PLAIN)
    assert difference(model, other) < 1e-4  # cards are in float32
    free = adapted(begun=begun)
    train(free, **PLAIN)
    assert difference(model, free) > 0.1


def test_adapters_of_convolutions_have_a_product_too():
    torch.manual_seed(0)
    images = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.Flatten(), torch.nn.Linear(24, 2)).double()
    model = peft.get_peft_model(images, peft.LoraConfig(r=2, target_modules=["0"])).double()
    x, results = torch.randn(8, 3, 4, 4, dtype=torch.float64), []
    for scale in (1.0, 8.0):
        twin = copy.deepcopy(model)
        first, second = factors(layers(twin)[0])
        first.data *= scale
        optimizer = CEGM(twin, lr=0.01, normalize="product", **PLAIN)
        for _ in range(5):
            (twin(x) - 1).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        results.append((second.flatten(1) @ first.flatten(1)).detach())
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)
    assert results[0].norm() > 0


def test_diagnostics_speak_of_the_direction_that_was_taken():
    model = adapted()
    optimizer = built(model, **PLAIN, weight_decay=0.0)
    before = [first.detach().clone() for first, _ in map(factors, layers(model))]
    model(torch.randn(16, 12, dtype=torch.float64)).square().mean().backward()
    optimizer.step()
    said = optimizer.diagnostics()
    for (first, _), old, name in zip(map(factors, layers(model)), before, "02", strict=True):
        moved = float((first.detach() - old).norm() / first.detach().norm())
        assert said[f"base_model.model.{name}.lora_A.default"]["update_to_weight"] == pytest.approx(moved, rel=1e-5)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cautious": True}, "cautious=True depends on how a product is factored"),
        ({"scores": "gradient"}, "set scores='uniform'"),
        ({"coefficient": "hypergradient"}, "set coefficient='constant'"),
    ],
)
def test_what_depends_on_the_factors_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        built(adapted(), **given)


def test_a_model_without_adapters_is_refused_and_so_is_rank_one_as_a_vector():
    with pytest.raises(ValueError, match="no matrix here is one"):
        CEGM(models.perceptron((12, 10, 8)), normalize="product")
    with (
        pytest.warns(UserWarning, match="single row or column"),
        pytest.raises(ValueError, match=r"for rank 1 also group_patterns=\[\('\*lora_\*', 'matrix'\)\]"),
    ):
        CEGM(adapted(rank=1), normalize="product")


def test_a_zero_factor_a_is_refused():
    model = adapted(begun=False)
    torch.nn.init.zeros_(factors(layers(model)[0])[0])
    with pytest.raises(ValueError, match=r"lora_A\.default\.weight is zero, so that neither factor could begin"):
        built(model)


def test_two_factors_under_two_rules_are_refused():
    model = adapted()
    with pytest.raises(ValueError, match="goes by another rule"):
        train(model, steps=1, group_patterns=[("*lora_A*", "adamw"), ("*lora_B*", "matrix")])


def test_a_checkpoint_of_another_normalisation_that_kept_contexts_over_the_rank_is_refused():
    model = adapted()
    saved = train(model, steps=1, normalize="polar").state_dict()
    with pytest.raises(ValueError, match="made with normalize='polar'"):
        built(model).load_state_dict(saved)
    train(model, steps=1, normalize="polar")
    built(model, normalize="frobenius").load_state_dict(saved)


def test_adapters_of_experts_which_are_stacked_in_one_weight_stay_with_polar():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = transformers.MixtralConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, num_local_experts=4)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], target_parameters=["gate_up_proj"])
    model = peft.get_peft_model(transformers.MixtralForCausalLM(config), lora)
    optimizer = CEGM(model, normalize="product")
    sides = {name: optimizer._factors.side(p) for name, p in model.named_parameters() if "lora_" in name}
    assert {side for name, side in sides.items() if "experts" in name} == {""}
    assert {side for name, side in sides.items() if "q_proj" in name} == {"A", "B"}
