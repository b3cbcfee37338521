"""Measurements that grow point by point: what is read back, and what is tried again."""

import json

import pytest

from cegm.lab.compare.points import Point, measure_points, read_points


def test_points_are_read_by_id_without_those_that_failed(tmp_path):
    path = tmp_path / "cost.json"
    assert read_points(path, "cost") == {}
    good, bad = {"id": "a", "value": 1}, {"id": "b", "error": "no memory"}
    path.write_text(json.dumps({"points": [good, bad]}))
    assert read_points(path, "cost") == {"a": good}


@pytest.mark.parametrize("text", ['{"points": [', "{}", "[]", '{"points": [1]}', '{"points": [{"value": 1}]}', "\xff"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "cost.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"cost\.json is damaged; delete it to measure the cost again") as error:
        read_points(path, "cost")
    assert "\n" not in str(error.value)


class Bench:
    """Points a, b and c, of which some fail; it counts what was measured."""

    def __init__(self, path):
        self.path, self.measured, self.failing = path, [], ()

    def point(self, name):
        def measure(advance):
            self.measured.append(name)
            if name in self.failing:
                raise self.failing[name]
            return {"value": len(self.measured)}

        return Point(name.upper(), {"width": ord(name)}, measure, 1)

    def run(self, names="abc"):
        assert measure_points(self.path, "cost", {name: self.point(name) for name in names}, {"how": "so"}) == self.path
        return json.loads(self.path.read_text())


def test_what_is_measured_is_written_in_the_planned_order_and_not_measured_again(tmp_path):
    bench = Bench(tmp_path / "cost.json")
    assert bench.run("ca")["how"] == "so"
    found = bench.run("abc")
    assert bench.measured == ["c", "a", "b"]
    assert found["points"] == [
        {"id": name, "width": ord(name), "value": n} for name, n in zip("abc", (2, 3, 1), strict=True)
    ]
    assert bench.run("abc") == found
    assert bench.measured == ["c", "a", "b"]


def test_a_point_that_failed_says_why_and_is_tried_again(tmp_path):
    bench = Bench(tmp_path / "cost.json")
    bench.failing = {"b": RuntimeError("not enough\nmemory " + 300 * "x")}
    told = ("not enough memory " + 300 * "x")[:200]
    assert [point.get("error") for point in bench.run()["points"]] == [None, told, None]
    bench.failing = {}
    assert [point.get("value") for point in bench.run()["points"]] == [1, 4, 3]
    assert bench.measured == ["a", "b", "c", "b"]


def test_an_interrupted_measurement_keeps_the_points_before_it(tmp_path):
    bench = Bench(tmp_path / "cost.json")
    bench.failing = {"b": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    bench.failing = {}
    assert [point["id"] for point in bench.run()["points"]] == ["a", "b", "c"]
    assert bench.measured == ["a", "b", "b", "c"]
