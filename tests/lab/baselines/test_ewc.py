"""The Fisher diagonal that elastic weight consolidation weighs weights by, and where it is kept."""

import copy

import pytest
import torch
from torch import nn

import models
from cegm.lab.baselines import build_optimizer
from cegm.lab.baselines.ewc import diagonal_fisher

pytest.importorskip("transformers")


def test_it_is_the_expectation_over_labels_of_the_squared_gradient_of_a_token():
    """Of logits `W x`: `p_i (1 - p_i) x_j^2`; rows of several tokens, whose gradients a pass adds up before they are squared."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5, bias=False)).train()
    model[0].weight.requires_grad_(False)
    model[1].weight.grad = torch.ones(5, 4)
    rows = torch.randint(0, 7, (3000, 3))
    found = diagonal_fisher(model, rows)
    x = model[0](rows).flatten(0, 1).double()
    p = (x @ model[1].weight.detach().double().T).softmax(-1)
    expected = (p * (1 - p)).T @ x.square() / len(x)
    errors = torch.eye(5, dtype=torch.float64)[torch.multinomial(p, 100, replacement=True)] - p[:, None]
    drawn = torch.einsum("rtsi,rtj->rsij", errors.unflatten(0, (3000, 3)), x.unflatten(0, (3000, 3)))
    spread = drawn.square().sum(0).div(len(x)).std(0)  # of the estimate, over a hundred draws
    assert found.keys() == {"1.weight"}
    assert float(((found["1.weight"] - expected) / spread).abs().max()) < 4
    assert float((spread / expected).max()) < 0.2  # so that this says something
    assert model.training
    assert torch.equal(model[1].weight.grad, torch.ones(5, 4))


def test_it_is_kept_in_the_state_and_a_run_goes_on_without_it_to_the_bit():
    model, data = models.llama(), models.batches(8)
    fisher = diagonal_fisher(model, models.batches(1, seed=3)[0])
    optimizer = build_optimizer("ewc", model, lr=1e-2, penalty=100.0, retain=fisher)
    models.train(model, optimizer, data[:4])
    twin = copy.deepcopy(model)
    resumed = build_optimizer("ewc", twin, lr=1e-2, penalty=100.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert models.train(model, optimizer, data[4:]) == models.train(twin, resumed, data[4:])
    assert models.weights_equal(model, twin)


def test_a_copy_before_the_first_step_has_it_too():
    model, data = models.llama(), models.batches(4)
    optimizer = build_optimizer(
        "ewc", model, lr=1e-2, penalty=100.0, retain=diagonal_fisher(model, models.batches(1, seed=3)[0])
    )
    twin, copied = copy.deepcopy((model, optimizer))
    assert models.train(twin, copied, data) == models.train(model, optimizer, data)


def test_weights_that_the_text_needs_move_less():
    """Of two weights that a loss pulls alike, the one with the larger Fisher entry stays."""
    weight = nn.Linear(2, 2, bias=False)
    fisher = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    optimizer = build_optimizer("ewc", weight, lr=0.01, weight_decay=0.0, penalty=1.0, retain={"weight": fisher})
    before = weight.weight.detach().clone()
    for _ in range(50):
        weight.weight.grad = torch.ones(2, 2)
        optimizer.step()
    moved = (weight.weight.detach() - before).abs()
    assert moved[fisher > 0].max() < 0.2 * moved[fisher == 0].min()


def test_a_fisher_diagonal_of_another_model_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        build_optimizer("ewc", models.llama(), retain={"weight": torch.ones(3)})
