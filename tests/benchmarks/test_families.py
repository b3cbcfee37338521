"""Every family trains at tiny size, its tiny model stands for the published one, and the page says what comes out."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")
pytest.importorskip("peft")

import families
from cegm import CEGM
from families import FAMILIES, Family, Shares, Trained

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
WEIGHTS = {
    "Llama": 8_030_261_248,
    "GPT-2": 124_439_808,
    "GPT-NeoX": 20_554_567_680,
    "Phi-3": 3_821_079_552,
    "Qwen3": 8_190_735_360,
    "Gemma3": 999_885_952,
    "Mixtral": 46_702_792_704,
    "Qwen3-MoE": 30_532_122_624,
    "DeepSeek-V3": 671_026_419_200 - 58 * 256,  # the corrections of its routers are no weights
    "gpt-oss": 20_914_757_184,
    "BERT": 109_514_298,
    "T5": 60_506_624,
    "Whisper": 37_760_640 - 1500 * 384,  # the positions of its encoder are fixed
    "CLIP": 151_277_313,
    "Mamba2": 7_285_403_648,
    "ViT": 86_567_656,
    "Swin": 28_288_354,
    "ResNet": 25_557_032,
    "ConvNeXt": 28_589_128,
    "BEiT": 86_530_984,
    "LFM2": 1_170_340_608,
}
"""What the authors of the published models count."""

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)


@cache
def trained(family: Family) -> Trained:
    return families.train(family)


@cache
def measured(family: Family) -> Shares:
    return families.measure(family, trained(family).seen)


@cache
def published(family: Family) -> CEGM:
    with torch.device("meta"):
        return CEGM(family.build(family.shape))


def kinds(optimizer: CEGM) -> set[tuple[str, str, str]]:
    return {(families.folded(a.name), a.role, a.reason) for a in optimizer._assignments.values()}


@every_family
def test_two_steps_lower_the_loss(family: Family) -> None:
    assert trained(family).after < trained(family).before


@every_family
def test_every_trainable_parameter_is_assigned_once(family: Family) -> None:
    with torch.device("meta"):
        model = family.build(family.shape)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    names = Counter(a.name for a in CEGM(model)._assignments.values())
    assert names == Counter(trainable.keys())
    assert measured(family).weights == sum(p.numel() for p in trainable.values())


@every_family
def test_the_tiny_model_has_the_kinds_of_weights_of_the_published_one(family: Family) -> None:
    assert kinds(trained(family).optimizer) == kinds(published(family))


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.title in WEIGHTS], ids=lambda family: family.title)
def test_the_published_shape_is_that_of_the_authors(family: Family) -> None:
    assert measured(family).weights == WEIGHTS[family.title]


def test_contexts_are_seen_where_layers_are_called() -> None:
    """And not where a layer, a head that is skipped, is never called."""

    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 6)

        def forward(self, inputs: torch.Tensor) -> families.transformers.utils.ModelOutput:
            hidden = nn.functional.linear(self.first(inputs).relu(), self.second.weight, self.second.bias)
            return families.transformers.utils.ModelOutput(loss=self.third(hidden.relu()).square().mean())

    family = Family("skipping", "itself", lambda _: Skipping(), {}, {}, lambda: {"inputs": torch.randn(5, 8)})
    with pytest.warns(UserWarning, match="second.weight"):
        seen = families.train(family).seen
    assert "first.weight" in seen
    assert "second.weight" not in seen
    shares = families.measure(family, seen)
    assert shares.unseen.total() == 12 * 12
    assert shares.weights == 8 * 12 + 12 * 12 + 12 * 6 + 12 + 12 + 6


def test_the_page_has_the_table_of_the_script() -> None:
    rows = [families.row(family, measured(family)) for family in FAMILIES]
    assert len(rows) == 25
    assert families.table(rows) in PAGE.read_text(), "python benchmarks/families.py --table docs/models.md"


def test_a_table_takes_the_place_of_the_one_before() -> None:
    page = f"before\n{families.BEGIN}\n{families.END}\nafter\n"
    once = families.page_with("| a |", page)
    assert once == f"before\n{families.BEGIN}\n| a |\n{families.END}\nafter\n"
    assert families.page_with("| b |", once) == once.replace("| a |", "| b |")


@pytest.mark.parametrize(
    ("weights", "written"),
    [(46_702_792_704, "46.7 B"), (999_885_952, "1.00 B"), (124_439_808, "124 M"), (7_050, "7.05 k"), (1e9, "1.00 B")],
)
def test_sizes_have_three_digits(weights: int, written: str) -> None:
    assert families.size(weights) == written


@pytest.mark.parametrize(
    ("part", "written"),
    [(0, "none"), (1000, "all"), (869, "86.9 %"), (0.4, "< 0.1 %"), (0.6, "0.1 %"), (999.9, "99.9 %")],
)
def test_a_share_is_all_or_none_only_where_it_is_exactly_that(part: float, written: str) -> None:
    assert families.share(part, 1000) == written
