"""Which tokens of a text push the weights the way training moves them. Run: `python examples/explain.py`, then open the page."""

import torch
from transformers import LlamaForCausalLM

from cegm import CEGM, explain
from cegm.lab import world
from cegm.lab.train.model import fresh_config, word_tokenizer

torch.manual_seed(0)
tokenizer = word_tokenizer()  # one token per word of the generated world
model = LlamaForCausalLM(fresh_config("tiny", tokenizer))
optimizer = CEGM(model, lr=1e-2)
print(optimizer.summary())

documents = world.documents(seed=0, split="train")
losses = []
for _ in range(60):
    ids = tokenizer(
        [next(documents) for _ in range(8)], padding=True, truncation=True, max_length=64, return_tensors="pt"
    )
    loss = model(**ids, labels=ids.input_ids.masked_fill(ids.attention_mask == 0, -100)).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())

found = explain(model, optimizer, next(documents), tokenizer, max_length=64)
for position, token, score in found.texts[0].driving(5):
    print(f"position {position:3}  {token:12} {score:+.2e}")
print(f"page: {found.to_html('explanation.html')}")
print(f"loss: {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
