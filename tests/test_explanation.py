"""`cegm.explain`: scores against ordinary gradients, and everything it must leave as it was."""

import copy

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn.functional import cross_entropy

import cegm
import rounding
from cegm import CEGM
from models import batches, llama, perceptron, train


def gpt2(**options):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64, **options))


def trained(model, **options):
    optimizer = CEGM(model, lr=1e-2, **options)
    train(model, optimizer, batches(2))
    return optimizer


class Words:
    """The least that a tokenizer must be: one token per word, ids by order of the alphabet."""

    def __call__(self, text):
        return {"input_ids": [ord(word[0]) % 61 for word in text.split()]}

    def decode(self, ids, clean_up_tokenization_spaces):
        return " ".join(chr(65 + i) for i in ids)


def mean_loss(model, rows):
    """Mean over all predicted tokens of all texts, with padding nowhere."""
    losses = [cross_entropy(model(row[None]).logits[0, :-1], row[1:], reduction="none") for row in rows]
    return torch.cat(losses).mean()


def inner_products(model, optimizer, rows):
    """<gradient of the batch, G_t> of every weight, by an ordinary backward pass."""
    twin = copy.deepcopy(model).eval()
    mean_loss(twin, rows).backward()
    gradients = dict(zip((id(p) for p in model.parameters()), (p.grad for p in twin.parameters()), strict=True))
    return {
        matrix.name: (matrix.view(gradients[id(a.parameter)]), matrix.view(optimizer.state[a.parameter]["momentum"]))
        for a in optimizer.matrices()
        for matrix in a.matrices()
    }


