"""Records of runs: what is written comes back, and what no run writes is refused with its place."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from cegm.lab.records import EVENTS, Final, Metrics, Planned, Request, Result, Train, Validation, checked, facts, line

FINAL = {
    "kind": "final", "steps": 8, "tokens": 64, "seconds": 1.5, "loss": 2.5, "bits_per_byte": 1.25, "batch_hash": "a", "initial_hash": "b",
    "final_hash": "c", "median_step_seconds": 0.1, "optimizer_state_bytes": 10, "memory_bytes": 20, "parameters": 5, "spikes": 0,
    "skipped_steps": 0,
}  # fmt: skip


def test_a_line_is_one_line_of_json_with_its_kind_first_and_null_for_what_is_not_finite() -> None:
    found = line(Validation(step=3, tokens=9, seconds=0.1, loss=math.nan, bits_per_byte=math.inf))
    assert found == (
        '{"kind": "validation", "step": 3, "tokens": 9, "seconds": 0.1, "loss": null, "bits_per_byte": null}'
    )


def test_numbers_come_back_to_the_bit() -> None:
    for number in (0.1, 1 / 3, 5e-324, 1.7e-5, -0.0, 2**53 + 0.0):
        assert json.loads(line(Train(step=1, tokens=1, loss=number)))["loss"].hex() == number.hex()


def test_layers_are_left_out_where_a_method_shows_none() -> None:
    assert "layers" not in json.loads(line(Train(step=1, tokens=1)))
    assert json.loads(line(Train(step=1, tokens=1, layers={"a": {"cosine": math.nan}})))["layers"] == {
        "a": {"cosine": None}
    }


def test_the_final_line_comes_back_as_it_was() -> None:
    final = checked(FINAL, Metrics, "metrics.jsonl line 9")
    assert isinstance(final, Final)
    assert json.loads(line(final)) == FINAL
    assert {"kind": "final", **facts(final, Final)} == FINAL


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"kind": "train", "step": 1}, Metrics, "missing required field `tokens`"),
        ({"kind": "train", "step": "1", "tokens": 1}, Metrics, "Expected `int`, got `str` - at `$.step`"),
        ({"kind": "train", "step": 1, "tokens": -1}, Metrics, "`$.tokens`"),
        ({"kind": "train", "step": 1, "tokens": 1, "loss": 1e301}, Metrics, "`$.loss`"),
        ({"kind": "train", "step": 1, "tokens": 1, "layers": {"a": {"b": "c"}}}, Metrics, "`$.layers[...][...]`"),
        ({"kind": "other", "step": 1, "tokens": 1}, Metrics, "`$.kind`"),
        ({"step": 1}, Metrics, "`kind`"),
        ([], Metrics, "Expected `object`"),
        ({"id": "a", "method": "cegm", "role": "main"}, Planned, "`seed`"),
        ({"id": "a", "method": "cegm", "role": "main", "seed": True}, Planned, "`$.seed`"),
        ({"status": "finished"}, Result, "a finished run has tokens"),
        ({"retention": {"long": {}}}, Result, "retention"),
        ({"axes": {"noise": 3}}, Result, "`$.axes[...]`"),
    ],
)
def test_what_no_run_writes_is_refused_with_place_and_remedy(values: Any, kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^runs/a line 3 is not as it was written \(.*\); restore") as raised:
        checked(values, kind, "runs/a line 3")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_earlier_releases_lacked_and_what_is_not_known_is_let_pass() -> None:
    assert checked({"status": "failed", "error": "gone", "of a later release": [1]}, Result, "f").tokens is None
    assert checked({"kind": "train", "step": 1, "tokens": 2, "more": "x"}, Metrics, "f").tokens == 2


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", ".."])
def test_an_event_names_no_file_outside_its_run(name: str) -> None:
    msgspec.convert({"event": "finish", "files": {"model/a..b.json": "0"}}, EVENTS["finish"])
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"event": "finish", "files": {name: "0"}}, EVENTS["finish"])


def test_a_request_is_written_with_every_field_and_comes_back() -> None:
    given = {
        "number": 7, "time": "2026-01-02T03:04:05+00:00", "user": "0123456789abcdef", "stage": "canary 5", "variant": "champion",
        "shadow": False, "status": 200, "seconds": 0.5, "first_byte_seconds": None, "characters": 12, "refused": False, "error": "",
        "disagrees": None, "prompt_bits_per_byte": None, "feedback": None, "margin": None,
    }  # fmt: skip
    request = checked(given, Request, "requests.jsonl line 1")
    assert json.loads(line(request)) == given
