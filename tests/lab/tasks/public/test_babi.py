"""bAbI is read in both layouts that are about, and damage is named by file and line."""

import re

import pytest

from cegm.lab.tasks.items import NotMeasured
from cegm.lab.tasks.public import babi
from trials import DATA, with_data

STORY = "1 John went to the hall.\n2 Mary went to the park.\n3 Where is John? \thall\t1\n4 John left.\n5 Where is Mary?\tpark\t2\n"


def write(tmp_path, text, task=1):
    folder = tmp_path / "babi" / "tasks_1-20_v1-2" / "en"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"qa{task}_some-name_test.txt"
    path.write_text(text)
    return path


def test_questions_know_their_story_so_far(tmp_path):
    write(tmp_path, STORY + STORY)
    questions = babi.read(tmp_path, 1)
    assert [q.name for q in questions] == ["1-3", "1-5", "2-3", "2-5"]
    assert [q.story for q in questions] == ["1", "1", "2", "2"]
    second = questions[1]
    assert second.statements == ("John went to the hall.", "Mary went to the park.", "John left.")
    assert (second.text, second.answer) == ("Where is Mary?", "park")
    assert second.context == "John went to the hall. Mary went to the park. John left. Where is Mary? Answer:"


def test_bars_instead_of_tabs_read_the_same(tmp_path):
    write(tmp_path, STORY)
    write(tmp_path, STORY.replace("\t", "|"), 2)
    tabs, bars = babi.read(tmp_path, 1), babi.read(tmp_path, 2)
    assert [(q.text, q.answer) for q in tabs] == [(q.text, q.answer) for q in bars]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (STORY[:-1], 5),
        (STORY[:-6], 5),
        (STORY.replace("\t", " "), 3),
        (STORY.replace("hall\t1", "hall"), 3),
        (STORY.replace("hall\t1", "hall\t9"), 3),
        (STORY.replace("hall\t1", "\t1"), 3),
        (STORY.replace("hall\t1", "hall\tx"), 3),
        (STORY.replace("4 John", "John"), 4),
        (STORY.replace("4 John", "5 John"), 4),
        ("\n" + STORY, 1),
    ],
)
def test_damage_is_named_by_file_and_line(tmp_path, text, line):
    path = write(tmp_path, text)
    with pytest.raises(NotMeasured) as error:
        babi.read(tmp_path, 1)
    assert f"{path}, line {line}: " in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_empty_files_are_one_line_errors(tmp_path):
    with pytest.raises(NotMeasured, match="does not exist"):
        babi.read(tmp_path, 1)
    write(tmp_path, "1 John left.\n")
    with pytest.raises(NotMeasured, match="no question"):
        babi.read(tmp_path, 1)
    with pytest.raises(NotMeasured, match=r"0 files qa2_\*_test.txt"):
        babi.read(tmp_path, 2)


def asked(answer, task=1):
    return babi.Question(task, "1-1", "1", (), "What?", answer)


def test_options_are_all_answers_with_the_right_one_first():
    assert babi.options(asked("b"), ("a", "b", "c")) == (" b", " a", " c")


def test_lists_end_in_a_full_stop_and_another_order_is_no_wrong_answer_of_sets():
    known = ("apple", "apple,milk", "milk,apple", "nothing")
    assert babi.options(asked("milk,apple", 8), known) == (" milk, apple.", " apple.", " nothing.")
    assert babi.options(asked("w,s", 19), ("s,w", "w,s")) == (" w, s.", " s, w.")


@with_data
def test_the_whole_set_is_read():
    for task in babi.TASKS:
        items = babi.items(DATA, task, level=task)
        assert len(items) == 1000
        assert len({item.item for item in items}) == 1000
        assert all(len(set(item.choice.options)) == len(item.choice.options) >= 2 for item in items)
        assert {item.level for item in items} == {task}
    assert len(babi.answers(babi.read(DATA, 1))) == 6


@with_data
def test_naming_the_last_place_gets_what_the_axes_say():
    for task, share in ((1, 0.527), (2, 0.399), (3, 0.140)):
        questions = babi.read(DATA, task)
        places = babi.answers(questions)
        last = [[w for w in re.findall(r"\w+", " ".join(q.statements)) if w in places][-1:] for q in questions]
        assert sum(named == [q.answer] for named, q in zip(last, questions, strict=True)) / 1000 == share
