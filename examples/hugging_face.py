"""CEGM in anyone's Hugging Face `Trainer`. Run: `python examples/hugging_face.py` (needs `pip install 'cegm[train]'`, no network)."""

import tempfile

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

from cegm.hf import CEGMFactory


class Letters(Dataset):
    """Rows of the alphabet from random starting points."""

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = (torch.arange(32) + index) % 26
        return {"input_ids": ids, "labels": ids}


set_seed(0)
config = LlamaConfig(
    vocab_size=26,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    bos_token_id=None,
    eos_token_id=None,
)
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        model=LlamaForCausalLM(config),
        args=TrainingArguments(
            folder, max_steps=30, logging_steps=10, report_to="none", save_strategy="no", disable_tqdm=True
        ),
        train_dataset=Letters(),
        optimizer_cls_and_kwargs=(CEGMFactory, {"lr": 3e-3}),
    )
    print(trainer.create_optimizer().summary())
    trainer.train()

losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
print(f"loss: {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
