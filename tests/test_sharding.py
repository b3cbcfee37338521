import copy
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

import shards
from cegm import CEGM, card, explain
from cegm.lab.baselines import build_optimizer
from cegm.sharding import Travelling
from shards import FAST, ON_FOUR, PRODUCT, Whole, Words


def start(world, folder, jobs):
    """What each of `world` processes returned, by name of the job."""
    mp.start_processes(shards.run, args=(world, str(folder), jobs), nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"{world}-{rank}.pt", weights_only=True) for rank in range(world)]


def deviation(found, expected):
    """Largest difference of two sets of weights."""
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


def agree_with_one_process(results, cases, ways):
    """Deviations above 1e-6 from one process with the whole batch, or between ranks; controls that draw are compared across ways.

    Where it is above, one process may deviate as far from itself: then it is what float32 makes of another order of sums.
    """
    wrong = {}
    for case, options in cases.items():
        expected = results[0][ways[0], case] if shards.draws(options) else shards.alone(Words, options)
        for way in ways:
            far = max(deviation(result[way, case], expected) for result in results)
            if far > 1e-6 and far > 1.5 * rounding(options, expected):
                wrong[way, case] = far
    return wrong


def rounding(options, expected):
    """How far one process is from itself when the rows of its batches stand in another order."""
    orders = [torch.randperm(shards.ROWS, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    return max(deviation(shards.alone(Words, options, part=order), expected) for order in orders)


def jobs(cases, ways):
    return [((way, case), getattr(shards, way), (Words, options)) for case, options in cases.items() for way in ways]


# ---------------------------------------------------------------------- many processes


WHOLE = {scores: {"scores": scores} for scores in ("uniform", "gradient")}
"""Whose sums are of whole numbers."""


@pytest.mark.timeout(900)  # fifty seconds on a free machine
def test_four_and_two_processes_do_what_one_does(tmp_path):
    to_the_bit = [(("whole", name), shards.under_fsdp, (Whole, options)) for name, options in WHOLE.items()]
    to_the_bit.append((("whole", "replicas"), shards.under_replicas, (Whole, WHOLE["gradient"])))
    longer = {"momentum_kernel": "two"}  # so that the state has every kind of entry
    saving = ("saved", shards.checkpoint, (Whole, longer))
    on_four = {name: FAST[name] for name in ON_FOUR}
    four = start(4, tmp_path, [*jobs(on_four, ["under_fsdp"]), *to_the_bit, saving, ("owners", shards.owners, ())])
    assert agree_with_one_process(four, on_four, ["under_fsdp"]) == {}
    for name, options in {**WHOLE, "replicas": WHOLE["gradient"]}.items():
        assert deviation(four[3]["whole", name], shards.alone(Whole, options)) == 0.0

    saved, end = four[0]["saved"]["saved"], four[0]["saved"]["end"]
    assert deviation(shards.resumed(shards.model(Whole), Whole, longer, saved, slice(None)), end) == 0.0
    resuming = ("resumed", shards.resumed_under_fsdp, (Whole, longer, saved))
    two = start(2, tmp_path, [*jobs(FAST, ["under_fsdp", "under_ddp"]), resuming, ("failures", shards.failures, ())])
    assert agree_with_one_process(two, FAST, ["under_fsdp", "under_ddp"]) == {}
    assert all(deviation(result["resumed"], end) == 0.0 for result in two)

    check_owners([result["owners"] for result in four])
    check_failures([result["failures"] for result in two])


def check_owners(told):
    """Every rank knows the same owners, work is spread, state lies with the owner alone, and all can save and see all of it."""
    net = shards.model(Words)
    optimizer = shards.optimizer_of(net, {})
    shards.loss_of(Words, net, 0, slice(None)).backward()
    norm = float(nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None]))
    optimizer.step()
    work = {a.name: sum(math.prod(m.shape) * min(m.shape) for m in a.matrices()) for a in optimizer.matrices()}
    expected = optimizer.diagnostics()
    owners = told[0]["owners"]
    assert owners.keys() == work.keys()
    loads = [sum(work[name] for name in owners if owners[name] == rank) for rank in range(4)]
    assert max(loads) <= sum(loads) / 4 + max(work.values())
    for rank, each in enumerate(told):
        assert each["owners"] == owners
        assert each["kept"] == [n for n, owner in owners.items() if owner == rank and "unused" not in n]
        assert each["keys"] == {n: sorted(state) for n, state in shards.named_state(net, optimizer).items()}
        assert each["norm"] == pytest.approx(norm, rel=1e-6)  # of all shards, not of one's own
        assert each["diagnosed"].keys() == expected.keys()
        for name, numbers in expected.items():
            assert each["diagnosed"][name] == pytest.approx(numbers, rel=1e-3, nan_ok=True)


def check_failures(told):
    """What goes wrong on one rank ends on all of them, at the same point, before a weight has moved."""
    for each in told:
        assert math.isnan(each["norm"])
        assert "3 times in a row" in each["failed"]
        assert each["moved"] is False
        assert [message for message in each["unseen"] if "bypassed.weight has a gradient" in message]
        assert "1.weight is sharded over other ranks than others" in each["meshes"]
    assert sum(each["failed"].startswith("another rank stopped") for each in told) == 1


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("world", [2, 4])
def test_every_score_hierarchy_and_normalisation_does_what_one_process_does(tmp_path, world):
    ways = ["under_fsdp", "under_ddp"]
    assert agree_with_one_process(start(world, tmp_path, jobs(PRODUCT, ways)), PRODUCT, ways) == {}


