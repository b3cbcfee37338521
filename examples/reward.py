"""CEGM in TRL's `RewardTrainer`: a reward model. Run: `python examples/reward.py` (needs `pip install 'cegm[train]'`, no network)."""

import tempfile

from datasets import Dataset
from transformers import LlamaForSequenceClassification, set_seed
from trl import RewardConfig, RewardTrainer

from cegm.hf import CEGMFactory
from cegm.lab.train.model import byte_tokenizer, fresh_config

set_seed(0)
tokenizer = byte_tokenizer()  # yours: AutoTokenizer.from_pretrained(...)
config = fresh_config("tiny", tokenizer)
config.num_labels = 1
model = LlamaForSequenceClassification(config)  # yours: AutoModelForSequenceClassification.from_pretrained(...)
rows = [{"chosen": f"{a} comes before {a + 1}", "rejected": f"{a + 1} comes before {a}"} for a in range(128)]

with tempfile.TemporaryDirectory() as folder:
    trainer = RewardTrainer(
        model,
        RewardConfig(
            folder, max_steps=30, logging_steps=5, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        optimizer_cls_and_kwargs=(CEGMFactory, {"lr": 3e-3}),
    )
    print(trainer.create_optimizer().summary())
    trainer.train()

losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
print(f"loss: {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
