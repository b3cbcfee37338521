"""The axes as files for the evaluation harness: the same questions, nothing given away, nothing to run, clear errors."""

import json
from collections import Counter

import pytest
import yaml

pytest.importorskip("transformers")

from cegm.lab.tasks import harness, retention
from cegm.lab.tasks.axes import AXES
from cegm.lab.tasks.items import Choice, Item
from cegm.lab.train.model import word_tokenizer
from examinees import Oracle
from trials import DATA, with_data


class Listener(Oracle):
    """Hears what is asked."""

    def __init__(self):
        self.heard = []

    def choose(self, choices):
        self.heard += choices
        return super().choose(choices)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks") / "new"
    assert harness.main([str(folder), "--items", "12"]) == 0
    return folder


def read(path):
    return yaml.safe_load(path.read_text("utf-8"))


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def all_tasks(folder):
    return [path for path in sorted(folder.glob("*/*.yaml")) if "task" in read(path) and "group" not in read(path)]


def asked_by_the_axis(axis, source):
    listener = Listener()
    AXES[axis].examine(listener, source, 7, 3)
    if axis != "steps":
        return listener.heard
    return [choice for number in range(10) for choice in listener.heard[14 * number + 7 : 14 * number + 14]]  # forced


@pytest.mark.parametrize("axis", [axis for axis in harness.QUESTIONS if axis != "retention"])
def test_the_questions_are_those_that_the_axis_asks(axis):
    asked = [item.choice for item in harness.QUESTIONS[axis]("world", 7, 3)]
    assert Counter(asked) == Counter(asked_by_the_axis(axis, "world"))


@with_data
@pytest.mark.parametrize("axis", [axis for axis in harness.QUESTIONS if axis != "retention" and AXES[axis].sets])
def test_the_questions_are_those_that_the_axis_asks_of_the_public_sets(axis):
    asked = [item.choice for item in harness.QUESTIONS[axis](DATA, 7, 3)]
    assert asked == asked_by_the_axis(axis, DATA)
    # The harness moves white space at the end of a context into what is scored, and puts an end token before an empty one.
    ends = [choice.context + (choice.options[0] if choice.tail else "") for choice in asked]
    assert all(end == end.rstrip() != "" for end in ends)


def test_the_texts_of_retention_have_the_tokens_that_the_axis_plants():
    tokenizer, items = word_tokenizer(), retention.texts((512, 600), 16, 3)
    assert {item.level for item in items} == {512, 600}
    (plan,) = retention._plans(tokenizer, "world", 16, 3, 600)
    for item, question in zip(items[:16], plan.questions, strict=True):
        known = tokenizer(item.choice.context)["input_ids"]
        assert tuple(known) == (*plan.context(512 - plan.asking), *question.prompt)
        assert tuple(tuple(tokenizer(option)["input_ids"]) for option in item.choice.options) == question.options


def test_files_hold_every_item_once_and_its_right_option_at_its_label(folder):
    for axis, questions in harness.QUESTIONS.items():
        items = {(item.subset, item.level, item.item): item.choice for item in questions("world", 12, 0)}
        rows = [row for path in sorted((folder / axis).glob("*.jsonl")) for row in lines(path)]
        assert len(rows) == len(items) > 0
        for row in rows:
            choice = items.pop((row["subset"], row["level"], row["item"]))
            shown = row.get("options") or [context.removeprefix(choice.context) for context in row["contexts"]]
            assert sorted(shown) == sorted(choice.options)
            assert shown[row["label"]] == choice.options[0]
            assert row.get("tail", "") == choice.tail
        assert not items


def test_the_place_of_the_right_option_tells_nothing(folder):
    rows = [row for path in folder.glob("*/*.jsonl") for row in lines(path)]
    for options in (2, 4):
        labels = Counter(row["label"] for row in rows if len(row.get("options") or row["contexts"]) == options)
        total = sum(labels.values())
        assert total > 40
        assert all(abs(labels[place] - total / options) < 3 * (total / options) ** 0.5 for place in range(options))


def test_there_is_nothing_to_run_in_the_files(folder):
    for path in folder.glob("**/*.yaml"):
        assert "!" not in path.read_text("utf-8")  # the mark of a function
    for path in all_tasks(folder):
        settings, rows = read(path), lines(path.with_suffix(".jsonl"))
        assert settings["task"] == path.stem
        assert settings["dataset_kwargs"]["data_files"]["test"] == str(path.with_suffix(".jsonl"))
        for field in ("doc_to_text", "doc_to_choice", "doc_to_target"):
            assert all(settings[field] in row for row in rows)


def test_groups_name_all_tasks_and_levels_sort_as_numbers(folder):
    groups = read(folder / "cegm.yaml")["task"]
    assert groups == [f"cegm_{axis}" for axis in harness.QUESTIONS]
    named = [task for group in groups for task in read(folder / group.removeprefix("cegm_") / f"{group}.yaml")["task"]]
    assert sorted(named) == sorted(path.stem for path in all_tasks(folder))
    depths = [name for name in named if "efficiency" in name]
    assert depths == sorted(depths) == [f"cegm_efficiency_level_{depth:02}" for depth in range(1, 11)]


def test_a_seed_decides_everything(folder, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        harness.export(tmp_path / name, ["noise"], "world", 12, seed)
    texts = [
        [path.read_text("utf-8") for path in sorted((root / "noise").glob("*.jsonl"))]
        for root in (folder, tmp_path / "same", tmp_path / "other")
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_cell_that_is_scored_in_two_ways_is_two_tasks_and_has_no_mean():
    long = Item(Choice("q", (" a", " bbb")), "set", "0", "0", per_byte=True)
    short = Item(Choice("q", (" a", " b")), "set", "1", "1")
    found = harness.tasks("reasoning", [long, short])
    assert [(task.name, task.metric) for task in found] == [
        ("cegm_reasoning_set_per_byte", "acc_bytes"),
        ("cegm_reasoning_set_options", "acc"),
    ]
    (alone,) = harness.tasks("reasoning", [Item(Choice("q", (" a", " b")), "", "1", "1")])
    assert alone.name == "cegm_reasoning_all"  # a group has the shorter name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        *((["--axes", name], AXES[name].no_task) for name in AXES if name not in harness.QUESTIONS),
        (["--axes", "nois"], "did you mean 'noise'"),
        (["--axes", ","], "names no axis"),
        (["--items", "0"], "at least 1"),
        (["--data", "nowhere"], "nowhere is no folder"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, capsys, arguments, says):
    assert harness.main([str(tmp_path / "new"), *arguments]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_old_tasks_do_not_stay_among_new_ones(folder, capsys):
    assert harness.main([str(folder)]) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_what_a_source_lacks_is_told_and_the_rest_written(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    assert harness.main([str(tmp_path / "none"), "--data", str(tmp_path / "data")]) == 2
    capsys.readouterr()
    story = ["1 Mary moved to the hall.", "2 John went to the garden.", "3 Where is Mary? \thall\t1"]
    place = tmp_path / "data" / "folio" / "data" / "v0.0" / "folio-validation.jsonl"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"premises": story[:2], "conclusion": "Mary left.", "label": "True"}) + "\n", "utf-8")
    assert harness.main([str(tmp_path / "new"), "--data", str(tmp_path / "data")]) == 0
    said = capsys.readouterr()
    assert "1 tasks of 1 axes" in said.out
    assert "steps was not written: no public set has items of ten steps" in said.err
    assert "bbh was not measured" in said.err
    (row,) = lines(tmp_path / "new" / "reasoning" / "cegm_reasoning_folio.jsonl")
    assert row["options"][row["label"]] == " True"
