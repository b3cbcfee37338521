"""A company's own questions: rows of three kinds, which of them cannot be used, and why.

====================  =====================================  =====================================
task                  a row of JSON has                      and may have
====================  =====================================  =====================================
`faq`                 `question`, `answer` (or `intent`)     `id`
`search`              `question`, `passage`                  `id`
`summaries`           `text`, `summary` (one or a list)      `id`
====================  =====================================  =====================================

They come as a folder with `train.jsonl` and `test.jsonl`, as one file, of which every fifth row is a test, or as a folder of public sets.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import msgspec

from cegm.lab.files import decoded
from cegm.lab.tasks.faq import queries
from cegm.lab.tasks.items import stable_seed
from cegm.lab.tasks.public.documents import papers

Task = Literal["search", "faq", "summaries"]
TASKS: tuple[Task, ...] = get_args(Task)
FIELDS: dict[Task, tuple[str, str]] = {
    "faq": ("question", "answer"),
    "search": ("question", "passage"),
    "summaries": ("text", "summary"),
}
"""What is asked, and what answers it."""

INTENT = "intent"
SETS: dict[Task, str] = {"faq": "faq_banking77", "search": "sci_scitldr", "summaries": "sci_scitldr"}
ONE_IN = 5
"""Of one file, so many rows go to training for one that is a test, itself counted."""

NAMED = 3
"""Of rows left out for one reason, as many are named."""

IDENTIFIER = re.compile(r"(?=\S*[\d_])\S{4,}")
"""An answer that is no word of a language, so that a question which holds it was given it."""

FUNCTION_WORDS = {
    "en": "the and of is are my to what how do does can for with it not was i you this that have",
    "de": "der die das und ist nicht ein eine ich sie mit für auf wie was kann mein meine den dem zu",
    "fr": "le la les et est une des je vous mon ma pas que qui pour dans avec sur comment puis",
    "es": "el los las es una mi por para con cómo qué puedo del se su está que en como",
    "it": "il lo gli è un una mio mia per con come che non del della posso sono nel",
    "pt": "o os as é um uma meu minha para com como que não do da posso em está",
}
WORDS_OF = {language: frozenset(words.split()) for language, words in FUNCTION_WORDS.items()}
SURE_WORDS = 3
"""Function words of another language, with none of the usual one, that tell a language from a quotation."""

WORD = re.compile(r"\w+")
LETTERS = 60
"""Characters of a row that its script is read from."""


@dataclass(frozen=True)
class Row:
    """A question (or text) and what answers it; of summaries any of several, else one."""

    name: str
    asked: str
    answers: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The first answer."""
        return self.answers[0]

    def line(self, task: Task) -> str:
        """The row as a line of a file of its task."""
        asked, answered = FIELDS[task]
        answer = list(self.answers) if task == "summaries" else self.answer
        return json.dumps({"id": self.name, asked: self.asked, answered: answer}, ensure_ascii=False) + "\n"


@dataclass
class Rows:
    """Rows that can be used, and those that cannot: by file and reason their numbers in it."""

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    left_out: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))

    def told(self) -> list[str]:
        """One line per file and reason."""
        return [
            f"{len(numbers):,} of {file} left out: {reason} (row {_some(numbers)})"
            for (file, reason), numbers in self.left_out.items()
        ]


def _some(numbers: Sequence[int]) -> str:
    return ", ".join([*map(str, numbers[:NAMED]), *(["..."] if len(numbers) > NAMED else [])])


def read_rows(task: Task, source: str) -> Rows:
    """All rows of a task; ValueError where there are no two usable ones to train on and to be asked."""
    path, rows = Path(source).expanduser(), Rows()
    if path.is_file():
        both = list(_own(path, task, rows))
        test = [each for each in both if stable_seed("company", each[1].name) % ONE_IN == 0]
        train = [each for each in both if stable_seed("company", each[1].name) % ONE_IN != 0]
        files = path.name, path.name
    elif (path / "test.jsonl").is_file():
        files = "train.jsonl", "test.jsonl"
        train, test = (list(_own(path / name, task, rows)) for name in files)
    elif (path / SETS[task]).is_dir():
        files = f"train of {SETS[task]}", f"test of {SETS[task]}"
        train, test = (list(enumerate(split, start=1)) for split in _public(task, source))
    else:
        raise ValueError(
            f"data {source} holds nothing for {task}; give a .jsonl file with {' and '.join(FIELDS[task])}, a folder with train.jsonl "
            f"and test.jsonl, or one with the public set {SETS[task]}"
        )
    _sift(task, train, test, files, rows)
    if min(len(rows.train), len(rows.test)) < 2:
        told = "; ".join(rows.told()) or "it holds too few"
        raise ValueError(f"data {source} leaves {len(rows.train)} rows to train on and {len(rows.test)} to ask: {told}")
    return rows


def plain_rows(path: Path, task: Task) -> list[Row]:
    """The rows of a file that was written from usable ones."""
    return [row for _, row in _own(path, task, Rows())]