# ---------------------------------------------------------------------- one process


@pytest.fixture
def mesh(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/alone", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 8, 9])
def test_rows_are_cut_as_torch_cuts_them(height, ranks):
    whole = torch.arange(height)
    chunks = [each.tolist() for each in whole.chunk(ranks)]
    travelling = Travelling(0, (height, 5), torch.float32, None)
    cut = [whole[slice(*travelling.rows(rank, ranks))].tolist() for rank in range(ranks)]
    assert cut == chunks + [[]] * (ranks - len(chunks))
    assert [travelling.entries(rank, ranks) for rank in range(ranks)] == [5 * len(rows) for rows in cut]


def test_a_mesh_of_one_is_one_process_to_the_bit(mesh):
    options = FAST["attention, block, polar"]
    assert deviation(shards.under_fsdp(Words, options, range(5)), shards.alone(Words, options, range(5))) == 0.0


def test_adapters_in_shards_begin_away_from_home_as_whole_ones_do(mesh):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
    made = card(base, [torch.randn(40, 6)], share=1.0)
    alone = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["0", "2"]))
    before = {name: p.detach().clone() for name, p in alone.named_parameters() if "lora_A" in name}
    shared = fully_shard(copy.deepcopy(alone), mesh=mesh)
    for net in (alone, shared):
        CEGM(net, lr=1e-3, retain=made, group_patterns=[("*lora_A*", "matrix"), ("*lora_B*", "matrix")])
    theirs = dict(shared.named_parameters())
    for name, weight in alone.named_parameters():
        assert torch.equal(theirs[name].full_tensor(), weight)
        assert name not in before or not torch.equal(before[name], weight)


def test_a_whole_state_loads_into_shards_and_back(mesh):
    whole, halves = shards.model(Whole), shards.sharded(Whole)
    first, second = shards.optimizer_of(whole, {}), shards.optimizer_of(halves, {})
    shards.train(Whole, whole, first, range(5))
    second.load_state_dict(first.state_dict())
    saved = second.state_dict()["state"]
    for number, own in first.state_dict()["state"].items():
        assert saved[number].keys() == own.keys()
        for key, value in own.items():
            loaded = saved[number][key]
            assert torch.equal(loaded.full_tensor() if hasattr(loaded, "full_tensor") else loaded, value)


def test_micro_batches_that_are_summed_later_keep_their_contexts(mesh):
    net, whole = shards.sharded(Whole), shards.model(Whole)
    optimizers = [shards.optimizer_of(each, {}) for each in (net, whole)]
    for each, optimizer in zip((net, whole), optimizers, strict=True):
        for part in (slice(0, 4), slice(4, 8)):
            if each is net:
                net.set_requires_gradient_sync(part.stop == 8)
            shards.loss_of(Whole, each, 0, part).backward()
        optimizer.step()
    found = [optimizer.state_dict()["state"][0]["demand_map"] for optimizer in optimizers]
    assert torch.equal(found[0].full_tensor(), found[1])


def test_an_optimizer_from_before_the_sharding_is_refused(mesh):
    net = shards.model(Whole)
    optimizer = CEGM(net)
    for layer in net.layers:
        fully_shard(layer)
    fully_shard(net)
    shards.loss_of(Whole, net, 0, slice(None)).backward()
    with pytest.raises(ValueError, match=r"layers\.0\.weight was replaced .* build it after fully_shard"):
        optimizer.step()


def test_parameters_that_were_exchanged_in_the_groups_are_refused():
    net = shards.model(Whole)
    optimizer = CEGM(net)
    optimizer.param_groups[0]["params"][0] = nn.Parameter(torch.zeros(3, 7))
    with pytest.raises(ValueError, match="was replaced after CEGM was built"):
        optimizer.step()


def test_a_model_that_is_sharded_in_part_is_refused(mesh):
    net = shards.model(Whole)
    fully_shard(net.layers[1])
    with pytest.raises(ValueError, match=r"layers\.\d\.\w+ is not sharded .* fully_shard on the whole model"):
        CEGM(net)


def test_columns_that_are_cut_are_refused(mesh):
    net = nn.Linear(4, 4, bias=False)
    net.weight = nn.Parameter(distribute_tensor(net.weight.detach(), mesh, [Shard(1)]))
    with pytest.raises(ValueError, match=r"weight is placed as .* CEGM takes rows cut over one mesh dimension"):
        CEGM(net)


@pytest.mark.parametrize("method", ["shampoo", "mac"])
def test_peers_that_need_whole_matrices_refuse_shards(mesh, method):
    with pytest.raises(ValueError, match=r"is sharded; .* needs whole matrices, use DDP"):
        build_optimizer(method, shards.sharded(Whole))


def test_an_explanation_wants_whole_weights(mesh):
    net = shards.sharded(Whole)
    with pytest.raises(ValueError, match=r"is sharded; .* in one process"):
        explain(net, CEGM(net), torch.zeros(1, 3, dtype=torch.int64))