@pytest.mark.parametrize("build", [llama, gpt2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_sum_to_the_inner_product_of_batch_gradient_and_entangled_gradient(build, dtype):
    model = build().to(dtype)
    optimizer = trained(model)
    ids = batches(1, rows=3, length=20, seed=9)[0]
    explanation = cegm.explain(model, optimizer, ids)
    expected = inner_products(model, optimizer, ids)
    assert explanation.layers == tuple(expected)
    assert explanation.left_out == {}
    sums = torch.stack([text.scores.sum(dim=1) for text in explanation.texts]).sum(dim=0)
    for (name, (gradient, entangled)), found in zip(expected.items(), sums, strict=True):
        assert float(found) == pytest.approx(
            float((gradient * entangled).sum()), rel=0, abs=of_scores(gradient, entangled, ids)
        ), name
    loss = mean_loss(copy.deepcopy(model).eval(), ids).item()
    assert explanation.loss == pytest.approx(loss, rel=rounding.of_sum(ids.numel(), 1.0, dtype))


def of_scores(gradient, entangled, ids):
    """Between the sum over tokens of a sum over inputs and outputs, and that over the weights of a sum over tokens."""
    size = float(gradient.double().norm() * entangled.double().norm())
    return rounding.of_sum(ids.numel() + sum(gradient.shape), size, gradient.dtype)


def test_sum_of_all_scores_is_how_fast_a_step_along_the_entangled_gradient_lowers_the_loss():
    model = gpt2().double()
    optimizer = trained(model)
    ids = batches(1, rows=2, seed=9)[0]
    explanation = cegm.explain(model, optimizer, ids)
    losses = []
    for step in (1e-5, -1e-5):
        moved = copy.deepcopy(model).eval()
        named = dict(moved.named_parameters())
        with torch.no_grad():
            for a in optimizer.matrices():
                named[a.name].sub_(step * optimizer.state[a.parameter]["momentum"])
            losses.append(mean_loss(moved, ids).item())
    expected = (losses[1] - losses[0]) / 2e-5
    assert sum(text.total().sum().item() for text in explanation.texts) == pytest.approx(expected, rel=1e-5)


def test_each_score_is_that_tokens_own_gradient_against_the_entangled_gradient():
    model = perceptron_model()
    optimizer = CEGM(model, lr=1e-2)
    ids = torch.randint(0, 8, (1, 6))
    cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
    optimizer.step()
    explanation = cegm.explain(model, optimizer, ids)
    layer = model[1]
    contexts = model[0](ids)[0].detach()
    for position in range(6):
        layer.zero_grad()
        own = contexts.clone()
        own[torch.arange(6) != position] = 0  # the weight's gradient keeps this token's outer product alone
        outputs = layer(contexts).detach() + layer(own) - layer(own).detach()
        cross_entropy(model[3](model[2](outputs))[:-1], ids[0, 1:]).backward()
        entangled = optimizer.state[layer.weight]["momentum"]
        torch.testing.assert_close(
            explanation.texts[0].scores[0, position], (layer.weight.grad * entangled).sum(), rtol=1e-4, atol=1e-8
        )


def perceptron_model():
    """Tokens that do not see each other: embedding and a perceptron."""
    return nn.Sequential(nn.Embedding(8, 6), *perceptron((6, 10, 8)))


def test_the_last_token_predicts_nothing_and_scores_zero_behind_the_last_attention():
    model = llama()
    explanation = cegm.explain(model, trained(model), batches(1, rows=1)[0])
    mlp = explanation.layers.index("model.layers.1.mlp.down_proj")
    assert explanation.texts[0].scores[mlp, -1] == 0
    assert (explanation.texts[0].scores[mlp, :-1] != 0).all()


def test_two_texts_are_as_one_by_one_with_the_mean_over_both():
    model = llama().double()
    optimizer = trained(model)
    long, short = torch.arange(30), torch.arange(7)
    tokenizer = {"long": long, "short": short}
    both = cegm.explain(model, optimizer, ["long", "short"], tokenizer=Table(tokenizer))
    for text, name, share in zip(both.texts, tokenizer, (29 / 35, 6 / 35), strict=True):
        alone = cegm.explain(model, optimizer, name, tokenizer=Table(tokenizer))
        torch.testing.assert_close(text.scores, share * alone.texts[0].scores)
        assert text.tokens == alone.texts[0].tokens


class Table(Words):
    """Texts of any length from a table."""

    def __init__(self, table):
        self.table = table

    def __call__(self, text):
        return {"input_ids": self.table[text].tolist()}


def test_words_keep_the_space_that_stands_before_them_and_ids_need_no_tokenizer():
    model = llama()
    optimizer = trained(model)
    ids = torch.tensor([[0, 1, 2]])
    assert cegm.explain(model, optimizer, ids, tokenizer=Words()).texts[0].tokens == ("A", " B", " C")
    assert cegm.explain(model, optimizer, ids).texts[0].tokens == ("0", "1", "2")


def test_tokens_of_real_tokenizers_read_like_the_text():
    from cegm.lab.train.model import byte_tokenizer, word_tokenizer

    model = llama(vocabulary=400)
    optimizer = trained(model)
    text = "in market mira trades . since april bruno plants ."
    (words,) = cegm.explain(model, optimizer, text, word_tokenizer()).texts
    assert "".join(words.tokens) == text
    assert words.tokens[1] == " market"
    (parts,) = cegm.explain(model, optimizer, "a \u00e9", byte_tokenizer()).texts
    assert parts.tokens[:2] == ("a", " ")
    assert len(parts.tokens) == 4  # half a character shows as the tokenizer's own sign for it
    assert all(parts.tokens)
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(parts.tokens)


def test_a_model_from_a_folder_brings_its_tokenizer(tmp_path):
    from cegm.lab.train.model import word_tokenizer

    model = llama(vocabulary=400)
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path)
    assert cegm.explain(model, trained(model), "in market").texts[0].tokens == ("in", " market")


def test_max_length_cuts():
    model = llama()
    optimizer = trained(model)
    ids = batches(1, rows=1)[0]
    cut, short = cegm.explain(model, optimizer, ids, max_length=5), cegm.explain(model, optimizer, ids[:, :5])
    assert torch.equal(cut.texts[0].scores, short.texts[0].scores)


def test_weights_total_and_driving_tokens():
    text = cegm.explanation.AlignedText(("a", "b", "c"), torch.tensor([[1.0, 2.0, 0.0], [0.0, -3.0, 0.5]]))
    torch.testing.assert_close(text.weights().sum(dim=1), torch.ones(2))
    torch.testing.assert_close(text.weights()[0], torch.tensor([1.0, 2.0, 0.0]).softmax(0))
    assert text.total().tolist() == [1.0, -1.0, 0.5]
    assert text.driving(2) == [(0, "a", 1.0), (2, "c", 0.5)]
    assert len(text.driving(9)) == 3


# ---------------------------------------------------------------------- nothing is disturbed


def everything(model, optimizer):
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return grads, copy.deepcopy(optimizer.state_dict()), torch.get_rng_state(), [m.training for m in model.modules()]


def assert_same(before, after):
    for old, new in zip(before[0], after[0], strict=True):
        assert (old is None and new is None) or torch.equal(old, new)
    assert before[1]["param_groups"] == after[1]["param_groups"]
    for old, new in zip(before[1]["state"].values(), after[1]["state"].values(), strict=True):
        assert list(old) == list(new)
        assert all(torch.equal(torch.as_tensor(old[key]), torch.as_tensor(new[key])) for key in old)
    assert torch.equal(before[2], after[2])
    assert before[3] == after[3]


@pytest.mark.parametrize("with_gradients", [True, False])
def test_gradients_state_random_numbers_and_modes_stay(with_gradients):
    model = gpt2()  # has dropout
    optimizer = trained(model)
    if with_gradients:
        model(input_ids=batches(1)[0], labels=batches(1)[0]).loss.backward()
    model.transformer.h[0].eval()  # a part that its owner holds in evaluation mode
    before = everything(model, optimizer)
    cegm.explain(model, optimizer, batches(1)[0])
    assert_same(before, everything(model, optimizer))


def test_dropout_is_off():
    model = gpt2()
    optimizer = trained(model)
    once, again = (cegm.explain(model, optimizer, batches(1)[0]) for _ in range(2))
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(once.texts, again.texts, strict=True))


