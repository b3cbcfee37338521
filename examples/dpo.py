"""CEGM in TRL's `DPOTrainer`: preferences, here with LoRA. Run: `python examples/dpo.py` (needs `pip install 'cegm[train]'`, no network).

`DPOTrainer` takes an optimizer that is built already, so the model is placed and gets its adapters first: with `peft_config=`
the trainer would add them after the optimizer has looked at the model.
"""

import tempfile

from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, set_seed
from trl import DPOConfig, DPOTrainer

from cegm import CEGM
from cegm.lab.train.model import byte_tokenizer, fresh_config

set_seed(0)
tokenizer = byte_tokenizer()  # yours: AutoTokenizer.from_pretrained(...)
model = LlamaForCausalLM(fresh_config("tiny", tokenizer))  # yours: AutoModelForCausalLM.from_pretrained(...)
answers = ["yes", "no"]
rows = [{"prompt": f"is {a} even? ", "chosen": answers[a % 2], "rejected": answers[1 - a % 2]} for a in range(128)]

with tempfile.TemporaryDirectory() as folder:
    settings = DPOConfig(
        folder, max_steps=40, logging_steps=5, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True
    )
    adapted = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model.to(settings.device), adapted)
    optimizer = CEGM(model, lr=1e-2)
    trainer = DPOTrainer(
        model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        optimizers=(optimizer, None),  # the trainer adds the scheduler of its settings
    )
    print(optimizer.summary())
    trainer.train()

losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
print(f"loss: {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
