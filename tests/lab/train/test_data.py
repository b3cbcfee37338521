"""Every format that can be read, every input that cannot, and what is held out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from cegm.lab.train.cutting import NEAR
from cegm.lab.train.data import HELD_OUT, Corpus, load_corpus
from cegm.lab.train.run_config import RunConfig


def load(path: Path | str, **given: Any) -> Corpus:
    return load_corpus(RunConfig(data=str(path), max_steps=2, **given))


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_text_file_with_mark_and_foreign_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone two\r\nthree\rfour " * 20)
    corpus = load(path, validation_fraction=0.2)
    assert corpus.kind == "text"
    joined = corpus.train[0] + " " + corpus.validation[0]
    assert "\r" not in joined
    assert joined.startswith("one two\nthree\nfour")
    assert len(corpus.validation[0]) == pytest.approx(0.2 * len(joined), rel=0.1)


def test_folder_reads_txt_and_md_below_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for index in range(12):
        (tmp_path / "deep" / f"{index}.md").write_text(f"# Title {index}\n\n*word* {index} " + "filler " * 20)
    (tmp_path / "ignored.py").write_text("code")
    corpus = load(tmp_path, validation_fraction=0.2)
    assert len(corpus.train) + len(corpus.validation) == 12
    assert not set(corpus.train) & set(corpus.validation)
    assert all("#" not in text and "*" not in text for text in corpus.train)


def test_what_a_folder_holds_besides_its_texts_is_told(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    for name in ("A.TXT", "b.txt", ".cache/c.txt", "d.pdf", "e.jsonl"):
        (tmp_path / name).write_text(f"{name} " * 40)
    (tmp_path / "blank.md").write_text(" \n")
    (tmp_path / "again.txt").symlink_to(tmp_path / "b.txt")
    corpus = load(tmp_path)
    assert [text.split()[0] for text in corpus.train] == ["A.TXT", "b.txt"]
    assert sorted(name for names in corpus.left_out.values() for name in names) == [
        ".cache", "again.txt", "blank.md", "d.pdf", "e.jsonl",
    ]  # fmt: skip


def test_a_folder_whose_texts_are_all_left_out_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "row"}')
    with pytest.raises(ValueError, match=r"holds no text in \.txt or \.md files; it has 1 rows, .*rows\.jsonl"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["a.JSONL", "a.Json"])
def test_the_case_of_a_suffix_means_nothing(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"row {number}"} for number in range(20)]
    assert load(write_rows(tmp_path / name, rows)).digest() == load(write_rows(tmp_path / "a.jsonl", rows)).digest()
    (tmp_path / "B.MD").write_text("# Title\n\n" + "*word* filler " * 40)
    assert "*" not in load(tmp_path / "B.MD").train[0]
    with pytest.raises(ValueError, match="does not exist"):
        load(tmp_path / "missing.TXT")


def test_documents_that_are_held_out_too_are_counted(tmp_path: Path) -> None:
    rows = [{"text": f"document {index % 15} " * 5} for index in range(30)]  # every document twice
    corpus = load(write_rows(tmp_path / "a.jsonl", rows))
    assert len(corpus.train) + len(corpus.validation) + len(corpus.left_out[HELD_OUT]) == 30
    assert corpus.left_out[HELD_OUT]


@pytest.mark.parametrize(
    "text",
    [
        "天地玄黄宇宙洪荒" * 200,
        "天地玄黄宇宙洪荒" * 200 + "\n",
        "สวัสดี" * 300,
        "word " * 300 + "last",
        "x" * 5000,
        "two words",
    ],
)
@pytest.mark.parametrize("fraction", [0.05, 0.5])
def test_the_end_of_a_text_is_held_out_whatever_its_script(tmp_path: Path, text: str, fraction: float) -> None:
    text = f"^{text}"  # or its halves might be the same
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    corpus = load(tmp_path / "a.txt", validation_fraction=fraction)
    (train,), (held_out,) = corpus.train, corpus.validation
    assert train.rstrip() == text[: len(train)].rstrip()
    assert text.endswith(held_out)
    assert len(train) + len(held_out) >= len(text.strip()) - 1
    assert abs(len(held_out) - fraction * len(text)) <= min(NEAR, 0.7 * len(text))


def _message(role: str, index: int) -> dict[str, str]:
    return {"role": role, "content": f"said {index}"}


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("text", lambda i: {"text": f"words {i}"}),
        ("messages", lambda i: {"messages": [_message("user", i), _message("assistant", i)]}),
        ("completion", lambda i: {"prompt": f"question {i}", "completion": f"answer {i}", "other": i}),
        ("completion", lambda i: {"prompt": [_message("user", i)], "completion": [_message("assistant", i)]}),
    ],
)
def test_kinds_of_rows(tmp_path: Path, kind: str, row: Callable[[int], dict[str, Any]]) -> None:
    rows = [row(index) for index in range(20)]
    corpus = load(write_rows(tmp_path / "a.jsonl", rows))
    assert corpus.kind == kind
    assert len(corpus.train) + len(corpus.validation) == 20
    assert corpus.validation


def test_held_out_documents_do_not_depend_on_the_seed_and_never_overlap(tmp_path: Path) -> None:
    rows = [{"text": f"document {index % 15} " * 5} for index in range(30)]  # every document twice
    path = write_rows(tmp_path / "a.jsonl", rows)
    first, second = load(path, seed=1), load(path, seed=2)
    assert first.validation == second.validation
    assert not set(first.train) & set(first.validation)
    assert first.digest() == second.digest()


def test_digest_sees_one_changed_letter() -> None:
    assert Corpus("text", ["ab"], ["c"]).digest() != Corpus("text", ["ab"], ["d"]).digest()
    assert Corpus("text", ["a", "b"], []).digest() != Corpus("text", ["ab"], []).digest()


def test_own_validation_file(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("training words " * 9)
    (tmp_path / "held.txt").write_text("held out words")
    corpus = load(tmp_path / "train.txt", validation_data=str(tmp_path / "held.txt"))
    assert corpus.train == ["training words " * 9]
    assert corpus.validation == ["held out words"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b'{"text": "fine"}\n{"other": 1}\n', "row 2 has no text"),
        (b'{"text": "fine"}\n\n{"text": ""}\n', "row 3 has no text"),
        (b'{"text": NaN}\n', "row 1 has no text"),
        (b'{"text": "\\ud800"}\n', "row 1 has no text"),
        (b'{"messages": [{"role": "user"}]}\n', "row 1 has no text"),
        (b'{"prompt": "only"}\n', "row 1 has no text"),
        (b'["text"]\n', "row 1 has no text"),
        (b'{"text": "fine"}\n{"text": \n', "row 2 is not JSON"),
        (b'{"text": "a"}\n{"prompt": "b", "completion": "c"}\n', "row 2 holds completion but the first row holds text"),
        (b'{"text": "\xff"}\n', "is not UTF-8 text"),
        (b'{"prompt": "b", "completion": "c"}\n', "too little to hold one out"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        load(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, "does not exist"),
        ("missing/folder/here", None, "does not exist"),
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \n", "is empty"),
        ("a.txt", b"caf\xe9", "is not UTF-8 text"),
        ("a.pdf", b"x", "not a kind of data"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / name)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no text"):
        load(tmp_path)


def test_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(path: str, name: str | None, split: str) -> datasets.Dataset:
        asked.append((path, name, split))
        return datasets.Dataset.from_list([{"text": f"row {index}"} for index in range(20)])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = load("owner/name:part")
    assert asked == [("owner/name", "part", "train")]
    assert len(corpus.train) + len(corpus.validation) == 20


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match="the hub did not give it: no route") as raised:
        load("owner/name")
    assert "\n" not in str(raised.value)


def test_world_gives_every_seed_its_own_text_and_all_the_same_validation() -> None:
    config = {"data": "world", "max_steps": 3, "max_length": 64, "eval_rows": 2}
    first, second = load_corpus(RunConfig(seed=1, **config)), load_corpus(RunConfig(seed=2, **config))
    assert first.train != second.train
    assert first.validation == second.validation
    assert sum(len(text.split()) for text in first.train) >= 3 * 8 * 64
    assert first.digest() == load_corpus(RunConfig(seed=1, **config)).digest()
