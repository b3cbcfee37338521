"""Where text comes from: the generated world, files, folders or the hub; and what is held out for validation.

A corpus is a list of documents (plain text), or of rows with `messages` or `prompt` and `completion`. What is held out does not depend on the
seed, so all seeds of a comparison are measured on the same text.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from cegm.lab.files import EMPTY, ROW_SUFFIXES, TEXT_SUFFIXES, LeftOut, decoded, text_files, told
from cegm.lab.train import json_rows
from cegm.lab.train.cutting import cut_after, cut_before
from cegm.lab.train.json_rows import Kind
from cegm.lab.train.markup import strip_markdown
from cegm.lab.train.run_config import WORLD, RunConfig

WHOLE_DOCUMENTS = 10
"""From this many documents on, whole documents are held out; below it, the end of each."""

HELD_OUT = "held out too, and so not trained on"


@dataclass(frozen=True)
class Corpus:
    """Text for one run.

    Attributes:
        kind: `text` (documents are strings), `messages` or `completion` (documents are rows for SFTTrainer).
        train: Documents to learn from.
        validation: Held-out documents; none of them is in `train`.
        left_out: Names of what the sources hold besides, by reason.
    """

    kind: Kind
    train: list[Any]
    validation: list[Any]
    left_out: LeftOut = field(default_factory=dict)

    def digest(self) -> str:
        """sha256 of everything in it, hex."""
        sha = hashlib.sha256(self.kind.encode())
        for part in (self.train, self.validation):
            for document in part:
                text = document if isinstance(document, str) else json.dumps(document, sort_keys=True)
                sha.update(hashlib.sha256(text.encode()).digest())
            sha.update(b"|")
        return sha.hexdigest()


def load_corpus(config: RunConfig, processes: int = 1) -> Corpus:
    """The text of a run, split into training and validation; ValueError where data is missing, empty or unreadable.

    Of the world, as much is made as the run and its processes will use.
    """
    if config.data == WORLD:
        return _world(config, processes)
    kind, documents, left_out = _read(config.data)
    if config.validation_data is not None:
        held_out = _read(config.validation_data)
        if held_out.kind != kind:
            raise ValueError(
                f"{config.validation_data} holds {held_out.kind} rows but {config.data} holds {kind} rows; use one kind for both"
            )
        both = {r: left_out.get(r, []) + held_out.left_out.get(r, []) for r in {**left_out, **held_out.left_out}}
        corpus = Corpus(kind, documents, held_out.documents, both)
    elif kind == "text" and len(documents) < WHOLE_DOCUMENTS:
        corpus = Corpus(kind, *_split_ends(documents, config.validation_fraction), left_out)
    else:
        corpus = Corpus(kind, *_split_documents(documents, config), left_out)
    return _without_overlap(corpus, config.data)


def rows_per_run(config: RunConfig, processes: int = 1) -> int | None:
    """Rows that the whole run draws, or None when it goes through all data."""
    if config.steps is None:
        return None
    return config.steps * config.per_device_train_batch_size * config.gradient_accumulation_steps * processes


def _world(config: RunConfig, processes: int) -> Corpus:
    """As many generated documents as the run can use: no text is seen twice. The validation text is the same for all seeds."""
    from cegm.lab import world

    rows = rows_per_run(config, processes)
    assert rows is not None, "the configuration refuses epochs over a world without end"
    train = _until(world.documents(config.seed, "train"), rows * config.max_length)
    validation = _until(world.documents(0, "validation"), config.eval_rows * config.max_length)
    return Corpus("text", train, validation)


def _until(documents: Iterator[str], words: int) -> list[str]:
    """Documents until they hold `words` words; a word is at least one token."""
    taken: list[str] = []
    while words > 0:
        taken.append(next(documents))
        words -= taken[-1].count(" ") + 1
    return taken


# ---------------------------------------------------------------------- reading


class Documents(NamedTuple):
    """What a source holds.

    Attributes:
        kind: As of a corpus.
        documents: In the order in which they were read.
        left_out: Files of a folder that were not read, or fields of rows, by reason.
    """

    kind: Kind
    documents: list[Any]
    left_out: LeftOut


def _read(source: str) -> Documents:
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        if suffix in ROW_SUFFIXES:
            return Documents(*json_rows.read(path))
        if suffix in TEXT_SUFFIXES:
            return Documents("text", [_require_text(_read_text(path), path)], {})
        raise ValueError(
            f"{source} is not a kind of data that can be read; use .jsonl, .json, .txt, .md or a folder of .txt and .md, "
            "none of them compressed"
        )
    looks_like_path = (
        suffix in (*ROW_SUFFIXES, *TEXT_SUFFIXES) or source.startswith((".", "/", "~")) or source.count("/") > 1
    )
    if looks_like_path:
        raise ValueError(f"data {source} does not exist; give a file, a folder, 'world' or a hub data set")
    return _read_hub(source)


def _read_text(path: Path) -> str:
    """One file as text, markup of .md stripped."""
    text = decoded(path)
    return strip_markdown(text) if path.suffix.lower() == ".md" else text


def _require_text(text: str, path: Path) -> str:
    if not text.strip():
        raise ValueError(f"{path} is empty; give a file with text")
    return text


def _read_folder(folder: Path) -> Documents:
    files, left_out = text_files(folder)
    documents = []
    for path in files:
        text = _read_text(path)
        if text.strip():
            documents.append(text)
        else:
            left_out.setdefault(EMPTY, []).append(path.relative_to(folder).as_posix())
    if not documents:
        seen = f"; it has {told(left_out)}" if left_out else ""
        raise ValueError(f"folder {folder} holds no text in .txt or .md files{seen}")
    return Documents("text", documents, left_out)


def _read_hub(name: str) -> Documents:
    """Training split of a hub data set; `name:configuration` picks a configuration."""
    import datasets

    path, _, configuration = name.partition(":")
    try:
        table = datasets.load_dataset(path, configuration or None, split="train")
    except Exception as error:  # the hub client raises a dozen unrelated types
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"data {name!r} is no file or folder here, and the hub did not give it: {reason}") from error
    numbered = ((f"{name} row {number}", row) for number, row in enumerate(table, start=1))
    return Documents(*json_rows.documents(numbered, name))


# ---------------------------------------------------------------------- splitting


def _split_documents(documents: list[Any], config: RunConfig) -> tuple[list[Any], list[Any]]:
    """Holds out whole documents, chosen by a fixed shuffle, until they make up the fraction."""
    if len(documents) < 2:
        raise ValueError(
            f"{config.data} holds {len(documents)} row, too little to hold one out; add rows or give validation_data"
        )
    sizes = [len(d) if isinstance(d, str) else len(json.dumps(d)) for d in documents]
    order = list(range(len(documents)))
    random.Random(0).shuffle(order)
    wanted = config.validation_fraction * sum(sizes)
    held_out: set[int] = set()
    for index in order[:-1]:
        held_out.add(index)
        wanted -= sizes[index]
        if wanted <= 0:
            break
    train = [document for index, document in enumerate(documents) if index not in held_out]
    return train, [document for index, document in enumerate(documents) if index in held_out]


def _split_ends(documents: list[str], fraction: float) -> tuple[list[str], list[str]]:
    """Holds out the end of each document, cut between words where it has any."""
    train, validation = [], []
    for document in documents:
        wanted = int(len(document) * (1.0 - fraction))
        cut = cut_after(document, wanted) if wanted else 0
        if not document[cut:].strip():  # the last word
            cut = cut_before(document.rstrip(), min(wanted, len(document.rstrip()) - 1))
        train.append(document[:cut])
        validation.append(document[cut:].lstrip())
    return train, [text for text in validation if text]


def _without_overlap(corpus: Corpus, source: str) -> Corpus:
    """Leaves training documents out that are also held out."""
    held_out = {json.dumps(document, sort_keys=True) for document in corpus.validation}
    train: list[Any] = []
    names: list[str] = []
    for index, document in enumerate(corpus.train, start=1):
        if json.dumps(document, sort_keys=True) in held_out:
            names.append(f"document {index}")
        else:
            train.append(document)
    if not train:
        raise ValueError(
            f"{source} has nothing left to train on once the validation text is held out; give other validation_data"
        )
    return replace(corpus, train=train, left_out={**corpus.left_out, **({HELD_OUT: names} if names else {})})
