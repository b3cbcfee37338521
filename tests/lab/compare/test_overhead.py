"""The overhead of methods: every point there, exact where it can be, resumed where it stopped."""

import gc
import json

import pytest

for extra in ("trl", "statsmodels"):
    pytest.importorskip(extra)

from cegm.lab.compare import overhead  # noqa: E402
from cegm.lab.compare.compare_config import CompareConfig, from_names  # noqa: E402
from cegm.lab.compare.overhead import Shape, measure_overhead, shapes  # noqa: E402

SMALL = {"methods": "cegm", "max_length": 8, "per_device_train_batch_size": 4, "overhead_rounds": 1}
OWN = Shape(16, 4, 8)


PLANNED = shapes(OWN)[:3]


@pytest.fixture(scope="module", autouse=True)
def short():
    """Blocks of two steps of a narrow model, and not all of its shapes."""
    gc.collect()
    gc.freeze()  # what the libraries hold need not be looked through before every count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overhead, "BLOCK", 2)
        patch.setattr(overhead, "model_width", lambda *_: OWN.width)
        patch.setattr(overhead, "shapes", lambda own: PLANNED)
        yield
    gc.unfreeze()


def measured(folder, **changes):
    return json.loads(measure_overhead(from_names(CompareConfig, {**SMALL, **changes}), folder).read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("overhead"), methods="muon,cegm")


def test_one_thing_is_varied_at_a_time():
    own = Shape(128, 8, 256)
    found = shapes(own)
    assert found[0] == own
    assert {s.width for s in found} == {64, 128, 256}
    assert {s.batch for s in found} == {2, 4, 8}
    assert {s.length for s in found} == {64, 128, 256}
    assert all(sum(a != b for a, b in zip(vars(s).values(), vars(own).values(), strict=True)) == 1 for s in found[1:])


def test_what_cannot_be_smaller_becomes_larger():
    assert {s.batch for s in shapes(Shape(128, 1, 256))} == {1, 2, 4}
    assert {s.batch for s in shapes(Shape(128, 3, 256))} == {3, 6, 12}
    assert {s.length for s in shapes(Shape(128, 8, 7))} == {7, 14, 28}


def test_every_point_is_measured_for_every_method_and_the_reference(found):
    assert found["methods"] == ["adamw", "muon", "cegm"]
    assert found["reference"] == "adamw"
    assert "2 blocks of 2 steps after 3 of warm-up" in found["how"]
    places = [(p["width"], p["batch"], p["length"]) for p in found["points"]]
    assert places == [(s.width, s.batch, s.length) for s in PLANNED]
    for point in found["points"]:
        reference = point["methods"]["adamw"]
        assert reference["ratio"] == {"estimate": 1.0, "low": None, "high": None, "points": [1.0, 1.0]}
        assert reference["peak_ratio"] == 1.0
        for own in point["methods"].values():
            assert len(own["seconds"]) == 2
            assert min(own["seconds"]) <= own["seconds_per_step"] <= max(own["seconds"])
            assert own["tokens_per_second"] * own["seconds_per_step"] == pytest.approx(point["batch"] * point["length"])
            ratios = [mine / theirs for mine, theirs in zip(own["seconds"], reference["seconds"], strict=True)]
            assert own["ratio"]["points"] == pytest.approx(ratios), "two blocks are too few for an interval"
            assert min(ratios) <= own["ratio"]["estimate"] <= max(ratios)
            assert own["peak_ratio"] == own["peak_bytes"] / reference["peak_bytes"]


def test_bytes_of_state_are_exact(found):
    for point in found["points"]:
        per_weight = {m: own["state_bytes_per_matrix_weight"] for m, own in point["methods"].items()}
        assert per_weight["muon"] == 4.0
        assert per_weight["adamw"] == pytest.approx(8.0, rel=0.02)  # and a counter per matrix
        # Weights, gradients and state are held at a time, whatever else is.
        for own in point["methods"].values():
            assert own["peak_bytes"] >= 8 * point["parameters"] + own["state_bytes"]
    adamw = found["points"][0]["methods"]["adamw"]
    assert adamw["state_bytes"] == pytest.approx(8 * found["points"][0]["parameters"], rel=0.02)


def test_a_wider_model_takes_more_memory(found):
    own, narrow, wide = ({m: v["peak_bytes"] for m, v in p["methods"].items()} for p in found["points"])
    assert all(narrow[m] < own[m] < wide[m] for m in own)


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    asked, measure = [], overhead._measure

    def watched(runs, tokenizer, shape, *rest):
        asked.append(shape)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return measure(runs, tokenizer, shape, *rest)

    monkeypatch.setattr(overhead, "_measure", watched)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path)
    before = json.loads((tmp_path / "overhead.json").read_text())["points"]
    assert len(before) == 1
    after = measured(tmp_path)["points"]
    assert after[:1] == before
    assert asked == [*PLANNED[:2], *PLANNED[1:]]
    measured(tmp_path)
    assert len(asked) == 4, "what was measured is not measured again"
    assert not list(tmp_path.glob("*.partial"))


def test_other_settings_are_measured_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(overhead, "shapes", lambda own: [own])
    first = measured(tmp_path)["points"]
    assert measured(tmp_path, **{"cegm.learning_rate": 0.5})["points"] == first, "a rate decides no cost"
    second = measured(tmp_path, **{"cegm.refresh_every": 1})["points"]
    assert len(second) == 1
    assert second[0]["id"] != first[0]["id"]


def test_a_point_that_cannot_be_measured_says_why_and_the_others_follow(tmp_path, monkeypatch):
    made = overhead.model_of_width

    def limited(run, tokenizer, width):
        if width > 16:
            raise RuntimeError("not enough memory:\nyou tried to allocate 8 bytes")
        return made(run, tokenizer, width)

    monkeypatch.setattr(overhead, "model_of_width", limited)
    monkeypatch.setattr(overhead, "shapes", lambda own: [Shape(32, 4, 8), own])
    wide, own = measured(tmp_path)["points"]
    assert "methods" in own
    assert set(wide) == {"id", "width", "batch", "length", "error"}
    assert wide["error"] == "not enough memory: you tried to allocate 8 bytes"
    monkeypatch.setattr(overhead, "model_of_width", made)
    again = measured(tmp_path)["points"]
    assert "methods" in again[0], "it is tried again"
    assert again[1] == own


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "overhead.json").write_text('{"points": [')
    with pytest.raises(ValueError, match=r"overhead\.json is damaged; delete it") as error:
        measured(tmp_path)
    assert "\n" not in str(error.value)


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="overhead_rounds=0 must be at least 1"):
        from_names(CompareConfig, {"overhead_rounds": 0})
