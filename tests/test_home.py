"""Cards made of a model: its contexts and demands against what hooks see, and the model afterwards."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import models
from cegm import card
from cegm.context.card import ContextCard

transformers = pytest.importorskip("transformers")


def seen_by_hooks(model, batches, seed=0):
    """`sum c c^T` and `sum d d^T` of every linear layer, token by token, with the labels that a card draws."""
    generator = torch.Generator().manual_seed(seed)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and "lm_head" not in name}
    contexts, demands = {}, {}
    for ids in batches:
        kept = {}

        def keep(name, given, output, kept=kept):
            output.retain_grad()
            kept[name] = (given[0], output)

        hooks = [
            layer.register_forward_hook(lambda _, given, output, name=name, keep=keep: keep(name, given, output))
            for name, layer in layers.items()
        ]
        logits = model(input_ids=ids).logits.flatten(0, -2).float()
        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator).flatten()
        functional.cross_entropy(logits, drawn, reduction="sum").backward()
        for hook in hooks:
            hook.remove()
        for name, (taken, given) in kept.items():
            least = 1e-4 * given.grad.abs().amax(dim=(1, 2))[:, None].expand(given.shape[:2]).flatten()
            for c, d, least_of_row in zip(
                taken.detach().flatten(0, 1).double(), given.grad.flatten(0, 1).double(), least, strict=True
            ):
                if float(d.abs().max()) < least_of_row:  # the query of a first position
                    continue
                contexts[name] = contexts.get(name, 0) + torch.outer(c, c)
                demands[name] = demands.get(name, 0) + torch.outer(d, d)
    return contexts, demands


def close_up_to_a_factor(mine, theirs):
    torch.testing.assert_close((mine / mine.norm()).double(), theirs / theirs.norm(), rtol=0, atol=1e-5)


def test_a_card_holds_what_hooks_see():
    torch.manual_seed(0)
    model = models.llama()
    batches = models.batches(3)
    made = card(model, batches, share=1.0, demands=True, home={"text": "noise"})
    contexts, demands = seen_by_hooks(copy.deepcopy(model).eval(), batches)
    assert {f"{name}.weight" for name in contexts} == made.contexts.keys() == made.demands.keys()
    for name, expected in contexts.items():
        if not name.endswith(("q_proj", "k_proj", "v_proj")):  # these share
            close_up_to_a_factor(made.contexts[f"{name}.weight"].dense(), expected)
        close_up_to_a_factor(made.demands[f"{name}.weight"].dense()[0], demands[name])
    for layer in ("model.layers.0.self_attn", "model.layers.1.self_attn"):
        reached = {"q": 3 * 4 * 15, "k": 3 * 4 * 16, "v": 3 * 4 * 16}
        expected = sum(contexts[f"{layer}.{name}_proj"] / tokens for name, tokens in reached.items())
        close_up_to_a_factor(made.contexts[f"{layer}.q_proj.weight"].dense(), expected)
    assert made.homes == ({"text": "noise", "tokens": 3 * 4 * 16, "seed": 0},)


def test_weights_with_the_same_inputs_share_an_entry():
    made = card(models.llama(), models.batches(2), share=0.5)
    layer = "model.layers.1.self_attn"
    entries = [made.contexts[f"{layer}.{name}_proj.weight"] for name in "qkvo"]
    assert entries[0] is entries[1] is entries[2] is not entries[3]
    assert made.contexts["model.layers.0.mlp.gate_proj.weight"] is made.contexts["model.layers.0.mlp.up_proj.weight"]


def test_the_model_is_left_as_it_was():
    model = models.llama(attention_dropout=0.5).train()
    model.model.embed_tokens.weight.requires_grad_(False)
    model(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    weights = copy.deepcopy(model.state_dict())
    gradients = {name: p.grad for name, p in model.named_parameters()}
    trains = {name: p.requires_grad for name, p in model.named_parameters()}
    modes = {name: m.training for name, m in model.named_modules()}
    card(model, models.batches(2))
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is gradients[name] for name, p in model.named_parameters())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == trains
    assert {name: m.training for name, m in model.named_modules()} == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_rows_together_are_rows_apart_and_padding_is_no_context():
    model = models.llama()
    ids = models.batches(1, rows=8)[0]
    together, apart = (card(model, b, share=1.0, seed=3) for b in ([ids], list(ids.split(1))))
    padded = torch.cat([ids, torch.zeros(8, 5, dtype=torch.long)], dim=1)
    mask = torch.cat([torch.ones_like(ids), torch.zeros(8, 5, dtype=torch.long)], dim=1)
    masked = card(model, [{"input_ids": padded, "attention_mask": mask}], share=1.0, seed=3)
    for name, entry in together.contexts.items():
        close_up_to_a_factor(entry.dense(), apart.contexts[name].dense().double())
        close_up_to_a_factor(entry.dense(), masked.contexts[name].dense().double())
    assert masked.homes[0]["tokens"] == ids.numel()


def test_a_card_of_a_plain_module_needs_no_library():
    model = nn.Sequential(
        nn.Embedding(11, 8), nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 11)
    )
    made = card(model, [torch.randint(0, 11, (4, 10))], share=1.0)
    assert "3.weight" in made.contexts


def test_of_an_adapted_model_the_card_is_that_of_its_base():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model, batches = models.llama(), models.batches(2)
    alone = card(model, batches)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    made = card(adapted, batches)
    assert made.contexts.keys() == alone.contexts.keys()
    for name, entry in alone.contexts.items():
        close_up_to_a_factor(made.contexts[name].dense(), entry.dense().double())


@pytest.mark.parametrize(
    ("build", "batches", "options", "said"),
    [
        (models.llama, models.batches(1), {"share": 0.0}, "share=0.0"),
        (models.llama, models.batches(1), {"share": 1.5}, "share=1.5"),
        (models.llama, [], {}, "no batch"),
        (models.llama, [torch.tensor([[1, 2, 3]])], {"share": 1.0}, "3 tokens are too few for the 32 directions"),
        (lambda: nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4)), [torch.tensor([[1]])], {}, "no linear layer"),
    ],
)
def test_what_cannot_make_a_card_is_refused_in_one_line(build, batches, options, said):
    with pytest.raises(ValueError, match=said) as caught:
        card(build(), batches, **options)
    assert "\n" not in str(caught.value)


def test_a_damaged_model_makes_no_card():
    model = models.llama()
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises((ValueError, RuntimeError)):
        card(model, models.batches(1))


def test_experts_have_contexts_of_their_own(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=1, max_position_embeddings=64,
    )  # fmt: skip
    made = card(MixtralForCausalLM(config), models.batches(4), share=1.0)
    experts = [name for name in made.contexts if name.endswith("]")]
    assert experts
    loaded = ContextCard.load(made.save(tmp_path / "card.safetensors"))
    assert loaded.contexts.keys() == made.contexts.keys()
