"""What the processes of a distributed test do; a module of its own, because a started process has to import it by name."""

import copy
import itertools
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from cegm import CEGM, card
from cegm.context.scores import DRAWN
from cegm.options import OPTIONS

PATIENCE = timedelta(minutes=2)
"""How long one process waits for the others."""

STEPS, ROWS = 20, 8
FULL = StateDictOptions(full_state_dict=True)

BASE = {
    "lr": 5e-4,
    "refresh_every": 3,
    "power": -0.5,
    "gradient_power": -0.5,
    "recurrence": 0.5,
    "precision": "float32",
}

FAST = {
    "attention, block, polar": {"scores": "attention", "hierarchy": "block"},
    "gradient, model, spectral": {"scores": "gradient", "hierarchy": "model", "normalize": "spectral"},
    "alignment, layer, frobenius": {"scores": "alignment", "normalize": "frobenius"},
    "uniform, layer, none": {"normalize": "none", "layer_scale": "none", "cautious": True},
    "random, block, polar": {"scores": "random", "hierarchy": "block"},
    "shuffled, layer, polar": {"scores": "shuffled"},
    "map first": {"map_first": True, "gradient_power": 0.0, "flow_time": 1.0},
    "hypergradient": {"coefficient": "hypergradient"},
    "four running means": {"momentum_kernel": "log", "coefficient_period": 12, "scores": "alignment"},
    "progress": {"coefficient": "progress", "coefficient_step": 0.5, "recurrence": 0.0},
    "Muon": {"power": 0.0, "gradient_power": 0.0, "row_moment": False, "entanglement": 0.05},
    "NorMuon": {"power": 0.0, "gradient_power": 0.0},
    "Adam's direction": {"power": 0.0, "gradient_power": 0.0, "normalize": "adam", "row_moment": False},
    "retained": {"retained": True, "retain_gradient_power": 0.5, "retain_pull": 30.0},
}
"""Options of CEGM, by name: every score, hierarchy and normalisation once, and what else meets the exchange of gradients."""

ON_FOUR = [*list(FAST)[:4], "hypergradient", "Muon"]
"""Those that four processes run, too; they are slow on two cores."""

PRODUCT = {
    f"{scores}, {hierarchy}, {normalize}": {"scores": scores, "hierarchy": hierarchy, "normalize": normalize}
    for scores, hierarchy, normalize in itertools.product(
        *(OPTIONS[name].choices for name in ("scores", "hierarchy", "normalize"))
    )
    if normalize not in ("adam", "product")  # which goes with no map, which goes with adapters alone
}
"""All of them with each other."""


def draws(options):
    """Whether numbers are drawn, of which each process has its own, so that one process cannot agree."""
    return options.get("scores") in DRAWN


class Conv1D(nn.Module):
    """A linear layer that stores (inputs, outputs), as GPT-2's."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.nf = outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x):
        return x @ self.weight


class Experts(nn.Module):
    """One matrix for each of five positions, stacked; four ranks cannot share them evenly, and the last is never called."""

    def __init__(self):
        super().__init__()
        self.num_experts = 6
        self.weight = nn.Parameter(torch.randn(6, 4, 6) / 3)

    def forward(self, x):
        positions = [nn.functional.linear(each, self.weight[i]) for i, each in enumerate(x.unbind(1))]
        return torch.stack(positions, dim=1)


class Block(nn.Module):
    """Shapes that four ranks cannot share evenly; `side` has three rows, so that one of them gets nothing."""

    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(6)  # one of full rank: what a polar factor makes of a rank that is missing is rounding
        self.num_heads = 3
        self.c_attn = Conv1D(18, 6)  # three fused weights, stored upright
        self.up = nn.Linear(18, 7)
        self.out = nn.Linear(7, 6, bias=False)
        self.side = nn.Linear(6, 3, bias=False)
        self.unused = nn.Linear(4, 4)  # without a gradient, on all ranks

    def forward(self, x):
        return x + self.out(self.up(self.c_attn(self.norm(x)).tanh()).tanh()), self.side(x)


class Words(nn.Module):
    """An embedding, two blocks, and a kernel over positions."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.layers = nn.ModuleList([Block(), Block()])
        self.kernel = nn.Conv1d(6, 5, 3)
        self.experts = Experts()

    def forward(self, tokens):
        x, sides = self.embedding(tokens), []
        for layer in self.layers:
            x, side = layer(x)
            sides.append(side)
        return torch.cat(
            [self.kernel(x.mT).flatten(1), self.experts(x).flatten(1), *(side.flatten(1) for side in sides)], dim=1
        )


