"""Training with a context card: its limits, the oracle, adapters, cards of others, resumption."""

import copy

import pytest
import torch
from torch import nn

import models
import oracle
from cegm import CEGM, card
from cegm.context.card import ContextCard, sampled, spectrum

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

FLOAT = {"precision": "float32"}


@pytest.fixture(scope="module")
def home():
    torch.manual_seed(0)
    model = models.llama()
    return model, card(model, models.batches(6), share=0.5, demands=True)


def test_power_zero_is_the_run_without_a_card_to_the_bit(home):
    model, made = home
    twins = [copy.deepcopy(model) for _ in range(2)]
    losses = [
        models.train(twin, CEGM(twin, lr=1e-2, **options), models.batches(8, seed=1))
        for twin, options in zip(twins, ({}, {"retain": made, "retain_power": 0.0}), strict=True)
    ]
    assert losses[0] == losses[1]
    assert models.weights_equal(*twins)


@pytest.mark.parametrize("normalize", ["polar", "frobenius", "adam"])
@pytest.mark.parametrize(
    ("power", "demand_power", "strength"), [(1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.0, 30.0), (1.0, 0.0, 3.0)]
)
def test_a_step_is_the_oracles(normalize, power, demand_power, strength):
    torch.manual_seed(1)
    model = models.perceptron((6, 10, 4))
    linears = {f"{i}.weight": m for i, m in enumerate(model) if isinstance(m, nn.Linear)}
    kinds = [{}, {}]
    moments = {}
    for name, layer in linears.items():
        x, d = torch.randn(50, layer.in_features).cumsum(1), torch.randn(50, layer.out_features).cumsum(1)
        moments[name] = (x.T @ x / 50, d.T @ d / 50)
        for kind, moment in zip(kinds, moments[name], strict=True):
            kind[name] = spectrum(moment, len(moment))
    made = ContextCard(*kinds, {name: sampled(layer.weight) for name, layer in linears.items()}, ())
    options = {"normalize": normalize, "gradient_power": 0, "row_moment": False, "heads": 1, **FLOAT}
    options |= {"retain_power": power, "retain_gradient_power": demand_power, "retain_pull": strength}
    options |= {"group_patterns": [("*", "matrix")]}
    optimizer = CEGM(model, lr=0.03, retain=made, **options)
    slow = [
        oracle.SlowCEGM(layer.weight.data, lr=0.03, options=optimizer.defaults, home=moments[name])
        for name, layer in linears.items()
    ]
    for _ in range(5):
        loss = (model(torch.randn(12, 6)) - 1).square().mean()
        loss.backward()
        for twin, layer in zip(slow, linears.values(), strict=True):
            nothing = torch.zeros(12, layer.in_features), torch.ones(12, layer.out_features)
            twin.step(layer.weight.grad, *nothing, loss.item())
        optimizer.step()
        optimizer.zero_grad()
    for twin, layer in zip(slow, linears.values(), strict=True):
        torch.testing.assert_close(layer.weight.detach().double(), twin.weight, rtol=0, atol=2e-5)


@pytest.mark.parametrize("strength", [0.1, 1e9])
def test_a_pull_alone_leads_back_along_home_contexts_and_never_past_the_beginning(home, strength):
    """Every eigenvector of `S` by its own factor; the strongest pull ends where the weight began, up to what home never uses."""
    model, made = home
    twin = copy.deepcopy(model)
    optimizer = CEGM(twin, lr=1e-2, retain=made, retain_pull=strength, weight_decay=0.0, **FLOAT)
    weight, entry = twin.model.layers[0].mlp.up_proj.weight, made.contexts["model.layers.0.mlp.up_proj.weight"]
    models.train(twin, optimizer, models.batches(1))
    moved = torch.randn_like(weight)
    weight.data.copy_(optimizer.state[weight]["beginning"] + moved)
    for parameter in twin.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.param_groups[0]["entanglement"] = 1.0  # nothing of the last gradient is left
    optimizer.step()
    values, vectors = torch.linalg.eigh(entry.dense().double())
    factors = 1 / (1 + 1e-2 * strength * values.clamp_min(0) / float(entry.mean))
    expected = moved.double() @ vectors * factors @ vectors.T
    found = weight.detach() - optimizer.state[weight]["beginning"]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_without_a_pull_no_beginning_is_kept(home):
    model, made = home
    twin = copy.deepcopy(model)
    optimizer = CEGM(twin, lr=1e-2, retain=made)
    models.train(twin, optimizer, models.batches(1))
    assert not any("beginning" in state for state in optimizer.state.values())


