import pytest

pytest.importorskip("yaml")

from cegm.compare.config import CompareConfig, from_values, tuned_settings


def test_shared_settings_reach_every_run_and_own_ones_only_their_method():
    config = from_values({"max_steps": "7", "muon.learning_rate": "0.5", "cegm.heads": 4, "seeds": "0,3"})
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
        for method, settings in tuned_settings("", kind).items():
            assert config.run(method, 0).learning_rate == settings["learning_rate"]


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
    ],
)
def test_what_cannot_run_is_refused_in_one_line(values, message):
    with pytest.raises(ValueError, match=message) as error:
        from_values(values)
    assert "\n" not in str(error.value)
