"""The name of a run is that of what it reads and what that means, for every command that keeps results by it."""

import json
import shutil

import pytest
from msgspec import structs

for extra in ("trl", "statsmodels", "optuna"):
    pytest.importorskip(extra)

from cegm.lab.compare import inputs as inputs_module  # noqa: E402
from cegm.lab.compare import overhead  # noqa: E402
from cegm.lab.compare.ablation import AblationConfig  # noqa: E402
from cegm.lab.compare.compare_config import CompareConfig, from_names  # noqa: E402
from cegm.lab.compare.drill import plan_drill  # noqa: E402
from cegm.lab.compare.inputs import ChangedError, require_same  # noqa: E402
from cegm.lab.compare.plan import plan_equal_seconds, plan_main  # noqa: E402
from cegm.lab.compare.tuning import TuneConfig  # noqa: E402

POINT = {"learning_rate": 0.01, "weight_decay": 0.1, "one_minus_momentum": 0.1}


@pytest.fixture
def place(tmp_path):
    """A text, a held-out text, a model and public sets; a configuration that names them all."""
    (tmp_path / "text.txt").write_text("some words " * 40)
    (tmp_path / "held.jsonl").write_text('{"text": "held out"}')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "sets" / "babi").mkdir(parents=True)
    (tmp_path / "sets" / "babi" / "1.txt").write_text("1 Mary went")
    (tmp_path / "sets" / "bbh").mkdir()
    return tmp_path


def shared(place):
    names = {"data": "text.txt", "validation_data": "held.jsonl", "model_name_or_path": "model"}
    return {name: str(place / path) for name, path in names.items()}


def comparison(place):
    return from_names(
        CompareConfig,
        {**shared(place), "axes_data": str(place / "sets"), "axes": "consistency", "seeds": "1", "max_steps": 3},
    )


def compared(place):
    return {run.id for run in plan_main(comparison(place))}


def equal_seconds(place):
    runs = plan_main(comparison(place))
    seconds = {"adamw": 1.0, "muon": 2.0, "cegm": 3.0}
    results = {
        run.id: {"method": run.method, "status": "finished", "steps": 3, "median_step_seconds": seconds[run.method]}
        for run in runs
    }
    return {run.id for run in plan_equal_seconds(comparison(place), runs, results)}


def tuned(place):
    config = TuneConfig(methods="adamw", shared={**shared(place), "max_steps": 3})
    return {run.id for run in config.planned("adamw", POINT)}


def ablated(place):
    config = AblationConfig(seeds="1", shared={**shared(place), "max_steps": 3})
    return {run.id for run in plan_main(config.comparison)}


def drilled(place):
    return {run.id for run in plan_drill(comparison(place))}


def timed(place):
    config, shape = comparison(place), overhead.Shape(16, 2, 8)
    return {overhead._identity(config, shape, overhead._runs(config, shape, ["adamw", "muon"]))}


NAMED = {f.__name__: f for f in (compared, equal_seconds, tuned, ablated, drilled, timed)}
FILES = {
    "text": "text.txt",
    "held-out text": "held.jsonl",
    "model": "model/config.json",
    "tokenizer": "model/tokenizer.json",
}


@pytest.mark.parametrize("command", NAMED)
@pytest.mark.parametrize("changed", FILES)
def test_other_content_is_another_name(place, command, changed):
    before = NAMED[command](place)
    assert before
    assert NAMED[command](place) == before
    path = place / FILES[changed]
    path.write_text((path.read_text() if path.exists() else "") + " ")
    assert not NAMED[command](place) & before


@pytest.mark.parametrize("command", NAMED)
def test_another_place_is_not(place, command, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "deep"
    shutil.copytree(place, elsewhere)
    assert NAMED[command](elsewhere) == NAMED[command](place)


@pytest.mark.parametrize("command", NAMED)
def test_another_meaning_is(place, command, monkeypatch):
    before = NAMED[command](place)
    monkeypatch.setattr(inputs_module, "MEANING", inputs_module.MEANING + 1)
    assert not NAMED[command](place) & before


def test_public_sets_count_as_far_as_they_are_read(place):
    before = compared(place)
    (place / "sets" / "bbh" / "x.json").write_text("an axis reads it that is not measured")
    assert compared(place) == before
    (place / "sets" / "babi" / "1.txt").write_text("1 John went")
    assert not compared(place) & before


def test_names_on_the_hub_stay_names():
    runs = [
        plan_main(from_names(CompareConfig, {"data": name, "seeds": "1", "max_steps": 3}))[0]
        for name in ("owner/a", "owner/b")
    ]
    assert [run.inputs for run in runs] == [{"meaning": inputs_module.MEANING}] * 2
    assert runs[0].id != runs[1].id


@pytest.mark.parametrize(
    ("path", "name"),
    [("text.txt", "data"), ("model/config.json", "model_name_or_path"), ("sets/babi/1.txt", "axes_data")],
)
def test_what_changed_is_named(place, path, name):
    run = plan_main(comparison(place))[0]
    require_same(run.inputs, run.config, run.evaluation)
    (place / path).write_text("other")
    with pytest.raises(
        ChangedError, match=rf"^{name} .*{path.split('/')[0]}.* was changed or removed after this run had been planned"
    ):
        require_same(run.inputs, run.config, run.evaluation)
    with pytest.raises(ChangedError, match="meaning 0, now"):
        require_same({**run.inputs, "meaning": 0}, run.config, run.evaluation)


def test_a_line_of_the_plan_names_itself(place):
    run = plan_main(comparison(place))[0]
    line = json.loads(json.dumps(run.line()))
    (place / "text.txt").unlink()
    assert type(run)(**{name: value for name, value in line.items() if name != "id"}).id == line["id"]


def test_plans_from_before_inputs_were_kept_keep_their_names(place):
    run = plan_main(comparison(place))[0]
    old = structs.replace(run, inputs={})
    assert old.id != run.id
    require_same(old.inputs, old.config, old.evaluation)
