"""The entanglement loss on whole models: what the hook keeps and forgets, every wrapper, the Trainer, and what is refused."""

import copy
import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import loss_ranks
import ranks
from cegm import EntanglementLoss

transformers = pytest.importorskip("transformers")

WORDS = 13


def llama(**given):
    torch.manual_seed(0)
    settings = {
        "vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 16, **given,
    }  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings)).train()


def rows(count=4, tokens=8):
    """Tokens and labels (rows, tokens); the number of predicted tokens differs between rows."""
    tokens = torch.randint(WORDS, (count, tokens), generator=torch.Generator().manual_seed(1))
    labels = tokens.clone()
    for row in range(count):
        labels[row, : 1 + row] = -100
    return tokens, labels


def direct(loss, model, tokens, labels, count=None):
    """The same loss from the model's last hidden state, without a hook."""
    hidden = model.base_model(tokens).last_hidden_state[:, :-1]
    head = model.get_output_embeddings()
    return loss(hidden, head.weight, labels[:, 1:], head.bias, count)


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("checkpointing", [None, False, True])
def test_loss_of_a_model_is_that_of_its_hidden_state(tied, checkpointing):
    model, (tokens, labels) = llama(tie_word_embeddings=tied), rows()
    loss = EntanglementLoss(0.7, "rbf")
    wanted = direct(loss, model, tokens, labels)
    wanted.backward()
    by_hand = gradients(model)
    if checkpointing is not None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": checkpointing})
    value = loss.for_model(model)(model(tokens, use_cache=False), labels)
    value.backward()
    assert torch.equal(value, wanted)
    torch.testing.assert_close(gradients(model), by_hand)


def test_lora_adapters_get_the_same_gradients():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, and then lora_A would get no gradient
            nn.init.normal_(parameter)
    tokens, labels = rows()
    loss = EntanglementLoss(0.7)
    direct(loss, model.get_base_model(), tokens, labels).backward()
    by_hand = gradients(model)
    loss.for_model(model)(model(input_ids=tokens), labels).backward()
    assert by_hand
    torch.testing.assert_close(gradients(model), by_hand)


def test_two_processes_agree_with_one(tmp_path):
    results = ranks.in_two(loss_ranks.train, tmp_path)
    model, tokens, labels, _ = loss_ranks.setting()
    loss_ranks.LOSS.for_model(model)(model(tokens), labels).backward()
    for first, second, parameter in zip(*results, model.parameters(), strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, parameter.grad)


# ------------------------------------------------------------------ what is kept


def test_nothing_is_kept_after_the_loss():
    model, (tokens, labels) = llama(), rows()
    seen = []
    model.lm_head.register_forward_hook(lambda head, inputs, output: seen.append(weakref.ref(inputs[0])))
    loss = EntanglementLoss().for_model(model)
    outputs = model(tokens)
    assert seen[0]() is not None
    loss(outputs, labels).backward()
    del outputs
    gc.collect()
    assert seen[0]() is None


def test_forward_passes_without_gradients_are_not_kept():
    model, (tokens, labels) = llama(), rows()
    loss = EntanglementLoss().for_model(model)
    wanted = direct(EntanglementLoss(), model, tokens, labels)
    outputs = model(tokens)
    with torch.no_grad():
        model(tokens[:1])
    assert torch.equal(loss(outputs, labels), wanted)
    with torch.no_grad():
        model(tokens)
    with pytest.raises(ValueError, match="did not call the model's output head"):
        loss(outputs, labels)


def test_the_hook_goes_with_the_loss():
    model = llama()
    loss = EntanglementLoss().for_model(model)
    assert len(model.lm_head._forward_hooks) == 1
    del loss
    gc.collect()
    assert not model.lm_head._forward_hooks


def test_a_copy_of_the_model_leaves_the_original_alone():
    model, (tokens, labels) = llama(), rows()
    loss = EntanglementLoss().for_model(model)
    twin = copy.deepcopy(model)
    wanted = direct(EntanglementLoss(), model, tokens, labels)
    outputs = model(tokens)
    twin(tokens.flip(1))
    assert torch.equal(loss(outputs, labels), wanted)