class Whole(nn.Module):
    """Layers side by side; gradients of inputs and weights are whole numbers over powers of two, which sums keep exactly."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(7, 3), nn.Linear(7, 5), nn.Linear(7, 5), nn.Linear(7, 14, bias=False)])

    def forward(self, x):
        return torch.cat([layer(x) for layer in self.layers], dim=-1)


def model(kind=Words):
    torch.manual_seed(0)
    return kind()


def batch(kind, step):
    """Input and what the output is compared with, of all processes together."""
    generator = torch.Generator().manual_seed(step)
    if kind is Words:
        return torch.randint(11, (ROWS, 5), generator=generator), None
    return (torch.randint(-3, 4, shape, generator=generator).float() for shape in ((ROWS, 7), (ROWS, 27)))


def loss_of(kind, net, step, part):
    """The mean over this process's rows."""
    given, demands = batch(kind, step)
    output = net(given[part])
    return output.square().mean() if demands is None else (output * demands[part]).sum(-1).mean()


def train(kind, net, optimizer, steps, part=slice(None)):
    for step in steps:
        loss = loss_of(kind, net, step, part)
        loss.backward()
        optimizer.observe_loss(loss)
        optimizer.step()
        optimizer.zero_grad()


def optimizer_of(net, options):
    options = dict(options)
    if options.pop("retained", False):
        home = [batch(Words, step)[0] for step in range(100, 106)]
        options["retain"] = card(model(Words), home, share=1.0, demands=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return CEGM(net, **{**BASE, **options})


def alone(kind, options, steps=range(STEPS), part=slice(None)):
    """Weights after training in one process on whole batches, or on these of their rows."""
    net = model(kind)
    train(kind, net, optimizer_of(net, options), steps, part)
    return net.state_dict()


def mine():
    """Rows of this process."""
    rows = ROWS // dist.get_world_size()
    return slice(dist.get_rank() * rows, (dist.get_rank() + 1) * rows)


def sharded(kind, mesh=None):
    net = model(kind)
    for layer in net.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def under_fsdp(kind, options, steps=range(STEPS), mesh=None):
    net = sharded(kind, mesh)
    train(kind, net, optimizer_of(net, options), steps, mine())
    return get_model_state_dict(net, options=FULL)


def under_replicas(kind, options):
    """Two replicas, each in shards on half of the processes."""
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("replicate", "shard"))
    return under_fsdp(kind, options, mesh=mesh)


def under_ddp(kind, options, steps=range(STEPS)):
    net = model(kind)
    optimizer = optimizer_of(net, options)
    parallel = nn.parallel.DistributedDataParallel(net, find_unused_parameters=kind is Words)
    train(kind, parallel, optimizer, steps, mine())
    return {name: weight.detach().clone() for name, weight in net.state_dict().items()}


