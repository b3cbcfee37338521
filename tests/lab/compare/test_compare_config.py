import re

import pytest

pytest.importorskip("yaml")

from cegm.lab.baselines import METHODS
from cegm.lab.compare.compare_config import CompareConfig, from_names, tuned_settings


def test_shared_settings_reach_every_run_and_own_ones_only_their_method():
    config = from_names(CompareConfig, {"max_steps": "7", "muon.learning_rate": "0.5", "cegm.heads": 4, "seeds": "0,3"})
    runs = {method: config.run(method, 3) for method in config.method_list}
    assert {run.max_steps for run in runs.values()} == {7}
    assert {run.seed for run in runs.values()} == {3}
    assert runs["muon"].learning_rate == 0.5
    assert runs["adamw"].learning_rate != 0.5
    assert runs["cegm"].optimizer_options["heads"] == 4
    assert "heads" not in runs["muon"].optimizer_options


def test_tuned_settings_are_the_default_for_either_kind_of_text():
    for data, kind in (("world", "world"), ("book.txt", "text")):
        config = CompareConfig(shared={"data": data})
        for method, settings in tuned_settings("", kind)[0].items():
            run = config.run(method, 0).to_dict()
            assert {name: {**run, **run["optimizer_options"]}[name] for name in settings} == settings


def test_a_file_of_the_search_gives_settings_and_refuses_its_seeds(tmp_path):
    path = tmp_path / "tuned.yaml"
    path.write_text("seeds: [1000]\nsettings:\n  soap: {learning_rate: 0.07}\n")
    config = from_names(CompareConfig, {"methods": "soap", "tuned": str(path)})
    assert config.run("soap", 0).learning_rate == 0.07
    with pytest.raises(ValueError, match="seed 1000 was used for tuning"):
        from_names(CompareConfig, {"methods": "soap", "tuned": str(path), "seeds": "999,1000"})
    with pytest.raises(ValueError, match="muon has no tuned settings"):
        from_names(CompareConfig, {"methods": "soap,muon", "tuned": str(path)})
    assert from_names(CompareConfig, {"methods": "soap,muon", "tuned": str(path), "muon.learning_rate": 0.1}).run(
        "muon", 0
    )