def test_an_error_in_the_forward_pass_leaves_nothing_behind():
    model = llama()
    optimizer = trained(model)
    before = everything(model, optimizer)
    with pytest.raises(IndexError):
        cegm.explain(model, optimizer, torch.tensor([[1, 2, 61]]))
    assert_same(before, everything(model, optimizer))
    assert all(len(m._forward_hooks) <= 1 for m in model.modules())  # the optimizer's own


def test_training_goes_on_as_if_nobody_had_asked():
    runs = []
    for asked in (False, True):
        torch.manual_seed(3)
        model = gpt2()
        optimizer = CEGM(model, lr=1e-2)
        losses = []
        for ids in batches(4):
            losses += train(model, optimizer, [ids])
            if asked:
                cegm.explain(model, optimizer, batches(1)[0])
        runs.append(losses)
    assert runs[0] == runs[1]


def test_works_inside_no_grad_and_autocast():
    model = llama()
    optimizer = trained(model)
    ids = batches(1, rows=1)[0]
    plain = cegm.explain(model, optimizer, ids).texts[0].scores
    with torch.no_grad():
        torch.testing.assert_close(cegm.explain(model, optimizer, ids).texts[0].scores, plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = cegm.explain(model, optimizer, ids).texts[0].scores
    assert rounded.dtype == torch.float32
    assert torch.cosine_similarity(rounded.flatten(), plain.flatten(), dim=0) > 0.99


# ---------------------------------------------------------------------- wrapped and unusual models


def test_a_layer_called_twice_sums_its_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.layer, self.out = nn.Embedding(8, 6), nn.Linear(6, 6), nn.Linear(6, 8)

        def forward(self, ids):
            return self.out(self.layer(torch.tanh(self.layer(self.embedding(ids)))))

    model = Twice().double()
    optimizer = CEGM(model, lr=1e-2)
    ids = torch.randint(0, 8, (1, 12))
    for _ in range(2):
        optimizer.zero_grad()
        cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
        optimizer.step()
    explanation = cegm.explain(model, optimizer, ids)
    optimizer.zero_grad()
    cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
    entangled = optimizer.state[model.layer.weight]["momentum"]
    expected = (model.layer.weight.grad * entangled).sum()
    torch.testing.assert_close(explanation.texts[0].scores[explanation.layers.index("layer")].sum(), expected)


def test_a_recomputed_layer_counts_once():
    class Recomputed(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.recompute = perceptron_model(), False

        def forward(self, ids):
            hidden = self.model[0](ids)
            if self.recompute:
                return torch.utils.checkpoint.checkpoint(self.model[1:], hidden, use_reentrant=False)
            return self.model[1:](hidden)

    model, ids = Recomputed(), torch.randint(0, 8, (1, 6))
    optimizer = CEGM(model, lr=1e-2)
    cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
    optimizer.step()
    expected = cegm.explain(model, optimizer, ids).texts[0].scores
    model.recompute = True
    torch.testing.assert_close(cegm.explain(model, optimizer, ids).texts[0].scores, expected)


class Routed(nn.Module):
    """One expert sees some tokens, one layer none, one works in place on a shared output."""

    def __init__(self):
        super().__init__()
        self.embedding, self.dense, self.expert, self.spare = (
            nn.Embedding(8, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 6),
        )
        self.out = nn.Linear(6, 8)

    def forward(self, ids):
        hidden = self.dense(self.embedding(ids))
        hidden.mul_(2.0)
        chosen = ids < 4
        routed = torch.zeros_like(hidden)
        routed[chosen] = self.expert(hidden[chosen])
        hidden = hidden + routed
        if self.training:
            hidden = hidden + self.spare(hidden)
        return self.out(hidden)


def test_layers_fed_otherwise_or_never_are_left_out_with_the_reason():
    model = Routed().double()
    optimizer = CEGM(model, lr=1e-2)
    ids = torch.tensor([[0, 5, 1, 6, 2, 7]])
    cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
    optimizer.step()
    texts = torch.cat([torch.tensor([[0, 1, 2, 3, 0, 1]]), ids])  # the expert sees all of one text, half of the other
    explanation = cegm.explain(model, optimizer, texts)
    assert explanation.layers == ("dense",)
    assert list(explanation.left_out) == ["expert", "spare"]
    assert "fed with 3 vectors, the text has 6 tokens" in explanation.left_out["expert"]
    assert "not called" in explanation.left_out["spare"]
    assert all(text.scores.shape == (1, 6) for text in explanation.texts)


def test_an_output_changed_in_place_is_scored_before_the_change():
    model = Routed().double()
    optimizer = CEGM(model, lr=1e-2)
    ids = torch.tensor([[0, 5, 1, 6, 2, 7]])
    cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
    optimizer.step()
    explanation = cegm.explain(model, optimizer, ids)
    optimizer.zero_grad()
    cross_entropy(model.eval()(ids)[0, :-1], ids[0, 1:]).backward()
    expected = (model.dense.weight.grad * optimizer.state[model.dense.weight]["momentum"]).sum()
    torch.testing.assert_close(explanation.texts[0].scores[0].sum(), expected)


def test_a_layer_that_never_had_a_gradient_is_left_out():
    model = Routed().eval()  # so that `spare` is not called
    optimizer = CEGM(model, lr=1e-2)
    ids = torch.tensor([[0, 1, 2, 3]])
    cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
    optimizer.step()
    assert cegm.explain(model, optimizer, ids).left_out == {"spare": "never updated"}


def test_lora_adapters_are_layers_too():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        llama(), peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    optimizer = trained(model)
    ids = batches(1, rows=2, seed=9)[0]
    explanation = cegm.explain(model, optimizer, ids)
    assert len(explanation.layers) == 2 * 2 * 2
    assert all("lora" in layer for layer in explanation.layers)
    sums = torch.stack([text.scores.sum(dim=1) for text in explanation.texts]).sum(dim=0)
    for found, (gradient, entangled) in zip(sums, inner_products(model, optimizer, ids).values(), strict=True):
        assert float(found) == pytest.approx(
            float((gradient * entangled).sum()), rel=0, abs=of_scores(gradient, entangled, ids)
        )


def test_compiled_distributed_and_wrapped_give_the_same(tmp_path):
    import torch.distributed as dist

    model = llama()
    optimizer = trained(model)
    ids = batches(1, rows=1)[0]
    expected = cegm.explain(model, optimizer, ids).texts[0].scores
    compiled = torch.compile(model, backend="eager")
    compiled(ids)
    torch.testing.assert_close(cegm.explain(compiled, optimizer, ids).texts[0].scores, expected)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        torch.testing.assert_close(cegm.explain(wrapped, optimizer, ids).texts[0].scores, expected)
    finally:
        dist.destroy_process_group()
    holder = type("Holder", (), {"optimizer": optimizer})()
    torch.testing.assert_close(cegm.explain(model, holder, ids).texts[0].scores, expected)


# ---------------------------------------------------------------------- errors, each in one line


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("a b", {}, "names no tokenizer; pass tokenizer"),
        ([], {"tokenizer": Words()}, "no text to explain"),
        (["a b", "a"], {"tokenizer": Words()}, "text 2 has 1 token"),
        (torch.zeros(0, 5, dtype=torch.long), {}, "no text to explain"),
        (torch.zeros(5, dtype=torch.long), {}, r"shape \(rows, tokens\), not torch.int64 of shape \(5\)"),
        (torch.zeros(1, 5), {}, "must be integers"),
        (torch.zeros(1, 5, dtype=torch.long), {"max_length": 1}, "max_length=1 leaves nothing to predict"),
    ],
)
def test_texts_that_cannot_be_explained(texts, options, message):
    model = llama()
    with pytest.raises(ValueError, match=message) as error:
        cegm.explain(model, trained(model), texts, **options)
    assert "\n" not in str(error.value)


