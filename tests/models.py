"""Small real models and batches for tests."""

import itertools

import torch
from torch import nn

from cegm.roles import assign


def llama(hidden=32, layers=2, vocabulary=61, **options):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        **options,
    )
    return LlamaForCausalLM(config)


def holding(**inside):
    """A module of nobody's library with these modules, parameters (by shape) and numbers in it, in this order."""
    holder = nn.Module()
    for name, value in inside.items():
        setattr(holder, name, nn.Parameter(torch.randn(value)) if isinstance(value, tuple) else value)
    return holder


def roles(model):
    """The role of every weight, by name."""
    return {a.name: a.role for a in assign(model)}


def reasons(model):
    """Why every weight has its role, by name."""
    return {a.name: a.reason for a in assign(model)}


def batches(steps, rows=4, length=16, vocabulary=61, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, vocabulary, (rows, length), generator=generator) for _ in range(steps)]


def train(model, optimizer, data):
    losses = []
    for ids in data:
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        if hasattr(optimizer, "observe_loss"):
            optimizer.observe_loss(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def weights_equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def perceptron(sizes=(6, 10, 4)):
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
