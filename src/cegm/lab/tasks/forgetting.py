"""Forgetting: what training cost of what the model knew, beside the model that it began with (docs/retention.md).

No paper reports it, and it is measured by comparisons alone, which know the model before. Three kinds of subsets, of which the first is primary:

- `own text`: mean KL divergence per token from the model before, nats, on text that this wrote itself at temperature 1. It is written once per
  comparison, from a seed that no run can have, so that no card has seen it.
- The name of a general corpus: rise of the loss on its held-out rows, nats per token. Where a card has seen the rest of it, a warning says so.
- `lambada` (arXiv 1606.06031), `wsc` (the 273 Winograd schemas) and `blimp` (arXiv 1912.00582), of a folder of public sets: accuracy lost. A
  question counts 1 where only the model before was right, -1 where only the trained one is.

Traps: whoever learns less forgets less, so one learning rate against one says little (`cegm compare --front`). A loss on general text may fall
where the new text is nearer to it than what the model was trained on: then nothing can be said of forgetting there.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import Tensor

from cegm.durable import write_whole
from cegm.lab.records import Before, General
from cegm.lab.strict import json_object
from cegm.lab.tasks.ambiguity import schemas
from cegm.lab.tasks.axis import PILOT, Axis, scored
from cegm.lab.tasks.complexity import minimal_pairs
from cegm.lab.tasks.disambiguation import lambada
from cegm.lab.tasks.items import NotMeasured, Record, Source, available, stable_seed
from cegm.lab.train.card_options import LENGTH
from cegm.lab.train.cards import texts_seen
from cegm.lab.train.home_text import own_rows, plain_corpus
from cegm.lab.train.model import load_trained
from cegm.lab.train.rows import validation_rows
from cegm.lab.train.run_config import RunConfig

if TYPE_CHECKING:
    from cegm.lab.tasks.examinee import Examinee

NAME = "forgetting"
OWN = "own text"
SETS = ("lambada", "wsc", "blimp")

ROWS = 4
"""Per pass: logits of two models are held at a time."""


@dataclass(frozen=True, kw_only=True)
class ForgettingAxis(Axis):
    """The axis with what a comparison knows and no axis else needs.

    Attributes:
        before: File that `write_before` has written; None where there is no model before.
        card: Context card of the examined run; it need not be there.
    """

    before: Path | None = None
    card: Path | None = None

    def examine(self, examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
        """Three kinds of forgetting, a record per row or question; raises `NotMeasured` where there is no model before."""
        if self.before is None:
            raise NotMeasured("forgetting is told beside the model before, which only cegm compare knows")
        before = msgspec.convert(json_object(self.before), Before)
        seen = texts_seen(self.card) if self.card else set()
        for name, corpus in before.general.items():
            if corpus.sha256 in seen:
                warnings.warn(f"the card of this run has seen {name}", stacklevel=2)
        teacher, _ = load_trained(before.model, before.trust_remote_code)
        records = [_record(OWN, row, lost) for row, lost in enumerate(_divergences(teacher.eval(), examinee, before))]
        now = _levels(examinee, before.general, source, items, seed)
        return records + [replace(each, axis=NAME, score=_lost(each, before.scores)) for each in now]


def write_before(
    path: Path,
    run: RunConfig,
    general: Mapping[str, str],
    source: Source,
    items: int,
    seed: int,
    inputs: dict[str, Any],
) -> None:
    """Writes what the model before writes and scores, unless the file tells that already for the same `inputs`.

    Args:
        path: The file.
        run: One of the runs that begin with the model.
        general: General corpora by name: where they lie.
        source: Folder of public sets, or anything else for none.
        items: Rows of its own text and of each corpus, and questions of each public set.
        seed: Draws them; that of the examination.
        inputs: Hashes of whatever the file follows from.

    Raises:
        ValueError: A corpus is missing, too short, or no plain text.
    """
    from cegm.lab.tasks.examinee import Examinee

    settings = {"inputs": inputs, "items": items, "seed": seed}
    if path.exists() and json_object(path).get("settings") == settings:
        return
    begun = time.monotonic()
    model, tokenizer = load_trained(run.model_name_or_path, run.trust_remote_code)
    examinee = Examinee(model, tokenizer)
    length = min(LENGTH, examinee.positions or LENGTH)
    corpora = {name: _corpus(tokenizer, place, items, length) for name, place in general.items()}
    own = own_rows(model, tokenizer, items, length, stable_seed(NAME, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # every run tells what is left out
        scores: dict[str, dict[str, float]] = {}
        for each in _levels(examinee, corpora, source, items, seed):
            scores.setdefault(each.subset, {})[each.item] = each.score
    before = Before(settings, run.model_name_or_path, run.trust_remote_code, own.tolist(), corpora, scores)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(msgspec.to_builtins(before), allow_nan=False))
    print(f"cegm: the model before wrote {own.numel():,} tokens in {time.monotonic() - begun:.0f} s", file=sys.stderr)


def _corpus(tokenizer: Any, place: str, rows: int, length: int) -> General:
    """Held-out rows of a corpus, as a run that trained on it would hold them out."""
    corpus = plain_corpus(place, length)
    return General(corpus.digest(), validation_rows(corpus, tokenizer, length, rows).tokens.tolist())


def _levels(examinee: Examinee, general: Mapping[str, General], source: Source, items: int, seed: int) -> list[Record]:
    """Loss of every general row and every question of public sets, with a warning for each set that is left out."""
    parts: dict[str, Callable[[], list[Record]]] = {
        name: partial(_losses, examinee, name, corpus) for name, corpus in general.items()
    }
    if Path(source).is_dir():
        parts["lambada"] = partial(lambada, examinee, source, items, seed)
        parts["wsc"] = lambda: scored(examinee, NAME, "real", schemas(source)["wsc"][:items])
        parts["blimp"] = partial(minimal_pairs, examinee, source, items, seed)
    else:
        warnings.warn(
            "accuracy lost on LAMBADA, Winograd schemas and BLiMP is left out without their folder (axes_data)",
            stacklevel=2,
        )
    try:
        return available(parts) if parts else []
    except NotMeasured as error:
        warnings.warn(str(error), stacklevel=2)
        return []


def _lost(now: Record, before: Mapping[str, Mapping[str, float]]) -> float:
    """How much worse an item came out: of accuracies before minus now, of losses now minus before."""
    change = now.score - before[now.subset][now.item]
    return -change if now.subset in SETS else change


def _losses(examinee: Examinee, name: str, corpus: General) -> list[Record]:
    """Mean loss of every row, nats per token."""
    rows = torch.tensor(corpus.rows)
    spoken = (
        -logs.gather(-1, part[:, 1:, None]).double().mean((1, 2))
        for part, logs in zip(rows.split(ROWS), _log_probabilities(examinee.model, rows), strict=True)
    )
    losses = [loss for part in spoken for loss in part.tolist()]
    return [_record(name, row, loss) for row, loss in enumerate(losses)]


def _divergences(teacher: Any, examinee: Examinee, before: Before) -> list[float]:
    """KL divergence of the examinee from the model before on each row that this wrote, nats per token."""
    rows = torch.tensor(before.own)
    found: list[float] = []
    for old, new in zip(*(_log_probabilities(model, rows) for model in (teacher, examinee.model)), strict=True):
        found += (old.exp() * (old - new)).sum(-1).double().mean(-1).tolist()
    return found


@torch.no_grad()
def _log_probabilities(model: Any, rows: Tensor) -> Iterator[Tensor]:
    """Of every next token, (rows, length - 1, vocabulary), a few rows at a time."""
    for part in rows.split(ROWS):
        logits = model(input_ids=part.to(model.device), use_cache=False).logits[:, :-1]
        yield logits.float().log_softmax(-1).cpu()


def _record(subset: str, row: int, score: float) -> Record:
    return Record(NAME, "real", subset, str(row), str(row), 0.0, score, score, math.nan)


AXIS = ForgettingAxis(
    name=NAME,
    title="Forgetting at one rate",
    paper=PILOT,
    measure="KL divergence from the model before per token of text that it wrote itself",
    unit="nats per token",
    better="lower",
    control="the model before: 0 everywhere",
    primary=(OWN,),
    sets=("blimp", "lambada", "wsc_xwinograd_en"),
    no_task="it needs the model before beside the examined one",
)