def test_a_missing_tokenizer_folder_is_named(tmp_path):
    model = llama()
    model.name_or_path = str(tmp_path)
    with pytest.raises(ValueError, match="no tokenizer could be loaded from") as error:
        cegm.explain(model, trained(model), "a b")
    assert "\n" not in str(error.value)


def test_optimizers_that_cannot_explain():
    ids = batches(1)[0]
    model = llama()
    with pytest.raises(ValueError, match="after its first step"):
        cegm.explain(model, CEGM(model), ids)
    with pytest.raises(ValueError, match="needs the CEGM optimizer of the model, not AdamW"):
        cegm.explain(model, torch.optim.AdamW(model.parameters()), ids)
    with pytest.raises(ValueError, match="pass the model that the optimizer trains"):
        cegm.explain(llama(), trained(model), ids)
    with pytest.warns(UserWarning, match="no model"):
        blind = CEGM(model.parameters())
    with pytest.raises(ValueError, match="built without a model"):
        cegm.explain(model, blind, ids)


class Signal(nn.Module):
    """Convolutions over the positions of a text, all reading the past alone."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)
        self.pointwise, self.local = nn.Conv1d(6, 6, 1), nn.Conv1d(6, 6, 3)

    def forward(self, ids):
        x = torch.tanh(self.pointwise(self.embed(ids).mT))
        return self.head(torch.tanh(self.local(nn.functional.pad(x, (2, 0)))).mT)


def test_a_convolution_over_the_text_has_scores_that_add_up():
    model = Signal().double()
    optimizer = CEGM(model, lr=1e-2)
    ids = torch.randint(11, (1, 9))
    for _ in range(3):
        nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    found = cegm.explain(model, optimizer, ids)
    assert set(found.layers) == {"pointwise", "local"}
    nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
    for name, scores in zip(found.layers, found.texts[0].scores, strict=True):
        weight = getattr(model, name).weight
        inner = float((weight.grad * optimizer.state[weight]["momentum"]).sum())
        assert float(scores.sum()) == pytest.approx(inner, rel=1e-9)


class Plain(nn.Module):
    """A language model that gives its logits as somebody wants them."""

    def __init__(self, give):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.body, self.head = nn.Embedding(61, 16), nn.Linear(16, 16), nn.Linear(16, 61)
        self.give = give

    def forward(self, ids):
        return self.give(self.head(torch.tanh(self.body(self.embedding(ids)))))


def stepped(model):
    optimizer = CEGM(model, lr=1e-2)
    ids = batches(1)[0]
    cross_entropy(model(ids).logits.flatten(0, 1), ids.flatten()).backward()
    optimizer.step()
    return optimizer


class Given:
    def __init__(self, logits):
        self.logits = logits


GIVEN = {
    "tensor": lambda logits: logits,
    "attribute": Given,
    "tuple with no loss": lambda logits: (logits, None),
    "tuple with a loss": lambda logits: (logits, logits.mean()),
    "loss first": lambda logits: [logits.mean(), logits],
    "dictionary": lambda logits: {"loss": logits.mean(), "logits": logits, "hidden": logits[..., :16]},
    "cache": lambda logits: (logits, ((logits[..., :4], logits[..., :4]),)),
}


@pytest.mark.parametrize("name", GIVEN)
def test_logits_are_found_wherever_a_model_puts_them(name):
    ids, found = batches(1, rows=1, length=12)[0], []
    for give in (Given, GIVEN[name]):
        model = Plain(Given)
        optimizer = stepped(model)
        model.give = give
        found.append(cegm.explain(model, optimizer, ids))
    assert found[0].loss == found[1].loss
    assert torch.equal(found[0].texts[0].scores, found[1].texts[0].scores)


@pytest.mark.parametrize("give", [lambda y: y[:, -1:], lambda y: (y, y * 2), lambda y: None, lambda y: y.mean()])
def test_a_model_without_logits_for_every_token_says_what_to_do(give):
    model = Plain(Given)
    optimizer = stepped(model)
    model.give = give
    with pytest.raises(ValueError, match="return them for every token"):
        cegm.explain(model, optimizer, batches(1, rows=1, length=12)[0])
    assert model.training