def test_a_pull_on_adapters_is_one_on_factor_a(home):
    """`B` is free: what it reads through `A` stays away from home while `A` does."""
    model, made = home
    torch.manual_seed(3)
    lora = adapted(model)
    moved = {}
    for strength in (0.0, 1e9):
        twin = copy.deepcopy(lora)
        optimizer = CEGM(twin, lr=1e-2, retain=made, retain_power=0.0, retain_pull=strength, weight_decay=0.0, **FLOAT)
        start = {n: p.detach().clone() for n, p in twin.named_parameters() if p.requires_grad}
        models.train(twin, optimizer, models.batches(4, seed=1))
        moved[strength] = {n: float((p.detach() - start[n]).norm()) for n, p in twin.named_parameters() if n in start}
    for name, free in moved[0.0].items():
        # the last step is not pulled back any more, and earlier ones in full
        assert moved[1e9][name] < 0.6 * free if ".lora_A." in name else moved[1e9][name] > 0.5 * free


def test_adams_direction_is_torchs_adamw():
    torch.manual_seed(0)
    model = models.llama()
    twin = copy.deepcopy(model)
    optimizer = CEGM(model, lr=1e-3, preset="finetune", eps=1e-8)
    decays = {p: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    pairs = list(zip(model.parameters(), twin.parameters(), strict=True))
    groups = [
        {"params": [q for p, q in pairs if decays[p] == decay], "weight_decay": decay} for decay in {*decays.values()}
    ]
    reference = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999))
    data = models.batches(10)
    torch.testing.assert_close(
        models.train(model, optimizer, data), models.train(twin, reference, data), rtol=1e-5, atol=0
    )
    for p, q in pairs:
        torch.testing.assert_close(p, q, rtol=1e-4, atol=2e-6)


def forgotten(model, before, ids):
    """Mean KL divergence of the predictions from those before, nats per token."""
    with torch.no_grad():
        old, new = (m.eval()(input_ids=ids).logits.log_softmax(-1) for m in (before, model))
    return float((old.exp() * (old - new)).sum(-1).mean())


def test_the_new_is_learned_as_well_and_home_forgotten_less():
    """At home the model counts upwards among some tokens; what is new is to count downwards among others."""
    torch.manual_seed(0)
    model = models.llama()
    start = torch.randint(0, 8, (60, 8, 1), generator=torch.Generator().manual_seed(2))
    batches = list(start + torch.arange(22))
    models.train(model, torch.optim.AdamW(model.parameters(), lr=3e-3), batches)
    model.model.embed_tokens.weight.requires_grad_(False)  # AdamW's in both runs
    made, new = card(model, batches[:10], share=1.0), [60 - ids for ids in batches]
    ends = {}
    for name, options in {"with": {"retain": made}, "without": {}}.items():
        twin = copy.deepcopy(model)
        losses = models.train(twin, CEGM(twin.train(), lr=3e-3, preset="finetune", **options), new)
        ends[name] = (losses[-1], forgotten(twin, model, batches[-1]))
    assert ends["with"][0] <= 1.1 * ends["without"][0]
    assert ends["with"][1] < 0.5 * ends["without"][1]


def adapted(model):
    return peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))


def test_adapters_begin_away_from_home_and_the_function_is_the_same(home):
    model, made = home
    ids = models.batches(1)[0]
    lora = adapted(model)
    first = {n: p.detach().clone() for n, p in lora.named_parameters() if ".lora_A." in n}
    with torch.no_grad():
        before = lora(input_ids=ids).logits
        CEGM(lora, lr=1e-2, retain=made)
        torch.testing.assert_close(lora(input_ids=ids).logits, before, rtol=0, atol=0)
    for name, parameter in lora.named_parameters():
        if ".lora_A." in name:
            entry = made.contexts[name.removeprefix("base_model.model.").replace(".lora_A.default", "")]
            expected = first[name].double() @ oracle.phi(entry.dense(), -1.0, 0.01)
            expected *= first[name].norm() / expected.norm()
            torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-4, atol=1e-5)
            assert float(entry.energy(parameter.detach())) < float(entry.energy(first[name]))


def test_adapters_that_have_begun_stay_as_they_are(home):
    model, made = home
    lora = adapted(model)
    models.train(lora, CEGM(lora, lr=1e-2), models.batches(2))
    weights = copy.deepcopy(lora.state_dict())
    CEGM(lora, lr=1e-2, retain=made)
    assert all(torch.equal(weights[name], value) for name, value in lora.state_dict().items())


