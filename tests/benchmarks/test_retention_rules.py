"""Rules of retention.py and of its stream: lines, mixtures, what adds up, and that every rule's optimizer can be built and moves a weight."""

import numpy as np
import pytest
import torch

pytest.importorskip("peft")

import retention
import retention_stream
from cegm import card
from cegm.lab.baselines.ewc import diagonal_fisher


def test_a_run_has_a_line_for_each_share_of_its_mixture():
    assert retention.lines_of("adamw") == {"adamw": 1.0}
    assert retention.lines_of("wise_ft") == {"wise_ft_30": 0.3, "wise_ft_50": 0.5, "wise_ft_70": 0.7, "wise_ft_90": 0.9}


@pytest.fixture(scope="module")
def bench():
    """A bench whose model knows nothing, with texts of random bytes."""
    made = object.__new__(retention.Bench)
    torch.manual_seed(0)
    made.model = retention.Reader()
    made._cards, made._fishers = {}, {}
    made.text = lambda kind, count=2: torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(len(kind)))
    return made


@pytest.mark.parametrize(
    "name", ["adamw", "l2_sp_10", "ewc_100", "muon_own_pull_10", "lora_adamw", "lora_null", "lora_muon_own"]
)
def test_the_optimizer_of_a_rule_trains_what_it_should(bench, name, monkeypatch):
    monkeypatch.setattr(retention, "card", lambda *given, **options: card(*given, **{**options, "share": 0.1}))
    rule, model = retention.RULES[name], retention.copy.deepcopy(bench.model).train()
    if "lora" in rule:
        model = retention.adapted(model, rule["lora"], seed=0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = bench.optimizer(model, rule, 0.01, {})
    for _ in range(2):
        retention.loss_of(model, bench.text("own")).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    matrices = {n for n in before if "_proj" in n}
    assert moved == ({n for n in matrices if "lora_" in n} if "lora" in rule else matrices)


def test_a_shuffled_stream_has_the_same_rows_in_another_order():
    stream = object.__new__(retention_stream.Stream)
    stream.texts = {n: np.full(3000, i, dtype=np.uint8) for i, n in enumerate(retention_stream.KINDS)}
    first, second = (stream.stages(order, np.random.default_rng(0)) for order in retention_stream.ORDERS)
    kinds = [[int(row[0]) for row in stage.flatten(0, 1)] for stage in first]
    assert [set(each) for each in kinds] == [{0}, {1}, {2}, {3}]
    assert first[0].shape == second[0].shape == (retention.STEPS, retention.ROWS, retention.LENGTH)
    shuffled = [int(row[0]) for stage in second for row in stage.flatten(0, 1)]
    assert sorted(shuffled) == sorted(kind for each in kinds for kind in each)
    assert all(len({int(row[0]) for row in stage.flatten(0, 1)}) == 4 for stage in second)


def test_replay_takes_its_share_of_rows_from_before():
    stage, taught = torch.zeros(100, 8, 4, dtype=torch.int64), torch.ones(50, 4, dtype=torch.int64)
    found = retention_stream.mixed(stage, taught, 0.25, np.random.default_rng(0))
    assert float(found.float().mean()) == pytest.approx(0.25, abs=0.05)
    assert torch.equal(retention_stream.mixed(stage, taught, 0.0, np.random.default_rng(0)), stage)


def test_what_is_known_adds_up_over_stages(bench):
    rows = bench.text("own")
    cards = [card(bench.model, [rows], share=0.1) for _ in range(2)]
    both = retention_stream.added(*cards)
    name = next(iter(both.contexts))
    torch.testing.assert_close(both.contexts[name].mean, 2 * cards[0].contexts[name].mean, rtol=1e-4, atol=0)
    fisher = diagonal_fisher(bench.model, rows)
    assert torch.equal(retention_stream.added(fisher, fisher)[name], 2 * fisher[name])
    assert retention_stream.added(None, cards[0]) is cards[0]


def test_the_table_has_means_over_seeds():
    line = {"order": "stream", "rule": "adamw", "rate": 0.001, "final": {"novels": 1.0, "irc": 2.0}}
    lines = [{**line, "seed": seed, "average_forgetting": forgotten} for seed, forgotten in ((0, 0.1), (1, 0.3))]
    assert retention_stream.table(lines).splitlines()[-1].split() == [
        "stream", "adamw", "0.001", "2", "0.200", "1.000", "2.000",
    ]  # fmt: skip
