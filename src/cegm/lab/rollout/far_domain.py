"""The gate of a far domain: a model that predicts the user's own texts too badly is to be adapted to them before anybody is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cegm.lab.rollout.rollout_config import RolloutConfig

TEXTS = 200
LETTERS = 2_000
"""Of each text as many are read."""

LENGTH, ROWS = 256, 16
"""Tokens of a row, and rows of a pass."""


def require_near(config: RolloutConfig, fixed: float | None, model: Path) -> dict[str, Any]:
    """The facts of an approval about local texts; none where neither texts nor a limit were ever given.

    Args:
        config: With the texts and the limit.
        fixed: Limit that an earlier approval of this roll-out has fixed.
        model: Folder of the model of the release.

    Raises:
        ValueError: The model needs more bits per byte than the limit, there are too few texts, or the limit is another than before.
    """
    limit = config.most_bits_per_byte if fixed is None else fixed
    if limit is None and not config.local_texts:
        return {}
    if limit is None:
        raise ValueError(f"local_texts={config.local_texts} are given without a limit; give --most_bits_per_byte")
    if config.most_bits_per_byte not in (None, limit):
        raise ValueError(f"most_bits_per_byte={config.most_bits_per_byte:g} was fixed at {limit:g}; leave it")
    if not config.local_texts:
        raise ValueError(f"the limit of {limit:g} bits per byte needs texts of yours; give --local_texts")
    bits, digest = _bits_per_byte(model, config.local_texts)
    if bits > limit:
        raise ValueError(
            f"{config.local_texts}: {bits:.3f} bits per byte are above the limit of {limit:g}, so an adaptation run is required "
            f"first: cegm train --model_name_or_path {model} --data {config.local_texts}"
        )
    return {"most_bits_per_byte": limit, "bits_per_byte": bits, "texts": TEXTS, "texts_sha256": digest}


def _bits_per_byte(model: Path, place: str) -> tuple[float, str]:
    """Bits per byte of the first letters of 200 texts, and the hash of what was read."""
    from cegm.lab.train.data import Corpus
    from cegm.lab.train.evaluate import from_rows, validate
    from cegm.lab.train.home_text import plain_corpus
    from cegm.lab.train.model import load_trained
    from cegm.lab.train.prepare import quieten
    from cegm.lab.train.rows import validation_rows

    quieten()
    there = plain_corpus(place, LENGTH)
    documents = sorted([*there.train, *there.validation])
    if len(documents) < TEXTS:
        raise ValueError(f"local_texts={place} holds {len(documents)} texts and {TEXTS} are needed; give more")
    step = len(documents) / TEXTS
    read = Corpus("text", [], [documents[int(step * each)][:LETTERS] for each in range(TEXTS)])
    loaded, tokenizer = load_trained(str(model), trust_remote_code=False)
    spelled = tokenizer(read.validation, add_special_tokens=False)["input_ids"]
    if any(tokenizer.unk_token_id in ids for ids in spelled):  # what is unknown is cheap to predict
        raise ValueError(
            f"the tokenizer of {model} cannot spell local_texts={place}; train a model that reads such text"
        )
    rows = validation_rows(read, tokenizer, LENGTH, TEXTS * LETTERS)
    return validate(loaded, from_rows(rows, ROWS)).bits_per_byte, read.digest()