@torch.no_grad()
def test_evaluation_gets_plain_cross_entropy():
    model, (tokens, labels) = llama().eval(), rows()
    outputs = model(tokens, labels=labels)
    loss = EntanglementLoss(3.0).for_model(model)
    torch.testing.assert_close(loss(outputs, labels), outputs.loss)
    torch.testing.assert_close(loss(outputs, labels, 100), outputs.loss * (labels[:, 1:] != -100).sum() / 100)
    assert loss(outputs, torch.full_like(labels, -100)).item() == 0


# ------------------------------------------------------------------ Trainer


def trained(tmp_path, loss=None, **given):
    """Weights after two steps of four rows with transformers' Trainer, and its evaluation loss."""
    model, (tokens, labels) = llama(), rows(8)
    data = [{"input_ids": t, "labels": y} for t, y in zip(tokens, labels, strict=True)]
    settings = {
        "output_dir": str(tmp_path), "max_steps": 2, "learning_rate": 0.5, "optim": "sgd", "max_grad_norm": 0.0, "use_cpu": True,
        "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "lr_scheduler_type": "constant",
    }  # fmt: skip
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(**settings, **given),
        train_dataset=data,
        eval_dataset=data,
        compute_loss_func=None if loss is None else loss.for_model(model),
    )
    trainer.train()
    logged = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return dict(model.named_parameters()), logged, trainer.evaluate()["eval_loss"]


def test_accumulation_equals_one_big_batch(tmp_path):
    loss = EntanglementLoss(0.5)
    whole = trained(tmp_path, loss, per_device_train_batch_size=4)
    parts = trained(tmp_path, loss, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    plain = trained(tmp_path, per_device_train_batch_size=4)
    assert (plain[0]["lm_head.weight"] - whole[0]["lm_head.weight"]).abs().max() > 1e-3


def test_beta_zero_trains_as_the_trainer_does_alone(tmp_path):
    entangled = trained(tmp_path, EntanglementLoss(0.0), per_device_train_batch_size=4)
    torch.testing.assert_close(entangled, trained(tmp_path, per_device_train_batch_size=4), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------ what is refused


class Scaled(loss_ranks.Words):
    """Multiplies its logits, which no configuration says."""

    def forward(self, tokens):
        return SimpleNamespace(logits=super().forward(tokens).logits * 1.5)


def test_logits_that_are_not_those_of_the_head():
    model, tokens = Scaled(), torch.arange(8)[None]
    with pytest.raises(ValueError, match="logits differ from those of its output head by") as raised:
        EntanglementLoss().for_model(model)(model(tokens), tokens)
    assert "\n" not in str(raised.value)


def test_bfloat16_logits_are_those_of_the_head():
    model, (tokens, labels) = llama().bfloat16(), rows()
    value = EntanglementLoss().for_model(model)(model(tokens), labels)
    assert torch.equal(value, direct(EntanglementLoss(), model, tokens, labels))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("final_logit_softcapping", 30.0),
        ("logits_soft_cap", 30.0),
        ("logit_scale", 0.0625),
        ("logits_scaling", 8.0),
        ("lm_head_multiplier", 2.0),
        ("output_multiplier", 2.0),
    ],
)
def test_logits_that_the_configuration_changes(entry, value):
    model = llama(**{entry: value})
    with pytest.raises(ValueError, match=rf"LlamaForCausalLM changes its logits behind the head \({entry}={value}\)"):
        EntanglementLoss().for_model(model)


@pytest.mark.parametrize("entry", [{"final_logit_softcapping": None}, {"logit_scale": 1.0}, {"logits_scaling": 1}])
def test_entries_that_change_nothing_are_allowed(entry):
    EntanglementLoss().for_model(llama(**entry))


def test_models_without_a_linear_head():
    with pytest.raises(ValueError, match="LlamaModel has no output head"):
        EntanglementLoss().for_model(llama().model)
    with pytest.raises(ValueError, match="Linear has no output head"):
        EntanglementLoss().for_model(nn.Linear(2, 2))
    model = llama()
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(ValueError, match="output head of LlamaForCausalLM is a Sequential, not a plain linear layer"):
        EntanglementLoss().for_model(model)


def test_an_adapter_on_the_head_is_refused():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match="no adapter or quantisation on the head"):
        EntanglementLoss().for_model(model)


def test_a_head_with_a_bias():
    model = loss_ranks.Words()
    nn.init.normal_(model.head.bias)
    tokens = torch.randint(9, (3, 6))
    value = EntanglementLoss(0.0).for_model(model)(model(tokens), tokens)
    logits = model(tokens).logits
    torch.testing.assert_close(value, F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))
