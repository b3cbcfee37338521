import json

import pytest
import torch
from msgspec.structs import replace

pytest.importorskip("trl")

import models
from cegm.lab.compare import worker
from cegm.lab.compare.compare_config import CompareConfig, from_names
from cegm.lab.compare.inputs import CHANGED
from cegm.lab.compare.plan import plan_main
from cegm.lab.tasks import efficiency


@pytest.fixture
def finished_run(tmp_path):
    """A run folder with a saved model of 2048 positions, and its plan line over a text of the caller's length."""
    from cegm.lab.train.model import byte_tokenizer

    tokenizer = byte_tokenizer()
    model = models.llama(vocabulary=len(tokenizer))
    model.config.max_position_embeddings = 2048
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    def planned(characters):
        letters = torch.randint(97, 123, (characters,), generator=torch.Generator().manual_seed(0)).tolist()
        words = "".join(" " if i % 7 == 6 else chr(letter) for i, letter in enumerate(letters))
        (tmp_path / "text.txt").write_text(words, encoding="utf-8")
        values = {"data": str(tmp_path / "text.txt"), "validation_fraction": 0.5, "items": 16, "seeds": "1"}
        return plan_main(from_names(CompareConfig, {**values, "max_steps": 1, "methods": "cegm"}))[0]

    return tmp_path, planned


def levels(outcomes):
    return sorted({record.level for outcome in outcomes for record in outcome.records})


def test_lengths_stop_where_the_positions_of_the_model_end(finished_run):
    folder, planned = finished_run
    assert levels(worker.examine(folder, planned(12_000))) == [512, 1024, 2048]


def test_short_held_out_text_shortens_the_axis_and_very_short_text_skips_it(finished_run):
    folder, planned = finished_run
    assert levels(worker.examine(folder, planned(4_000))) == [512, 1024]
    (outcome,) = worker.examine(folder, planned(1_000))
    assert outcome.records == []
    assert outcome.reason.startswith("the held-out text has")


def test_no_axes_examine_nothing(finished_run):
    folder, planned = finished_run
    assert worker.examine(folder, replace(planned(4_000), evaluation={"axes": []})) == []


def test_a_public_set_that_is_missing_is_told_and_the_other_axes_go_on(finished_run, tmp_path):
    folder, planned = finished_run
    asked = {"axes": ["steps", "ambiguity"], "source": str(tmp_path / "nothing"), "items": 4}
    outcomes = worker.examine(folder, replace(planned(4_000), evaluation=asked))
    assert [outcome.axis for outcome in outcomes] == ["steps", "ambiguity"]
    assert all(outcome.reason and not outcome.records for outcome in outcomes)


def test_the_tokens_that_an_axis_read_are_kept_with_its_seconds(finished_run):
    folder, planned = finished_run
    asked = {"axes": ["efficiency", "steps"], "source": "world", "items": 4}
    outcomes = worker.examine(folder, replace(planned(4_000), evaluation=asked))
    states = {outcome.axis: outcome.state() for outcome in outcomes}
    assert set(states["efficiency"]) == {"reason", "warnings", "seconds", "tokens"}
    asked_texts = [item.choice for item in efficiency.AXIS.questions("world", 4, worker.EXAMINATION_SEED)]
    longest = sum(sum(len(c.context + option + c.tail) - 1 for option in c.options) for c in asked_texts)
    assert sum(len(c.context) for c in asked_texts) < states["efficiency"]["tokens"] <= longest  # a token is a byte


def test_means_by_length():
    items = [{"level": 512, "score": c, "continuous": s, "chance": 0.25} for c, s in ((1, 2.0), (0, -1.0))]
    assert worker.by_length(items) == {"512": {"accuracy": 0.5, "score": 0.5, "chance": 0.25, "items": 2}}


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_run_whose_text_was_changed_has_no_result(finished_run, monkeypatch, capsys, when):
    folder, planned = finished_run
    run = planned(4_000)

    def change(*_):
        (folder / "text.txt").write_text("other words " * 400)

    if when == "before":
        change()
    monkeypatch.setattr(worker, "_train", change if when == "while" else lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit) as ended:
        worker.work(folder, json.loads(json.dumps(run.line())))
    assert ended.value.code == CHANGED
    assert not (folder / "result.json").exists()
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"data {folder / 'text.txt'} was changed or removed after this run had been planned")
