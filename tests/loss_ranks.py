"""What one of two data-parallel processes does with the entanglement loss; spawned, so it has to be a module of its own."""

from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn

from cegm import EntanglementLoss
from ranks import PATIENCE

LOSS = EntanglementLoss(0.5)


class Words(nn.Module):
    """An embedding, a layer and a head tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding, self.layer, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9)
        self.head.weight = self.embedding.weight

    def get_output_embeddings(self):
        return self.head

    def forward(self, tokens):
        return SimpleNamespace(logits=self.head(self.layer(self.embedding(tokens)).tanh()))


def setting():
    """Model, tokens (rows, tokens) and labels of unequal length, the same in every process."""
    torch.manual_seed(0)
    tokens = torch.randint(9, (4, 5))
    labels = tokens.masked_fill(torch.rand(4, 5) < 0.3, -100)
    return Words(), tokens, labels, (labels[:, 1:] != -100).sum()


def train(rank, folder):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=PATIENCE
    )
    torch.save(gradients(rank), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def gradients(rank):
    """Gradients of this process's half; a function of its own for the reason that `ranks.trained` is one."""
    model, tokens, labels, count = setting()
    parallel = nn.parallel.DistributedDataParallel(model)
    loss = LOSS.for_model(parallel)
    mine = slice(2 * rank, 2 * rank + 2)
    (loss(parallel(tokens[mine]), labels[mine], count) * 2).backward()  # as Trainer scales it
    return [parameter.grad for parameter in model.parameters()]
