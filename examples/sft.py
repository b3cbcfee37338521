"""CEGM in TRL's `SFTTrainer`: supervised fine-tuning. Run: `python examples/sft.py` (needs `pip install 'cegm[train]'`, no network)."""

import tempfile

from datasets import Dataset
from transformers import LlamaForCausalLM, set_seed
from trl import SFTConfig, SFTTrainer

from cegm.hf import CEGMFactory
from cegm.lab.train.model import byte_tokenizer, fresh_config

set_seed(0)
tokenizer = byte_tokenizer()  # yours: AutoTokenizer.from_pretrained(...)
model = LlamaForCausalLM(fresh_config("tiny", tokenizer))  # yours: AutoModelForCausalLM.from_pretrained(...)
rows = [{"prompt": f"{a} plus {b} is ", "completion": str(a + b)} for a in range(16) for b in range(16)]

with tempfile.TemporaryDirectory() as folder:
    trainer = SFTTrainer(
        model,
        SFTConfig(
            folder, max_steps=40, logging_steps=5, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        optimizer_cls_and_kwargs=(CEGMFactory, {"lr": 3e-3}),
    )
    print(trainer.create_optimizer().summary())
    trainer.train()

losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
print(f"loss: {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
