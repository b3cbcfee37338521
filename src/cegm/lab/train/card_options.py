"""`CardConfig`: what decides a context card. No heavy import here: the command line reads this file to print its help."""

from __future__ import annotations

from dataclasses import dataclass

from cegm.lab.declarations import LARGEST_SEED, Declared, option
from cegm.options import CARD_SHARE

TOKENS, LENGTH = 16_384, 256

SUFFIX = ".safetensors"


@dataclass
class CardConfig(Declared):
    """One context card. Every field is a flag of `cegm card`.

    Raises:
        ValueError: In one line, for anything that could not run.
    """

    model_name_or_path: str = option("", "local folder, GGUF file or hub name of a causal language model, or smollm2")
    text: str = option(
        "", "home text instead of the model's own: files or folders, comma-separated; their cards add up"
    )
    tokens: int = option(TOKENS, "tokens of each text; of its own the model writes so many", low=1)
    length: int = option(LENGTH, "tokens per row", low=2)
    share: float = option(
        CARD_SHARE, "of the directions of each layer, how many are kept apart", low=0, high=1, above=True
    )
    demands: bool = option(False, "keep home demands as well, which retain_gradient_power needs")
    seed: int = option(0, "of what the model writes, and of its draws", low=0, high=LARGEST_SEED)
    output: str = option("card.safetensors", "file that is written")
    trust_remote_code: bool = option(False, "run code that a hub model brings along")

    def __post_init__(self) -> None:
        if not self.model_name_or_path:
            raise ValueError("of which model? give a local folder or a hub name: cegm card runs/mine/model")
        super().__post_init__()
        if not self.output.endswith(SUFFIX):
            raise ValueError(f"output={self.output} is no name of a card; let it end in {SUFFIX}")
