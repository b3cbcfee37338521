"""BIG-Bench Hard is read in all its layouts; what has no right answer among different ones is left out, damage is named."""

import json

import pytest

from cegm.lab.tasks.items import NotMeasured
from cegm.lab.tasks.public import bbh
from trials import DATA, with_data


def write(tmp_path, task, examples):
    folder = tmp_path / "bbh" / "bbh"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task}.json"
    path.write_text(json.dumps({"canary": "", "examples": [{"input": i, "target": t} for i, t in examples]}))
    return path


def test_lettered_options_are_scored_as_texts_per_byte(tmp_path):
    write(
        tmp_path,
        "tracking_shuffled_objects_three_objects",
        [("Bob has\nOptions:\n(A) Ulysses\n(B) Lolita\n(C) Emma", "(B)")],
    )
    (item,) = bbh.items(tmp_path, "tracking_shuffled_objects_three_objects", "s", 3)
    assert item.choice.context == "Bob has"
    assert item.choice.options == (" Lolita", " Ulysses", " Emma")
    assert (item.per_byte, item.level, item.subset) == (True, 3, "s")


def test_closed_sets_listed_or_known_are_asked_for_an_answer(tmp_path):
    write(tmp_path, "navigate", [("Do you return?\nOptions:\n- Yes\n- No", "No")])
    write(tmp_path, "web_of_lies", [("Does Bob lie?", "Yes")])
    for task, options in (("navigate", (" No", " Yes")), ("web_of_lies", (" Yes", " No"))):
        (item,) = bbh.items(tmp_path, task, "bbh")
        assert item.choice.context.endswith("?\nAnswer:")
        assert (item.choice.options, item.per_byte) == (options, False)


def test_questions_without_a_right_answer_among_different_ones_are_left_out(tmp_path):
    examples = [
        ("a\nOptions:\n(A) Monsters\n(B) Inc", "Monsters, Inc"),
        ("b\nOptions:\n(A) same\n(B) same", "(A)"),
        ("c\nOptions:\n(A) alone", "(A)"),
        ("d\nOptions:\n(A) x\n(B) y\n(C) y", "(A)"),
    ]
    write(tmp_path, "movie_recommendation", examples)
    (problem,) = bbh.read(tmp_path, "movie_recommendation")
    assert (problem.number, problem.options) == (3, ("x", "y"))


def test_one_story_is_one_cluster(tmp_path):
    options = "\nOptions:\n(A) x\n(B) y"
    write(tmp_path, "logical_deduction_three_objects", [(f"s{i // 2}{options}", "(A)") for i in range(4)])
    write(
        tmp_path, "tracking_shuffled_objects_three_objects", [(f"s. At the end, {i} has{options}", "(A)") for i in "ab"]
    )
    write(tmp_path, "snarks", [(f"Which is sarcastic?{options}", "(A)"), (f"Which is sarcastic?{options}", "(B)")])
    sizes = {task: len({item.cluster for item in bbh.items(tmp_path, task, "s")}) for task in bbh.tasks(tmp_path)}
    assert sizes == {
        "logical_deduction_three_objects": 2,
        "snarks": 2,
        "tracking_shuffled_objects_three_objects": 1,
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"examples": [{"input": "a', "line 1"),
        ("{}", "no list of examples"),
        ("[]", "no list of examples"),
        ('{"examples": [{"input": "a"}]}', "example 0: no input and target"),
        ('{"examples": [{"input": "a", "target": "b"}]}', "example 0: options that cannot be read"),
        ('{"examples": [{"input": "a\\nOptions:\\nx y", "target": "b"}]}', "example 0: options that cannot be read"),
    ],
)
def test_damage_is_a_one_line_error(tmp_path, text, what):
    path = write(tmp_path, "navigate", [])
    path.write_text(text)
    with pytest.raises(NotMeasured, match=what) as error:
        bbh.read(tmp_path, "navigate")
    assert str(path) in str(error.value)


def test_missing_and_free_tasks(tmp_path):
    with pytest.raises(NotMeasured, match="does not exist"):
        bbh.tasks(tmp_path)
    write(tmp_path, "word_sorting", [])
    with pytest.raises(NotMeasured, match="no task with options"):
        bbh.tasks(tmp_path)


@with_data
def test_the_whole_set_is_read_and_what_is_left_out_is_known():
    tasks = bbh.tasks(DATA)
    assert len(tasks) == 23
    counts = {task: len(bbh.read(DATA, task)) for task in tasks}
    assert sum(counts.values()) == 6511 - 1000 - 5
    assert (counts["movie_recommendation"], counts["ruin_names"], counts["snarks"]) == (249, 248, 176)
    for task in tasks:
        for problem in bbh.read(DATA, task):
            assert len(set(problem.options)) == len(problem.options) >= 2
            assert "Options:" not in problem.text
