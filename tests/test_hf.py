"""`cegm.hf` inside a real Trainer: what its arguments say reaches the optimizer, and controllers that follow the loss hear it."""

import logging

import pytest
import torch

transformers = pytest.importorskip("transformers")

from cegm import CEGM  # noqa: E402
from cegm.hf import CEGMFactory, LossCallback  # noqa: E402


def model():
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_attention_heads=2))


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        row = torch.arange(index, index + 8) % 40
        return {"input_ids": row, "labels": row}


def trainer(tmp_path, options, callbacks=None, **arguments):
    given = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", **arguments}
    return transformers.Trainer(
        model=model(),
        args=transformers.TrainingArguments(str(tmp_path), per_device_train_batch_size=4, max_steps=4, **given),
        train_dataset=Rows(),
        optimizer_cls_and_kwargs=(CEGMFactory, options),
        callbacks=callbacks,
    )


def decays(optimizer):
    return {(g["role"], g["weight_decay"]) for g in optimizer.param_groups}


def test_settings_of_the_trainer_reach_the_optimizer(tmp_path):
    arguments = {"weight_decay": 0.03, "learning_rate": 0.002, "adam_beta1": 0.8, "adam_beta2": 0.97}
    optimizer = trainer(tmp_path, {}, **arguments).create_optimizer()
    assert decays(optimizer) == {("matrix", 0.03), ("adamw", 0.03), ("adamw", 0.0)}
    assert {g["lr"] for g in optimizer.param_groups} == {0.002}
    assert optimizer.defaults["aux_betas"] == (0.8, 0.97)


def test_no_decay_is_no_decay_and_usual_betas_are_nobodys_wish(tmp_path):
    optimizer = trainer(tmp_path, {"lr": 3e-3}, weight_decay=0.0).create_optimizer()
    assert {decay for _, decay in decays(optimizer)} == {0.0}
    assert optimizer.defaults["aux_betas"] == (0.9, 0.95)


def test_options_of_the_factory_win_and_a_line_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="cegm.hf")
    optimizer = trainer(tmp_path, {"lr": 3e-3, "weight_decay": 0.2}, weight_decay=0.01).create_optimizer()
    assert ("matrix", 0.2) in decays(optimizer)
    assert "weight_decay=0.2 of optimizer_cls_and_kwargs is taken, not 0.01 of TrainingArguments" in caplog.text


def test_whoever_is_no_trainer_gets_the_options_alone():
    class Holder:
        args = object()

        def build(self):
            return CEGMFactory()(model(), lr=1e-3)

    assert decays(Holder().build()) == decays(CEGM(model(), lr=1e-3))


@pytest.mark.parametrize("options", [{"preset": "paper"}, {"coefficient": "plateau"}])
def test_controllers_that_follow_the_loss_hear_it_in_a_trainer(tmp_path, options):
    run = trainer(tmp_path, {"lr": 1e-3, **options}, [LossCallback()], logging_steps=1)
    run.train()
    groups = [g for g in run.optimizer.param_groups if g["role"] == "matrix"]
    logged = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert len(logged) == 4
    expected = logged[0]
    for loss in logged[1:]:
        expected += 0.1 * (loss - expected)
    assert groups[0]["loss_fast"] == pytest.approx(expected)


def test_rare_logs_let_the_coefficient_stand_still(tmp_path):
    run = trainer(tmp_path, {"lr": 1e-3, "preset": "paper"}, [LossCallback()], logging_steps=50)
    run.train()
    assert run.state.global_step == 4


def test_without_the_callback_the_remedy_is_one_line(tmp_path):
    run = trainer(tmp_path, {"lr": 1e-3, "preset": "paper"})
    with pytest.raises(ValueError, match=r"callbacks=\[cegm\.hf\.LossCallback\(\)\]") as error:
        run.train()
    assert "\n" not in str(error.value)


def test_the_callback_beside_another_optimizer_is_told():
    with pytest.raises(ValueError, match="LossCallback is for CEGM, and this trainer has SGD"):
        LossCallback().on_train_begin(None, None, None, optimizer=torch.optim.SGD([torch.zeros(1)], lr=0.1))
