"""A company's own rows: each fault is told in one line per file and reason, with the right count."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cegm.lab.tasks.company_rows import Row, plain_rows, read_rows
from trials import DATA, with_data


def write(path: Path, rows: list[object]) -> None:
    path.write_text(
        "".join(r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8"
    )


def faq(question: str, answer: object, **more: object) -> dict[str, object]:
    return {"question": question, "answer": answer, **more}


TRAIN = [
    faq("Where is my card?", "card arrival", id="1"),
    faq("I want my money back", "refund", id="2"),
    faq("How do I close the account?", "close account", id="3"),
]
TEST = [faq("Has the card been sent?", "card arrival", id="10"), faq("Please refund what I paid", "refund", id="11")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl", TRAIN)
    write(tmp_path / "test.jsonl", TEST)
    return tmp_path


def told(folder: Path, train: list[object] = [], test: list[object] = []) -> list[str]:  # noqa: B006
    write(folder / "train.jsonl", [*TRAIN, *train])
    write(folder / "test.jsonl", [*TEST, *test])
    return read_rows("faq", str(folder)).told()


def test_whole_rows_are_all_used(folder: Path) -> None:
    rows = read_rows("faq", str(folder))
    assert (len(rows.train), len(rows.test), rows.told()) == (3, 2, [])
    assert rows.test[0] == Row("10", "Has the card been sent?", ("card arrival",))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (faq("What about this?", ""), "no answer"),
        (faq("What about this?", None), "no answer"),
        ({"question": "What about this?"}, "no answer"),
        (faq("  ", "refund"), "no question"),
        ("{broken\n", "no JSON object"),
        ("[1]\n", "no JSON object"),
        (faq("where is  my CARD?", "card arrival"), "a duplicate"),
        (faq("Another question of it", "refund", id="2"), "its id is another row's, too"),
        (faq("Has the card been sent?", "card arrival"), "it is in the test, too"),
        (faq("Something else of the same", "refund", id="11"), "its id is in the test, too"),
        (faq("カードはいつ届きますか。", "card arrival"), "in another language than most"),
        (faq("Ich habe die Karte nicht und wie kann ich sie sperren", "refund"), "in another language than most"),
        (faq("Which article is FAQ_0042 about?", "FAQ_0042"), "the id of its answer stands in it"),
    ],
)
def test_each_fault_of_a_training_row_is_told_once(folder: Path, bad: object, reason: str) -> None:
    assert told(folder, train=[bad]) == [f"1 of train.jsonl left out: {reason} (row 4)"]


def test_a_question_may_have_the_words_of_its_answer(folder: Path) -> None:
    assert told(folder, train=[faq("I chose close account but it does not", "close account")]) == []


def test_a_test_whose_answer_nobody_taught_cannot_be_chosen(folder: Path) -> None:
    assert told(folder, test=[faq("Can I pay in yen?", "currencies")]) == [
        "1 of test.jsonl left out: no training row has its answer (row 3)"
    ]


def test_counts_are_right_where_faults_are_many(folder: Path) -> None:
    bad = [faq(f"question number {n}", "") for n in range(5)] + [faq("I want my money back", "refund")] * 2
    assert told(folder, train=bad) == [
        "5 of train.jsonl left out: no answer (row 4, 5, 6, ...)",
        "2 of train.jsonl left out: a duplicate (row 9, 10)",
    ]


def test_rows_in_japanese_are_the_usual_ones_where_most_are(tmp_path: Path) -> None:
    rows = [faq(f"{n}番のカードはいつ届きますか。", "配送状況") for n in range(40)]
    write(tmp_path / "all.jsonl", [*rows, faq("Where is my card?", "配送状況")])
    found = read_rows("faq", str(tmp_path / "all.jsonl"))
    assert len(found.train) + len(found.test) == 40
    assert found.told() == ["1 of all.jsonl left out: in another language than most (row 41)"]


def test_a_single_file_is_split_the_same_way_every_time(tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", [faq(f"Question number {n} of them", f"answer {n % 3}") for n in range(200)])
    first, second = (read_rows("faq", str(tmp_path / "all.jsonl")) for _ in range(2))
    assert first.test == second.test
    assert 20 < len(first.test) < 60
    assert not {row.asked for row in first.train} & {row.asked for row in first.test}


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("search", {"question": "Which {n} is it?", "passage": "It is passage {n}."}),
        ("summaries", {"text": "A long text {n} about things.", "summary": ["Text {n}.", "Thing {n}."]}),
        ("faq", {"question": "Which {n}?", "intent": "which"}),
    ],
)
def test_a_row_reads_back_from_the_line_that_it_is_written_as(tmp_path: Path, task, row) -> None:
    write(tmp_path / "own.jsonl", [json.dumps(row).replace("{n}", str(n)) + "\n" for n in range(40)])
    rows = read_rows(task, str(tmp_path / "own.jsonl"))
    assert len(rows.train) + len(rows.test) == 40
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(each.line(task) for each in getattr(rows, name)), "utf-8")
    again = read_rows(task, str(tmp_path))
    assert (again.train, again.test) == (rows.train, rows.test)


def test_rows_without_an_id_are_named_by_their_words(tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", [faq(f"Question number {n} of them", "yes", id=None) for n in range(40)])
    rows = read_rows("faq", str(tmp_path / "all.jsonl"))
    assert len({row.name for row in (*rows.train, *rows.test)}) == 40


def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    rows = [faq(f"How do I change the setting number {n} of my account?", f"answer {n % 50}") for n in range(100_000)]
    write(tmp_path / "all.jsonl", [*rows, *rows[:100]])
    start = time.process_time()
    found = read_rows("faq", str(tmp_path / "all.jsonl"))
    assert time.process_time() - start < 20
    assert len(found.train) + len(found.test) == 100_000
    assert sum(map(len, found.left_out.values())) == 100


@with_data
@pytest.mark.parametrize(
    ("task", "train", "test"), [("faq", 10_003, 3_080), ("search", 1_992, 618), ("summaries", 1_992, 618)]
)
def test_public_sets_pass_the_same_checks_and_read_back_as_they_are(task, train, test, tmp_path) -> None:
    rows = read_rows(task, str(DATA))
    left_out = {file: sum(len(n) for (f, _), n in rows.left_out.items() if f == file) for file, _ in rows.left_out}
    name = "faq_banking77" if task == "faq" else "sci_scitldr"
    assert len(rows.train) == train - left_out.get(f"train of {name}", 0)
    assert len(rows.test) == test - left_out.get(f"test of {name}", 0)
    assert len(rows.train) > 0.97 * train
    (tmp_path / "test.jsonl").write_text("".join(row.line(task) for row in rows.test), "utf-8")
    assert plain_rows(tmp_path / "test.jsonl", task) == rows.test


def test_what_holds_nothing_for_the_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds nothing for search; give a \.jsonl file with question and passage"):
        read_rows("search", str(tmp_path))
    write(tmp_path / "few.jsonl", [faq("Only one?", "")])
    with pytest.raises(ValueError, match=r"leaves 0 rows to train on and 0 to ask: 1 of few.jsonl left out: no answer"):
        read_rows("faq", str(tmp_path / "few.jsonl"))
