"""Where text comes from: the generated world, files, folders or the hub; and what is held out for validation.

A corpus is a list of documents (plain text), or of rows with `messages` or `prompt` and `completion`. What is held out does not depend on the
seed, so all seeds of a comparison are measured on the same text.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cegm.strict import json_value
from cegm.train.config import WORLD, RunConfig
from cegm.train.markup import strip_markdown

Kind = Literal["text", "messages", "completion"]
TEXT_SUFFIXES = (".txt", ".md")
WHOLE_DOCUMENTS = 10
"""From this many documents on, whole documents are held out; below it, the end of each."""


@dataclass(frozen=True)
class Corpus:
    """Text for one run.

    Attributes:
        kind: `text` (documents are strings), `messages` or `completion` (documents are rows for SFTTrainer).
        train: Documents to learn from.
        validation: Held-out documents; none of them is in `train`.
    """

    kind: Kind
    train: list[Any]
    validation: list[Any]

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
    """The text of a run, split into training and validation.

    Args:
        config: Names the data, the held-out part and, for the world, how much text the run will use.
        processes: Processes that share the training data.

    Raises:
        ValueError: Missing, empty or unreadable data, in one line.
    """
    if config.data == WORLD:
        return _world(config, processes)
    kind, documents = _read(config.data)
    if config.validation_data is not None:
        held_out_kind, held_out = _read(config.validation_data)
        if held_out_kind != kind:
            raise ValueError(
                f"{config.validation_data} holds {held_out_kind} rows but {config.data} holds {kind} rows; use one kind for both"
            )
        corpus = Corpus(kind, documents, held_out)
    elif kind == "text" and len(documents) < WHOLE_DOCUMENTS:
        corpus = _split_ends(documents, config.validation_fraction)
    else:
        corpus = _split_documents(kind, documents, config)
    return _without_overlap(corpus, config.data)


def rows_per_run(config: RunConfig, processes: int = 1) -> int | None:
    """Rows that the whole run draws, or None when it goes through all data."""
    if config.steps is None:
        return None
    return config.steps * config.per_device_train_batch_size * config.gradient_accumulation_steps * processes


def _world(config: RunConfig, processes: int) -> Corpus:
    """As many generated documents as the run can use: no text is seen twice. The validation text is the same for all seeds."""
    from cegm import world

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


def _read(source: str) -> tuple[Kind, list[Any]]:
    path = Path(source).expanduser()
    if path.is_dir():
        return "text", _read_folder(path)
    if path.is_file():
        if path.suffix in (".jsonl", ".json"):
            return _read_jsonl(path)
        if path.suffix in TEXT_SUFFIXES:
            return "text", [_require_text(_read_text(path), path)]
        raise ValueError(
            f"{source} is not a kind of data that can be read; use .jsonl, .txt, .md or a folder of .txt and .md"
        )
    looks_like_path = (
        path.suffix in (".jsonl", ".json", *TEXT_SUFFIXES)
        or source.startswith((".", "/", "~"))
        or source.count("/") > 1
    )
    if looks_like_path:
        raise ValueError(f"data {source} does not exist; give a file, a folder, 'world' or a hub data set")
    return _read_hub(source)


def _read_text(path: Path) -> str:
    """One file as text: UTF-8 with or without byte order mark, any line ends, markup of .md stripped."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); convert it first") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return strip_markdown(text) if path.suffix == ".md" else text


def _require_text(text: str, path: Path) -> str:
    if not text.strip():
        raise ValueError(f"{path} is empty; give a file with text")
    return text


def _read_folder(folder: Path) -> list[str]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in TEXT_SUFFIXES and path.is_file())
    documents = [text for text in map(_read_text, files) if text.strip()]
    if not documents:
        raise ValueError(f"folder {folder} holds no text in .txt or .md files")
    return documents


def _read_jsonl(path: Path) -> tuple[Kind, list[Any]]:
    kinds: list[Kind] = []
    documents: list[Any] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); convert it first") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        kind, document = _document(json_value(line, f"{path} row {number}"), f"{path} row {number}")
        if kinds and kind != kinds[0]:
            raise ValueError(
                f"{path} row {number} holds {kind} but the first row holds {kinds[0]}; use one kind per file"
            )
        kinds.append(kind)
        documents.append(document)
    if not documents:
        raise ValueError(f"{path} is empty; give a file with rows")
    return kinds[0], documents


def _document(row: Any, where: str) -> tuple[Kind, Any]:
    """Kind and content of one row; `where` begins the error message."""
    if isinstance(row, dict):
        text, messages = row.get("text"), row.get("messages")
        if _is_text(text):
            return "text", text
        if isinstance(messages, list) and messages and all(_is_message(message) for message in messages):
            return "messages", {"messages": messages}
        if _is_turn(row.get("prompt")) and _is_turn(row.get("completion")):
            return "completion", {"prompt": row["prompt"], "completion": row["completion"]}
    raise ValueError(
        f"{where} has no text: it needs 'text', 'messages', or 'prompt' and 'completion', none of them empty"
    )


def _is_text(value: Any) -> bool:
    # A lone surrogate can be written in JSON but is no character, and every tokenizer stumbles over it.
    return (
        isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and _is_text(value.get("role")) and _is_text(value.get("content"))


def _is_turn(value: Any) -> bool:
    return _is_text(value) or (
        isinstance(value, list) and bool(value) and all(_is_message(message) for message in value)
    )


def _read_hub(name: str) -> tuple[Kind, list[Any]]:
    """Training split of a hub data set; `name:configuration` picks a configuration."""
    import datasets

    path, _, configuration = name.partition(":")
    try:
        rows = datasets.load_dataset(path, configuration or None, split="train")
    except Exception as error:  # the hub client raises a dozen unrelated types
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"data {name!r} is no file or folder here, and the hub did not give it: {reason}") from error
    read = [_document(row, f"{name} row {number}") for number, row in enumerate(rows, start=1)]
    kinds = {kind for kind, _ in read}
    if len(kinds) != 1:
        raise ValueError(f"data set {name} holds rows of kinds {sorted(kinds)}; exactly one kind can be trained on")
    return kinds.pop(), [document for _, document in read]


# ---------------------------------------------------------------------- splitting


def _split_documents(kind: Kind, documents: list[Any], config: RunConfig) -> Corpus:
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
    return Corpus(
        kind,
        [d for i, d in enumerate(documents) if i not in held_out],
        [d for i, d in enumerate(documents) if i in held_out],
    )


def _split_ends(documents: list[str], fraction: float) -> Corpus:
    """Holds out the end of each document, cut between words."""
    train, validation = [], []
    for document in documents:
        cut = int(len(document) * (1.0 - fraction))
        while 0 < cut < len(document) and not document[cut].isspace():
            cut += 1
        train.append(document[:cut])
        validation.append(document[cut:].lstrip())
    return Corpus("text", train, [text for text in validation if text])


def _without_overlap(corpus: Corpus, source: str) -> Corpus:
    """Drops training documents that are also held out."""
    held_out = {json.dumps(document, sort_keys=True) for document in corpus.validation}
    train = [document for document in corpus.train if json.dumps(document, sort_keys=True) not in held_out]
    if not train:
        raise ValueError(
            f"{source} has nothing left to train on once the validation text is held out; give other validation_data"
        )
    return replace(corpus, train=train)
