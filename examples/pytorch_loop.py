"""CEGM in a plain PyTorch loop: three lines differ from AdamW. Run: `python examples/pytorch_loop.py`."""

import torch
from torch import nn

from cegm import CEGM

torch.manual_seed(0)
model = nn.Sequential(nn.Embedding(64, 32), nn.Linear(32, 96), nn.GELU(), nn.Linear(96, 32), nn.Linear(32, 64))
optimizer = CEGM(model, lr=0.02)
print(optimizer.summary())

tokens = torch.randint(0, 64, (16, 33))
losses = []
for step in range(100):
    logits = model(tokens[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        for layer, seen in optimizer.diagnostics().items():
            print(f"step {step:3}  {layer:4} loss {loss.item():.3f}  cosine(raw, mapped) {seen['cosine']:.3f}")
    optimizer.zero_grad()
    losses.append(loss.item())

print(f"loss: {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
