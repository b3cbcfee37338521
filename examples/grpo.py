"""CEGM in TRL's `GRPOTrainer`: reinforcement learning. Run: `python examples/grpo.py` (needs `pip install 'cegm[train]'`, no network).

`GRPOTrainer` takes an optimizer that is built already, so the model is placed first; for LoRA wrap it by `get_peft_model`, as in
`dpo.py`.
"""

import tempfile

from datasets import Dataset
from transformers import LlamaForCausalLM, set_seed
from trl import GRPOConfig, GRPOTrainer

from cegm import CEGM
from cegm.lab.train.model import byte_tokenizer, fresh_config


def letters(completions: list[str], **_: object) -> list[float]:
    """The share of lower-case letters in each completion."""
    return [sum(map(str.islower, text)) / max(len(text), 1) for text in completions]


set_seed(0)
tokenizer = byte_tokenizer()  # yours: AutoTokenizer.from_pretrained(...)
model = LlamaForCausalLM(fresh_config("tiny", tokenizer))  # yours: AutoModelForCausalLM.from_pretrained(...)
prompts = [{"prompt": f"{word}: "} for word in ("one", "two", "three", "four")]

with tempfile.TemporaryDirectory() as folder:
    settings = GRPOConfig(
        folder,
        max_steps=20,
        logging_steps=4,
        per_device_train_batch_size=32,
        max_completion_length=12,
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    optimizer = CEGM(model.to(settings.device), lr=5e-3)
    trainer = GRPOTrainer(
        model,
        reward_funcs=letters,
        args=settings,
        train_dataset=Dataset.from_list(prompts),
        processing_class=tokenizer,
        optimizers=(optimizer, None),  # the trainer adds the scheduler of its settings
    )
    print(optimizer.summary())
    trainer.train()

rewards = [line["reward"] for line in trainer.state.log_history if "reward" in line]
print(f"reward: {rewards[0]:.3f} at first, {rewards[-1]:.3f} at last")
