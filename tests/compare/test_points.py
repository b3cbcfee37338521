"""Measurements that grow point by point: what is read back, and what is tried again."""

import json

import pytest

from cegm.compare.points import attempt, read_points


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


def test_an_attempt_counts_its_advance_and_tells_why_it_failed():
    calls = []
    assert attempt(lambda advance: advance() or {"value": 2}, lambda: calls.append(1)) == {"value": 2}
    assert calls == [1]

    def fail(advance):
        raise RuntimeError("not enough\nmemory " + 300 * "x")

    found = attempt(fail, lambda: None)
    assert found["error"].startswith("not enough memory xxx")
    assert len(found["error"]) == 200


def test_an_interruption_is_no_failure():
    def stop(advance):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(stop, lambda: None)
