"""An examination goes on after an interruption, tells what it could not measure, and its table can be read."""

import json
import math
import shutil
import warnings

import pandas as pd
import pytest

pytest.importorskip("transformers")

from cegm.lab.cli import main
from cegm.lab.tasks.axes import AXES, MODULES, PAPER, chosen
from cegm.lab.tasks.axis import Axis
from cegm.lab.tasks.evaluation import EvaluateConfig, measure, measure_all, summary, table
from cegm.lab.tasks.items import NotMeasured, Record
from cegm.lab.tasks.timetable import Timetable
from cegm.lab.train.model import fresh_config, word_tokenizer
from examinees import Guesser


def record(subset="", level=0.0, score=1.0, item="0", chance=0.25, readable=True):
    return Record("toy", "generated", subset, item, item, level, score, 2 * score, chance, readable)


def axis(measured, name="toy", primary=(), sets=()):
    told = {"title": "Toy", "paper": "Table 0", "measure": "share of toys", "control": "none"}
    return Axis(name=name, measured=measured, primary=primary, sets=sets, **told)


def run(folder, axes, examinee=None, **changes):
    settings = {"source": "world", "items": 4, "seed": 0, "facts": {"weights": "abc"}, "watch": lambda *_: None}
    return measure_all(examinee or Guesser(), axes, folder=folder, **{**settings, **changes})


def test_a_finished_axis_is_not_measured_again(tmp_path):
    calls = []

    def counted(*_):
        calls.append(1)
        return [record(level=level, chance=math.nan) for level in (1.0, 2.0)]

    first = run(tmp_path, [axis(counted)])
    second = run(tmp_path, [axis(counted), axis(counted, "other")])
    assert len(calls) == 2
    assert [r.level for r in second[0].records] == [r.level for r in first[0].records]
    assert math.isnan(second[0].records[0].chance)
    assert len(pd.read_parquet(tmp_path / "items.parquet")) == 4


def test_what_cannot_be_measured_is_told_tried_again_and_stops_nothing(tmp_path):
    state = {"broken": True}

    def fragile(*_):
        if state["broken"]:
            raise NotMeasured("the set is\nmissing; get it")
        return [record()]

    def warns(*_):
        warnings.warn("one part is missing", stacklevel=1)
        return [record()]

    axes = [axis(fragile), axis(warns, "other")]
    first, other = run(tmp_path, axes)
    assert (first.reason, first.records) == ("the set is missing; get it", [])
    assert (other.warnings, len(other.records)) == (("one part is missing",), 1)
    assert json.loads((tmp_path / "evaluation.json").read_text())["axes"]["toy"]["reason"] == first.reason
    state["broken"] = False
    assert len(run(tmp_path, axes)[0].records) == 1


def test_tokens_are_counted_by_axis_and_survive_an_interruption(tmp_path):
    def reads(examinee, *_):
        examinee.tokens += 30
        return [record()]

    axes = [axis(reads), axis(reads, "other"), axis(lambda *_: [record()], "uncounted")]
    assert [outcome.tokens for outcome in run(tmp_path, axes)] == [30, 30, None]
    assert [outcome.tokens for outcome in run(tmp_path, axes)] == [30, 30, None]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"settings": {}}', '{"settings": {}, "axes": 3}'])
def test_a_damaged_record_of_an_evaluation_is_told_in_one_line(tmp_path, text):
    run(tmp_path, [axis(lambda *_: [record()])])
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(ValueError, match=r"evaluation\.json is damaged; delete it") as error:
        run(tmp_path, [axis(lambda *_: pytest.fail("measured again"))])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_damaged_axis_is_measured_again(tmp_path, kept):
    run(tmp_path, [axis(lambda *_: [record(score=0.0)])])
    path = tmp_path / "axes" / "toy.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert [one.score for one in run(tmp_path, [axis(lambda *_: [record(score=1.0)])])[0].records] == [1.0]
    assert run(tmp_path, [axis(lambda *_: pytest.fail("measured again"))])[0].records[0].score == 1.0


def test_nothing_is_left_beside_what_was_written(tmp_path):
    run(tmp_path, [axis(lambda *_: [record()])])
    assert {path.name for path in tmp_path.rglob("*")} == {"axes", "toy.parquet", "evaluation.json", "items.parquet"}


@pytest.mark.parametrize("change", [{"seed": 1}, {"items": 5}, {"source": "elsewhere"}, {"facts": {"weights": "x"}}])
def test_another_examination_does_not_mix_in(tmp_path, change):
    run(tmp_path, [axis(lambda *_: [record()])])
    with pytest.raises(ValueError, match="use another output_dir"):
        run(tmp_path, [axis(lambda *_: [record()])], **change)


def test_the_settings_that_differ_are_named(tmp_path):
    run(tmp_path, [axis(lambda *_: [record()])])
    with pytest.raises(ValueError, match="an evaluation with other weights, seed; use") as raised:
        run(tmp_path, [axis(lambda *_: [record()])], seed=3, facts={"weights": "x"})
    assert "items" not in str(raised.value)


def test_an_axis_is_measured_again_when_the_sets_that_it_reads_were_changed(tmp_path):
    calls = []
    for name in ("mine", "other"):
        (tmp_path / "sets" / name).mkdir(parents=True)

    def counted(_, source, *__):
        calls.append(source)
        return [record()]

    def again(source):
        run(tmp_path / "out", [axis(counted, sets=("mine",))], source=str(source))
        return len(calls)

    (tmp_path / "sets" / "mine" / "a.txt").write_text("one")
    assert [again(tmp_path / "sets"), again(tmp_path / "sets")] == [1, 1]
    (tmp_path / "sets" / "other" / "a.txt").write_text("not read")
    (tmp_path / "sets").rename(tmp_path / "moved")
    assert again(tmp_path / "moved") == 1
    (tmp_path / "moved" / "mine" / "a.txt").write_text("two")
    assert [again(tmp_path / "moved"), again(tmp_path / "moved")] == [2, 2]