def checkpoint(kind, options):
    """Half of the training, and what is saved then; and the end."""
    net = sharded(kind)
    optimizer = optimizer_of(net, options)
    train(kind, net, optimizer, range(STEPS // 2), mine())
    saved = {
        "model": {name: w.clone() for name, w in get_model_state_dict(net, options=FULL).items()},
        "optimizer": copy.deepcopy(
            get_optimizer_state_dict(net, optimizer, options=FULL)
        ),  # some of it is still in use
    }
    train(kind, net, optimizer, range(STEPS // 2, STEPS), mine())
    return {"saved": saved, "end": get_model_state_dict(net, options=FULL)}


def resumed(net, kind, options, saved, part):
    """The end of the training, from what was saved."""
    optimizer = optimizer_of(net, options)
    set_model_state_dict(net, saved["model"], options=FULL)
    # A copy, because torch goes on counting the steps of AdamW in what it was given.
    set_optimizer_state_dict(net, optimizer, copy.deepcopy(saved["optimizer"]), options=FULL)
    train(kind, net, optimizer, range(STEPS // 2, STEPS), part)
    return get_model_state_dict(net, options=FULL)


def resumed_under_fsdp(kind, options, saved):
    return resumed(sharded(kind), kind, options, saved, mine())


def owners():
    """Who owns what and keeps its state, and what every rank is told after one step."""
    net = sharded(Words)
    optimizer = optimizer_of(net, {})
    loss_of(Words, net, 0, mine()).backward()
    norm = nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
    optimizer.step()
    return {
        "owners": {a.name: optimizer._owners._owner[a.parameter] for a in optimizer.matrices()},
        "kept": [a.name for a in optimizer.matrices() if "momentum" in optimizer.state[a.parameter]],
        "keys": {name: sorted(each) for name, each in named_state(net, optimizer).items()},
        "diagnosed": optimizer.diagnostics(),
        "norm": float(norm.full_tensor()),
    }


def named_state(net, optimizer):
    return get_optimizer_state_dict(net, optimizer)["state"]


def failures():
    """How each process ends when something goes wrong on one of them."""
    return {
        "norm": norm_of_a_bad_gradient(),
        **refused_contexts(),
        "unseen": warnings_of_a_bypassed_layer(),
        "meshes": error_of_two_meshes(),
    }


def norm_of_a_bad_gradient():
    net = sharded(Words)
    loss = loss_of(Words, net, 0, mine())
    (loss * float("nan") if dist.get_rank() == 0 else loss).backward()
    return float(nn.utils.clip_grad_norm_(net.parameters(), 1.0).full_tensor())


def refused_contexts():
    """The owner of the only matrix meets contexts that are not finite, three times."""
    torch.manual_seed(0)
    net = fully_shard(nn.Linear(4, 3, bias=False))
    optimizer = CEGM(net, refresh_every=1)
    for _ in range(3):
        net(torch.randn(5, 4)).square().mean().backward()
        (recorder,) = optimizer._contexts._recorders.values()
        (layer,) = recorder.layers
        layer.demand_carrier.grad.fill_(float("nan"))
        before = net.weight.full_tensor().clone()
        try:
            optimizer.step()
        except RuntimeError as error:
            return {"failed": str(error), "moved": not torch.equal(before, net.weight.full_tensor())}
        optimizer.zero_grad()
    return {"failed": "", "moved": True}


def error_of_two_meshes():
    meshes = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("one", "all"))
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    for layer, name in zip(net, ("one", "all"), strict=True):
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), meshes[name], [Shard(0)]))
    try:
        CEGM(net)
    except ValueError as error:
        return str(error)
    return ""


class Bypassed(nn.Module):
    """Uses the weight of one layer without calling it."""

    def __init__(self):
        super().__init__()
        self.seen, self.bypassed = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.linear(self.seen(x), self.bypassed.weight)


def warnings_of_a_bypassed_layer():
    net = Bypassed()
    net.bypassed.bias.requires_grad_(False)
    optimizer = CEGM(net)
    parallel = nn.parallel.DistributedDataParallel(net)
    parallel(torch.randn(5, 4)).square().mean().backward()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        optimizer.step()
    return [str(each.message) for each in told]


def run(rank, world, folder, jobs):
    """Does jobs, (name, function, arguments), and keeps what they return for each process."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous-{world}", rank=rank, world_size=world, timeout=PATIENCE
    )
    results = {name: function(*arguments) for name, function, arguments in jobs}
    torch.save(results, f"{folder}/{world}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