@pytest.mark.parametrize(
    "text", ["muon: {learning_rate: 1}", "[1, 2]", "seeds: [1]\nsettings: {muon: 3}", "settings: {}"]
)
def test_a_file_that_the_search_did_not_write_is_refused(tmp_path, text):
    path = tmp_path / "tuned.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="must hold seeds, and settings by method"):
        from_names(CompareConfig, {"methods": "muon", "tuned": str(path)})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": "a"}, "seeds='a'"),
        ({"seeds": "0,0"}, "none twice"),
        ({"seeds": "0"}, "at least one seed"),
        ({"methods": "adamw,moun"}, "did you mean 'muon'"),
        ({"methods": "adamw", "cegm.heads": 2}, "add it to --methods"),
        ({"seed": 3}, "set by the comparison itself"),
        ({"max_stepz": 3}, "did you mean 'max_steps'"),
        ({"cegm.haeds": 3}, "did you mean 'heads'"),
        ({"learning_rate": -1}, "learning_rate=-1"),
        ({"processes": -1}, "processes=-1"),
        ({"methods": "soap"}, "soap has no tuned settings; run cegm tune"),
        ({"tuned": "nowhere.yaml"}, "nowhere.yaml does not exist"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(values, message):
    with pytest.raises(ValueError, match=message) as error:
        from_names(CompareConfig, values)
    assert "\n" not in str(error.value)


def test_from_trained_weights_every_method_has_its_own_default_and_not_what_fresh_models_were_tuned_to():
    methods = ",".join(METHODS)
    config = from_names(
        CompareConfig, {"model_name_or_path": "some/model", "methods": methods, "muon.learning_rate": 0.25}
    )
    rates = {method: config.run(method, 0).learning_rate for method in METHODS}
    assert rates == {method: 0.25 if method == "muon" else METHODS[method].rates.trained for method in METHODS}
    assert config.run("cegm", 0).optimizer_options == {}
    adapted = from_names(CompareConfig, {"model_name_or_path": "some/model", "lora_r": "8"})
    assert adapted.run("cegm", 0).learning_rate == METHODS["cegm"].rates.adapters


def test_settings_that_the_user_tuned_hold_for_trained_weights_too(tmp_path):
    path = tmp_path / "tuned.yaml"
    path.write_text("seeds: [1000]\nsettings:\n  soap: {learning_rate: 0.07}\n")
    config = from_names(CompareConfig, {"model_name_or_path": "some/model", "methods": "soap", "tuned": str(path)})
    assert config.run("soap", 0).learning_rate == 0.07


FRONT = {"front": "true", "model_name_or_path": "trained", "methods": "adamw,cegm"}


def test_a_front_has_five_rates_around_the_default_of_trained_weights_and_the_middle_one_is_that():
    config = from_names(CompareConfig, FRONT)
    for method in ("adamw", "cegm"):
        own = METHODS[method].rates.trained
        assert config.rates_of(method) == pytest.approx([own * 10**place for place in (-1, -0.5, 0, 0.5, 1)], rel=1e-2)
        assert config.run(method, 0).learning_rate == config.rates_of(method)[2] == own
    adapters = from_names(CompareConfig, {**FRONT, "lora_r": 4})
    assert adapters.rates_of("adamw")[2] == METHODS["adamw"].rates.adapters


def test_rates_can_be_given_to_all_to_one_or_around_a_rate_of_ones_own():
    config = from_names(CompareConfig, {**FRONT, "rates": "3e-4, 1e-4", "cegm.rates": [0.01, 0.001]})
    assert config.rates_of("adamw") == [1e-4, 3e-4]
    assert config.rates_of("cegm") == [0.001, 0.01]
    assert "rates" not in config.run("cegm", 0).to_dict()["optimizer_options"]
    around = from_names(CompareConfig, {**FRONT, "rates": 3, "adamw.learning_rate": 0.002})
    assert around.rates_of("adamw") == [0.0002, 0.002, 0.02]


def test_the_rate_outside_matrices_moves_along_unless_it_was_given():
    """At the same multiple of its own rate every method moves embeddings alike."""
    config = from_names(CompareConfig, FRONT)
    for method in ("adamw", "cegm"):
        changes = [config.at_rate(method, rate) for rate in config.rates_of(method)]
        assert [change["aux_lr"] for change in changes] == pytest.approx(config.rates_of("adamw"))
        assert [change["learning_rate"] for change in changes] == config.rates_of(method)
    given = from_names(CompareConfig, {**FRONT, "aux_lr": 0})
    assert given.at_rate("cegm", 1e-3) == {"learning_rate": 1e-3}


def test_a_front_measures_forgetting_beside_whatever_else_and_gives_nobody_more_time(tmp_path):
    (tmp_path / "general_novels" / "corpus").mkdir(parents=True)
    config = from_names(CompareConfig, {**FRONT, "axes": "none", "data": "book.txt", "general": "a/x.txt,b/x.txt,c"})
    assert config.examination["axes"] == ["forgetting"]
    assert config.examination["general"] == {"a/x.txt": "a/x.txt", "b/x.txt": "b/x.txt", "c": "c"}
    assert not config.equal_seconds
    config = from_names(CompareConfig, {**FRONT, "axes": "noise", "axes_data": str(tmp_path)})
    assert config.examination["axes"] == ["noise", "forgetting"]
    assert config.examination["general"] == {"novels": str(tmp_path / "general_novels" / "corpus")}
    held_out = from_names(CompareConfig, {**FRONT, "data": "book.txt"}).examination
    assert (held_out["source"], held_out["axes"], held_out["general"]) == ("held_out", ["retention", "forgetting"], {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_name_or_path": "tiny"}, "have no model before to forget"),
        ({"methods": "muon,cegm"}, "read beside adamw's; add it to --methods"),
        ({"rates": "1"}, "must be a count from 2 on, such as 5, or different rates"),
        ({"rates": "1e-4,1e-4"}, "different rates"),
        ({"rates": "fast"}, "rates='fast' must be"),
        ({"cegm.rates": "1e-4,-1"}, "cegm.rates='1e-4,-1' must be"),
        ({"cegm.rates": "1e-4,1e-3"}, "as many rates, not {'adamw': 5, 'cegm': 2}"),
        ({"muon.rates": "3"}, "add it to --methods"),
    ],
)
def test_fronts_that_could_not_be_read_are_refused_in_one_line(values, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_names(CompareConfig, {**FRONT, **values})
    assert "\n" not in str(error.value)


def test_forgetting_by_itself_wants_a_model_before_too():
    with pytest.raises(ValueError, match="no model before"):
        from_names(CompareConfig, {"axes": "forgetting", "data": "book.txt"})
    axes = from_names(
        CompareConfig, {"axes": "forgetting", "data": "book.txt", "model_name_or_path": "trained"}
    ).examination
    assert axes["axes"] == ["forgetting"]
