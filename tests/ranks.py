"""What one of two data-parallel processes does; a module of its own, because a spawned process has to import it by name."""

from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import models
from cegm import CEGM

PATIENCE = timedelta(minutes=2)
"""How long one process waits for the other: a test that hangs says why sooner than after gloo's half hour."""


def in_two(function, folder, *options):
    """What each of two processes saved that ran the function."""
    mp.start_processes(function, args=(str(folder), *options), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def setting(options):
    """Model and optimizer, the same in every process."""
    torch.manual_seed(0)
    model = models.perceptron((6, 8, 4))
    return model, CEGM(model, lr=1e-2, refresh_every=2, power=-0.5, precision="float32", **options)


def batches():
    return [torch.randn(8, 6, generator=torch.Generator().manual_seed(step)) for step in range(6)]


def alone(options, order=slice(None)):
    """Weights after training in one process, on the rows of each batch in some order."""
    model, optimizer = setting(options)
    for batch in batches():
        loss = model(batch[order]).square().mean()
        loss.backward()
        optimizer.observe_loss(loss)
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def train(rank, folder, options):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=PATIENCE
    )
    torch.save(trained(rank, options), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def trained(rank, options):
    """Weights after training on this process's half of each batch.

    A function of its own, so that the parallel model is gone before the process group is destroyed: the model's reducer
    holds the group too, and when it is the last to let go it waits, with the interpreter's lock held, for a thread that
    needs that lock.
    """
    model, optimizer = setting(options)
    parallel = nn.parallel.DistributedDataParallel(model)
    for batch in batches():
        loss = parallel(batch.split(4)[rank]).square().mean()
        loss.backward()
        optimizer.observe_loss(loss)
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()
