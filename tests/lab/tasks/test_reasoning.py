"""Long-form reasoning: both forms on trial, and its own public set read with care."""

import json
import shutil

import pytest

from cegm.lab.tasks import reasoning
from cegm.lab.tasks.items import NotMeasured
from examinees import Guesser, Oracle
from trials import DATA, on_trial, per_subset, with_data


def test_the_generated_form():
    records = on_trial(reasoning.AXIS, "world", 150)
    assert len(records) == 3 * 150
    assert {record.level for record in records} == {2, 3, 4}
    assert {record.chance for record in records} == {0.25}
    assert len({record.cluster for record in records}) == len(records)


@with_data
def test_the_real_form():
    records = on_trial(reasoning.AXIS, DATA, 200)
    assert per_subset(records) == {"babi": 200, "folio": 200, "bbh": 200}
    by_task = [record.item.split("-")[0] for record in records if record.subset == "babi"]
    assert {by_task.count(f"qa{task}") for task in range(1, 21)} == {10}
    assert {record.chance for record in records if record.subset == "folio"} == {1 / 3}
    assert len({record.cluster for record in records if record.subset == "folio"}) < 80
    again = reasoning.AXIS.examine(Oracle(), DATA, 200, 1)
    assert {r.item for r in again} != {r.item for r in records}


def write(tmp_path, rows):
    folder = tmp_path / "folio" / "data" / "v0.0"
    folder.mkdir(parents=True)
    path = folder / "folio-validation.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


ROW = {"premises": ["All a are b. ", "X is a."], "conclusion": "X is b.", "label": "True"}


def test_conclusions_from_the_same_premises_are_one_cluster(tmp_path):
    write(tmp_path, [ROW, {**ROW, "label": "False"}, {**ROW, "premises": ["X is a."], "label": "Uncertain"}])
    items = reasoning.conclusions(tmp_path)
    assert [item.cluster for item in items] == ["1", "1", "3"]
    assert [item.choice.options[0] for item in items] == [" True", " False", " Uncertain"]
    assert items[0].choice.context == ("All a are b. X is a.\nConclusion: X is b.\nTrue, False or Uncertain? Answer:")


@pytest.mark.parametrize(
    "bad", ['{"premises": ["a"', {"premises": ["a"], "label": "True"}, {**ROW, "label": "Maybe"}, "[]"]
)
def test_damage_is_named_by_file_and_line(tmp_path, bad):
    path = write(tmp_path, [ROW, bad])
    with pytest.raises(NotMeasured, match="line 2") as error:
        reasoning.conclusions(tmp_path)
    assert str(path) in str(error.value)


def test_an_empty_file_is_a_one_line_error(tmp_path):
    write(tmp_path, []).write_text("")
    with pytest.raises(NotMeasured, match="is empty"):
        reasoning.conclusions(tmp_path)


def test_one_set_is_measured_without_the_others_and_none_is_an_error(tmp_path):
    write(tmp_path, [ROW])
    with pytest.warns(UserWarning, match="was not measured") as warned:
        records = reasoning.AXIS.examine(Oracle(), tmp_path, 5, 0)
    assert per_subset(records) == {"folio": 1}
    assert {str(each.message).split(" ")[0] for each in warned} == {"babi", "bbh"}
    shutil.rmtree(tmp_path / "folio")
    with pytest.raises(NotMeasured, match=r"babi was not measured.*folio was not measured.*bbh was not measured"):
        reasoning.AXIS.examine(Guesser(), tmp_path, 5, 0)


def test_bytes_that_are_no_text_are_a_one_line_error(tmp_path):
    write(tmp_path, [ROW]).write_bytes(b'{"premises": ["\xff"]}\n')
    with pytest.raises(NotMeasured, match=r"folio-validation\.jsonl is no UTF-8 text"):
        reasoning.conclusions(tmp_path)