def test_a_mistake_of_ours_is_no_missing_measurement():
    def wrong(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure(Guesser(), axis(wrong), "world", 4, 0)


def test_levels_count_alike_and_exploratory_subsets_do_not():
    records = [record("a", 1, 1.0), record("a", 2, 0.0), record("a", 2, 0.0), record("a", 2, 1.0), record("b", 1, 0.0)]
    assert summary(axis(None), records).value == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert summary(axis(None, primary=("a",)), records).value == pytest.approx((1 + 1 / 3) / 2)
    assert summary(axis(None), []).value is None
    assert summary(axis(None), [record(chance=math.nan, readable=False)]).chance is None
    assert summary(axis(None), [record(chance=math.nan, readable=False)]).unreadable == 1


def test_the_table_is_aligned_and_ends_with_what_is_missing(tmp_path):
    axes = [axis(lambda *_: [record(score=0.5)]), axis(lambda *_: [record(readable=False)], "longer-name")]
    found = list(zip(axes, run(tmp_path, axes), strict=True))
    lines = table(found).splitlines()
    assert lines[1].split() == ["toy", "Table", "0", "share", "of", "toys", "50.0", "%", "25.0", "%", "1"]
    assert len({line.index("Table 0") for line in lines[1:3]}) == 1
    assert lines[-1] == "longer-name: 1 answers could not be read and count as wrong"


def test_axes_have_names_of_their_own_and_say_what_they_are():
    assert len(AXES) == len(MODULES)
    for name, each in AXES.items():
        assert name == each.name
        assert all((each.title, each.paper, each.measure, each.control))
    assert [each.name for each in chosen("all")] == list(PAPER)
    assert [each.name for each in chosen("noise, steps,noise")] == ["noise", "steps"]
    with pytest.raises(ValueError, match="did you mean 'noise'"):
        chosen("noize")
    with pytest.raises(ValueError, match="names no axis"):
        chosen(",")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_name_or_path": ""}, "which model"),
        ({"items": 0}, "at least 1"),
        ({"data": "no/such/folder"}, "is no folder"),
        ({"lengths": "512,long"}, "no list of tokens, such as"),
        ({"lengths": "0"}, "no list of tokens, such as"),
        ({"minutes": 0.0}, "must be above 0"),
    ],
)
def test_mistakes_are_told_in_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**{"model_name_or_path": "model", **change})


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    tokenizer = word_tokenizer()
    AutoModelForCausalLM.from_config(fresh_config("tiny", tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_from_the_command_line_and_twice_the_same(model_folder, tmp_path, capsys):
    def command(name):
        arguments = [str(model_folder), "--axes", "steps,ambiguity", "--items", "4"]
        assert main(["evaluate", *arguments, "--output_dir", str(tmp_path / name)]) == 0
        return pd.read_parquet(tmp_path / name / "items.parquet")

    first, second = command("a"), command("b")
    assert first.equals(second), "two examinations with one seed must agree to the bit"
    shown = capsys.readouterr().out
    assert "ambiguity" in shown
    assert "Figure 5" in shown


def test_the_items_that_fit_into_some_minutes_are_recorded_and_kept(model_folder, tmp_path, monkeypatch, capsys):
    def command(*arguments, fitting):
        monkeypatch.setattr(Timetable, "items_within", lambda self, minutes, most: min(fitting, most))
        code = main(["evaluate", str(model_folder), "--axes", "steps", *arguments, "--output_dir", str(tmp_path)])
        return code, json.loads((tmp_path / "evaluation.json").read_text())

    code, first = command("--minutes", "1", fitting=3)
    assert (code, first["settings"]["items"]) == (0, 3)
    assert "3 items per level: about" in capsys.readouterr().err
    assert command("--minutes", "2", fitting=5) == (0, first), "an examination goes on with what it chose"
    assert command("--items", "3", fitting=5) == (0, first)
    assert command("--items", "5", fitting=5)[0] == 2


def test_contexts_have_the_lengths_that_are_asked_for(model_folder, tmp_path, capsys):
    arguments = ["evaluate", str(model_folder), "--axes", "retention", "--items", "1", "--output_dir", str(tmp_path)]
    assert main([*arguments, "--lengths", "600, 520"]) == 0
    assert set(pd.read_parquet(tmp_path / "items.parquet")["level"]) == {520.0, 600.0}
    assert main(arguments) == 2
    assert "with other lengths; use another output_dir" in capsys.readouterr().err


def test_a_model_is_known_by_its_files(model_folder, tmp_path, capsys):
    model, moved = tmp_path / "model", tmp_path / "moved"
    shutil.copytree(model_folder, model)
    arguments = ["--axes", "steps", "--items", "4", "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", str(model), *arguments]) == 0
    model.rename(moved)
    assert main(["evaluate", str(moved), *arguments]) == 0
    settings = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**settings, "rms_norm_eps": 0.1}))
    assert main(["evaluate", str(moved), *arguments]) == 2
    assert "holds an evaluation with other model; use another output_dir" in capsys.readouterr().err


def test_nothing_measured_is_a_failure_and_random_weights_are_refused(model_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = ["--axes", "ambiguity", "--data", str(tmp_path / "empty"), "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", str(model_folder), *arguments]) == 1
    assert "ambiguity: not measured" in capsys.readouterr().out
    assert main(["evaluate", "tiny", "--output_dir", str(tmp_path / "other")]) == 2
    assert "random weights" in capsys.readouterr().err
