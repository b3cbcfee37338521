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
