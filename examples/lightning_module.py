"""CEGM in a Lightning module, with a scheduler. Run: `python examples/lightning_module.py`.

Needs `pip install 'cegm[train]' pytorch-lightning` and no network. With the package `lightning` the import is
`import lightning.pytorch as lightning`; everything else is the same.
"""

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from cegm import CEGM


class Alphabet(lightning.LightningModule):
    """Tells the next letter."""

    def __init__(self) -> None:
        super().__init__()
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        self.network = LlamaForCausalLM(LlamaConfig(vocab_size=26, bos_token_id=None, eos_token_id=None, **shape))
        self.losses: list[float] = []

    def training_step(self, letters: Tensor, _: int) -> Tensor:
        """The loss of one batch of letters, (rows, length)."""
        loss = self.network(letters, labels=letters).loss
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> dict:
        """CEGM takes the module itself, and `OneCycleLR` leaves its momentum alone."""
        optimizer = CEGM(self, lr=3e-3)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps, cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


lightning.seed_everything(0, verbose=False)
rows = (torch.arange(32) + torch.arange(256)[:, None]) % 26  # the alphabet from 256 starting points
module = Alphabet()
trainer = lightning.Trainer(
    max_epochs=1,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, DataLoader(rows, batch_size=8, shuffle=True))

print(trainer.optimizers[0].summary())
print(f"loss: {module.losses[0]:.3f} at first, {module.losses[-1]:.3f} at last")