def test_updates_of_factor_a_keep_away_from_home(home):
    model, made = home
    shares = {}
    for power in (0.0, 1.0):
        lora = adapted(model)
        optimizer = CEGM(lora, lr=1e-2, retain=made, retain_power=power, **FLOAT)
        start = {n: p.detach().clone() for n, p in lora.named_parameters() if ".lora_A." in n}
        models.train(lora, optimizer, models.batches(5, seed=1))
        moved = {n: p.detach() - start[n] for n, p in lora.named_parameters() if n in start}
        entries = {n: made.contexts[n.removeprefix("base_model.model.").replace(".lora_A.default", "")] for n in moved}
        shares[power] = [float(entries[n].energy(step)) for n, step in moved.items()]
    assert all(kept < 0.5 * free for kept, free in zip(shares[1.0], shares[0.0], strict=True))


def test_a_card_of_another_model_is_refused_with_both_hashes(home):
    _, made = home
    torch.manual_seed(77)
    with pytest.raises(ValueError, match="no offspring of it"):
        CEGM(models.llama(), retain=made)
    with pytest.raises(ValueError, match="knows none of the weights"):
        CEGM(models.perceptron(), retain=made, group_patterns=[("*", "matrix")])
    with pytest.raises(ValueError, match="pass model="):
        CEGM([nn.Parameter(torch.randn(4, 4))], retain=made)


def test_a_layer_that_the_card_does_not_know_is_refused(home):
    model, made = home
    twin = copy.deepcopy(model)
    twin.model.layers[0].mlp.extra = nn.Linear(32, 32, bias=False)
    with pytest.raises(ValueError, match=r"nothing on model\.layers\.0\.mlp\.extra"):
        CEGM(twin, retain=made)
    twin.model.layers[0].mlp.extra.requires_grad_(False)
    CEGM(twin, retain=made)


def test_a_layer_that_home_text_never_met_is_free():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.usual, self.rare = nn.Embedding(9, 8), nn.Linear(8, 12), nn.Linear(8, 12)
            self.head, self.is_home = nn.Linear(12, 9), True

        def forward(self, tokens):
            return self.head((self.usual if self.is_home else self.rare)(self.embedding(tokens)).tanh())

    model = Gated()
    made = card(model, [torch.randint(0, 9, (4, 10))], share=1.0)
    assert "usual.weight" in made.contexts
    assert "rare.weight" not in made.contexts
    moved = {}
    for power in (0.0, 1.0):
        twin = copy.deepcopy(model)
        twin.is_home = False
        optimizer = CEGM(twin, lr=1e-2, retain=made, retain_power=power)
        logits = twin(torch.arange(9)[None])
        nn.functional.cross_entropy(logits[0], torch.arange(9)).backward()
        optimizer.step()
        moved[power] = twin.rare.weight.detach()
    assert torch.equal(moved[0.0], moved[1.0])


def test_a_run_goes_on_to_the_bit_and_only_with_its_card(home, tmp_path):
    model, made = home
    path = made.save(tmp_path / "card.safetensors")
    data = models.batches(8, seed=1)
    for options in ({}, {"preset": "finetune"}, {"preset": "finetune", "retain_pull": 3.0}):
        whole, half = copy.deepcopy(model), copy.deepcopy(model)
        expected = models.train(whole, CEGM(whole, lr=1e-3, retain=path, **options), data)
        optimizer = CEGM(half, lr=1e-3, retain=path, **options)
        models.train(half, optimizer, data[:4])
        state = copy.deepcopy(optimizer.state_dict())
        again = CEGM(half, lr=1e-3, retain=str(path), **options)
        again.load_state_dict(state)
        assert models.train(half, again, data[4:]) == expected[4:]
        assert models.weights_equal(whole, half)
    with pytest.raises(ValueError, match="retain="):
        CEGM(half, lr=1e-3, preset="finetune").load_state_dict(state)


def test_diagnostics_say_how_much_of_the_direction_points_home(home):
    model, made = home
    twin = copy.deepcopy(model)
    optimizer = CEGM(twin, lr=1e-2, retain=made)
    loss = twin(input_ids=(ids := models.batches(1)[0]), labels=ids).loss
    loss.backward()
    optimizer.step()
    entry = optimizer.diagnostics()["model.layers.0.mlp.up_proj"]
    assert entry["home"] > 0
    plain = CEGM(twin, lr=1e-2)
    plain.step()
    assert "home" not in plain.diagnostics()["model.layers.0.mlp.up_proj"]
