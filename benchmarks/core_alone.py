"""The optimizer by itself: trains three steps, and brings nothing of the tool and none of its libraries.

    python -I benchmarks/core_alone.py

Of an installed `cegm`, in an environment that has torch and nothing else.
"""

import sys

import torch
from torch import nn

from cegm import CEGM, EntanglementLoss, explain

assert callable(explain)
assert callable(EntanglementLoss)
model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 11))
optimizer = CEGM(model, lr=0.02, refresh_every=1)
tokens = torch.arange(10).view(2, 5)
losses = []
for _ in range(3):
    loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(float(loss.detach()))
assert losses[2] < losses[0], losses
assert "demand_map" in optimizer.state[model[1].weight]
brought = {name.partition(".")[0] for name in sys.modules}
assert not [name for name in sys.modules if name.startswith("cegm.lab")]
assert not brought & {"transformers", "datasets", "pandas", "yaml", "altair", "scipy"}
