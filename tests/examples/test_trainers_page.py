"""The lines of docs/trainers.md do what the page says, each in its trainer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

import pytorch_lightning
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from torch.utils.data import DataLoader
from transformers import LlamaForCausalLM, Trainer, TrainingArguments
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from cegm import CEGM
from cegm.hf import CEGMFactory, LossCallback
from cegm.lab.train.model import byte_tokenizer, fresh_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trainers.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NAMES: dict[str, Any] = {
    each.__name__: each
    for each in (
        CEGM,
        CEGMFactory,
        LossCallback,
        CosineAnnealingLR,
        OneCycleLR,
        LoraConfig,
        Trainer,
        DPOTrainer,
        SFTTrainer,
    )
} | {"get_peft_model": get_peft_model}
TEXTS = [{"text": f"{a} and {a + 1}"} for a in range(8)]
PAIRS = [{"prompt": f"is {a} even? ", "chosen": "yes", "rejected": "no"} for a in range(0, 16, 2)]


def settings(kind: type[TrainingArguments], folder: Path, **more: Any) -> TrainingArguments:
    common = {"max_steps": 2, "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no"}
    return kind(str(folder), learning_rate=2e-3, weight_decay=0.03, adam_beta1=0.8, disable_tqdm=True, **common, **more)


def around(block: str, folder: Path) -> dict[str, Any]:
    """What the page takes as given: a model, its tokenizer, arguments and rows of the trainer in the block."""
    tokenizer = byte_tokenizer()
    model = LlamaForCausalLM(fresh_config("tiny", tokenizer))
    if "DPOTrainer(" in block:
        args, rows = settings(DPOConfig, folder), Dataset.from_list(PAIRS)
    elif "SFTTrainer(" in block:
        args, rows = settings(SFTConfig, folder), Dataset.from_list(TEXTS)
    else:
        ids = torch.arange(16) + 3
        args, rows = settings(TrainingArguments, folder), [{"input_ids": ids, "labels": ids}] * 16
    loss = model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss
    return {**NAMES, "model": model, "tokenizer": tokenizer, "args": args, "rows": rows, "loss": loss}


def unwrapped(optimizer: Any) -> CEGM:
    return getattr(optimizer, "optimizer", optimizer)


@pytest.mark.parametrize("block", [block for block in BLOCKS if "Trainer(" in block])
def test_the_lines_of_a_trainer_train_with_cegm(block: str, tmp_path: Path) -> None:
    names = around(block, tmp_path)
    exec(block, names)
    before = {name: weight.clone() for name, weight in names["model"].named_parameters() if weight.requires_grad}
    names["trainer"].train()
    optimizer = unwrapped(names["trainer"].optimizer)
    assert isinstance(optimizer, CEGM)
    seen = [a.name for a in optimizer.matrices() if {"context_map", "demand_map"} & set(optimizer.state[a.parameter])]
    assert len(seen) == len(optimizer.matrices()) == (28 if "get_peft_model" in block else 14)
    assert not [name for name in before if "proj" in name and names["model"].get_parameter(name).equal(before[name])]


def test_weight_decay_and_betas_of_the_arguments_arrive(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "args.weight_decay" in block]
    names = around(block, tmp_path)
    exec(block, names)
    groups = names["trainer"].create_optimizer().param_groups
    assert {group["weight_decay"] for group in groups if group["role"] == "matrix"} == {0.1}
    assert {group["lr"] for group in groups} == {2e-3}
    assert {group["aux_betas"] for group in groups} == {(0.8, 0.999)}


def test_grpo_takes_the_lines_of_dpo(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "DPOTrainer(" in block]
    names = around(block, tmp_path)
    names["args"] = settings(GRPOConfig, tmp_path, max_completion_length=4)
    names["DPOTrainer"] = lambda *given, **options: GRPOTrainer(*given, reward_funcs=_lengths, **options)
    exec(block, names)
    names["trainer"].train()
    assert "demand_map" in names["optimizer"].state[names["optimizer"].matrices()[0].parameter]


def _lengths(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text) + index) for index, text in enumerate(completions)]


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_lightning_takes_what_configure_optimizers_returns(preset: str) -> None:
    (block,) = [block for block in BLOCKS if "configure_optimizers" in block]
    names = {**NAMES}
    exec(block.replace("lr=3e-3", f"lr=3e-3, preset={preset!r}"), names)

    class Module(pytorch_lightning.LightningModule):
        configure_optimizers = names["configure_optimizers"]

        def __init__(self) -> None:
            super().__init__()
            self.network = LlamaForCausalLM(fresh_config("tiny", byte_tokenizer()))

        def training_step(self, ids: torch.Tensor, _: int) -> torch.Tensor:
            return self.network(ids, labels=ids).loss

    trainer = pytorch_lightning.Trainer(
        max_steps=6,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        accumulate_grad_batches=2,
    )
    trainer.fit(Module(), DataLoader(torch.arange(24 * 8).view(24, 8), batch_size=2))
    (optimizer,) = trainer.optimizers
    assert [group["steps"] for group in optimizer.param_groups] == [6, 6, 6]
    assert optimizer.param_groups[0]["lr"] < 3e-3
    followed = optimizer.param_groups[0]["entanglement"] != optimizer.defaults["entanglement"]
    assert followed == (preset == "paper")  # whose coefficient follows the loss, which the closure tells


def test_the_lines_of_a_loop_step(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "loss.backward()" in block]
    names = around(block, tmp_path)
    before = names["model"].model.layers[0].mlp.up_proj.weight.clone()
    exec(block, names)
    assert not names["model"].model.layers[0].mlp.up_proj.weight.equal(before)


def test_one_cycle_without_the_argument_is_refused_by_torch(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "OneCycleLR(" in block]
    with pytest.raises(ValueError, match="cycle_momentum"):
        exec(block.replace(", cycle_momentum=False", ""), around(block, tmp_path))


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert links
    assert not [link for link in links if not (ROOT / "docs" / link).exists()]