def _own(path: Path, task: Task, rows: Rows) -> Iterator[tuple[int, Row]]:
    """Whole rows of a file, each after its number."""
    asked_field, answer_field = FIELDS[task]
    for number, line in enumerate(decoded(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line)
        except msgspec.DecodeError:
            found = None
        if not isinstance(found, dict):
            rows.left_out[path.name, "no JSON object"].append(number)
            continue
        answer = found.get(answer_field, found.get(INTENT) if task == "faq" else None)
        asked = _clean(found.get(asked_field))
        answers = tuple(filter(None, map(_clean, answer if isinstance(answer, list) else [answer])))
        if not asked or not answers:
            rows.left_out[path.name, f"no {answer_field if asked else asked_field}"].append(number)
            continue
        name = found.get("id")
        yield number, Row(f"{stable_seed(asked, *answers):016x}" if name is None else str(name), asked, answers)


def _clean(text: object) -> str:
    """One line without doubled blanks; nothing for what is no text."""
    words = text if isinstance(text, str) else ""
    return " ".join(words.encode("utf-8", "ignore").decode().split())


def _sift(
    task: Task,
    train: Sequence[tuple[int, Row]],
    test: Sequence[tuple[int, Row]],
    files: tuple[str, str],
    rows: Rows,
) -> None:
    """Puts what can be used into `rows`, and notes the rest; a row is counted for the first reason that fits."""
    usual = _usual_language(row.asked for _, row in (*train, *test))
    names: set[str] = set()
    asked: set[str] = set()
    for number, row in test:
        if reason := _fault(row, usual, names, asked):
            rows.left_out[files[1], reason].append(number)
        else:
            rows.test.append(row)
    asked_names, asked_texts = set(names), set(asked)
    names, asked = set(), set()
    for number, row in train:
        if row.name in asked_names:
            rows.left_out[files[0], "its id is in the test, too"].append(number)
        elif _key(row.asked) in asked_texts:
            rows.left_out[files[0], "it is in the test, too"].append(number)
        elif reason := _fault(row, usual, names, asked):
            rows.left_out[files[0], reason].append(number)
        else:
            rows.train.append(row)
    if task == "faq":
        known = {row.answer for row in rows.train}
        numbers = {row.name: number for number, row in test}
        strange = [row for row in rows.test if row.answer not in known]
        rows.test = [row for row in rows.test if row.answer in known]
        for row in strange:
            rows.left_out[files[1], "no training row has its answer"].append(numbers[row.name])


def _fault(row: Row, usual: str, names: set[str], asked: set[str]) -> str:
    """Why a row cannot stand beside those before it, whose names and questions are given; if it can, it is one of them."""
    key = _key(row.asked)
    if _language(row.asked, usual) != usual:
        return "in another language than most"
    if IDENTIFIER.fullmatch(row.answer) and row.answer.lower() in key:
        return "the id of its answer stands in it"
    if key in asked:
        return "a duplicate"
    if row.name in names:
        return "its id is another row's, too"
    names.add(row.name)
    asked.add(key)
    return ""


def _key(text: str) -> str:
    return text.lower()


def _usual_language(texts: Iterable[str]) -> str:
    """The language, or script, that most rows are in."""
    found = Counter(_language(text, "") for text in texts).most_common(1)
    return found[0][0] if found else ""


def _language(text: str, usual: str) -> str:
    """The script of a text; of Latin letters the language whose function words it has, where those are clear, else the usual one."""
    script = _script(text)
    if script != "LATIN":
        return script if script else usual
    words = Counter(WORD.findall(text.lower()[:400]))
    hits = {language: sum(words[word] for word in known & words.keys()) for language, known in WORDS_OF.items()}
    best = max(hits, key=lambda language: hits[language])
    if usual in hits:
        return best if hits[best] >= SURE_WORDS and not hits[usual] else usual
    return best if hits[best] else usual


def _script(text: str) -> str:
    """The script of most of a text's first letters; kana and kanji count as one."""
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else ""
    names = Counter(
        "JAPANESE" if name in ("HIRAGANA", "KATAKANA", "CJK") else name
        for name in (unicodedata.name(letter, " ").split()[0] for letter in text[:LETTERS] if letter.isalpha())
    )
    return names.most_common(1)[0][0] if names else ""


def _public(task: Task, source: str) -> tuple[list[Row], list[Row]]:
    """Rows of the public set of a task: Banking77, or SciTLDR, whose readers' summaries are what is searched with."""
    if task == "faq":
        splits = (queries(source, "train"), queries(source, "test"))
        train, test = ([_row(q.name, q.text, q.intent.replace("_", " ")) for q in split] for split in splits)
        return train, test
    train_papers, test_papers = papers(source, "train"), papers(source, "test")
    if task == "summaries":
        train, test = ([_row(p.name, p.abstract, *p.summaries) for p in each] for each in (train_papers, test_papers))
        return train, test
    return (
        [_row(p.name, p.summaries[0], p.abstract) for p in train_papers],
        [_row(p.name, p.summaries[1], p.abstract) for p in test_papers if len(p.summaries) > 1],
    )


def _row(name: str, asked: str, *answers: str) -> Row:
    return Row(name, _clean(asked), tuple(map(_clean, answers)))
