"""Texts that a model predicts too badly ask for an adaptation run before anybody is served; the limit is fixed once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cegm.lab.rollout import far_domain
from cegm.lab.rollout.far_domain import require_near
from cegm.lab.rollout.rollout_config import RolloutConfig


@pytest.fixture
def bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_domain, "_bits_per_byte", lambda model, place: (1.25, "hash"))


@pytest.mark.usefixtures("bits")
def test_near_texts_are_noted_and_far_ones_refused() -> None:
    near = require_near(RolloutConfig(local_texts="texts", most_bits_per_byte=1.25), None, Path("m"))
    assert near == {"most_bits_per_byte": 1.25, "bits_per_byte": 1.25, "texts": 200, "texts_sha256": "hash"}
    with pytest.raises(
        ValueError, match=r"1\.250 bits per byte are above the limit of 1\.2, so an adaptation run is required"
    ):
        require_near(RolloutConfig(local_texts="texts", most_bits_per_byte=1.2), None, Path("m"))


@pytest.mark.usefixtures("bits")
@pytest.mark.parametrize(
    ("texts", "limit", "fixed", "said"),
    [
        ("texts", None, None, "without a limit; give --most_bits_per_byte"),
        ("", 1.2, None, "needs texts of yours; give --local_texts"),
        ("", None, 1.2, "needs texts of yours; give --local_texts"),
        ("texts", 9.0, 1.2, "most_bits_per_byte=9 was fixed at 1.2"),
        ("texts", None, 1.2, "above the limit of 1.2"),
    ],
)
def test_a_limit_that_was_fixed_holds(texts: str, limit: float | None, fixed: float | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        require_near(RolloutConfig(local_texts=texts, most_bits_per_byte=limit), fixed, Path("m"))


def test_without_texts_and_limit_there_is_no_gate() -> None:
    assert require_near(RolloutConfig(), None, Path("nowhere")) == {}


def test_bits_per_byte_are_those_of_the_model_on_200_texts(tmp_path: Path) -> None:
    """An untrained model of 256 bytes is about as sure of every byte, which is eight bits; one without letters is of none."""
    pytest.importorskip("trl")
    from transformers import LlamaConfig, LlamaForCausalLM

    from cegm.lab.train.model import byte_tokenizer, load_tokenizer
    from cegm.lab.train.run_config import RunConfig

    tokenizer, words = byte_tokenizer(), load_tokenizer(RunConfig())
    shape = LlamaConfig(
        vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    LlamaForCausalLM(shape).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for count in (200, 199):
        texts = tmp_path / f"{count} texts"
        texts.mkdir()
        for number in range(count):
            (texts / f"{number}.txt").write_text(f"text {number}: a letter to somebody.\n" * 10)
    found, digest = far_domain._bits_per_byte(tmp_path / "model", str(tmp_path / "200 texts"))
    assert found == pytest.approx(math.log2(len(words)), abs=0.2)
    assert len(digest) == 64
    with pytest.raises(ValueError, match="holds 199 texts and 200 are needed"):
        far_domain._bits_per_byte(tmp_path / "model", str(tmp_path / "199 texts"))
    words.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="cannot spell local_texts"):
        far_domain._bits_per_byte(tmp_path / "model", str(tmp_path / "200 texts"))
