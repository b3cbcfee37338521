"""What is wrong is said, with the place, and what is right is not called wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cegm.lab.records import Validation
from cegm.lab.watch.follower import DECODER, TrainLine
from cegm.lab.watch.run_alarms import duration, of_layers, of_lines, of_log
from made_runs import layer_names, lines_of, train_line, validation_line

STEPS = 1000


def train(*steps: int, **changes: Any) -> list[TrainLine]:
    return [msgspec.json.decode(train_line(step, STEPS, [], **changes), type=TrainLine) for step in steps]


def validations(*losses: float | None) -> list[Validation]:
    return [Validation(step=100 * n, tokens=0, loss=loss) for n, loss in enumerate(losses)]


def layers(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = msgspec.json.decode(train_line(500, STEPS, layer_names(7)))["layers"]
    return {name: {**own, **changes.get(name.rsplit(".", 1)[-1], {})} for name, own in found.items()}


def kinds(alarms: list[Any]) -> list[str]:
    return [alarm.kind for alarm in alarms]


def test_a_healthy_run_has_no_alarm() -> None:
    records = [DECODER.decode(line) for line in lines_of(STEPS, 500, 10, layer_names(7))]
    own = [each for each in records if isinstance(each, TrainLine)]
    checked = [each for each in records if isinstance(each, Validation)]
    assert of_lines(own, checked, 5.0, 0) == []
    assert of_layers(layers(), 0.01) == []
    events = [{"event": "start"}, {"event": "checkpoint", "step": 500}]
    assert of_log(events, own) == []


@pytest.mark.parametrize(
    ("event", "kind", "grave"),
    [
        ({"event": "non_finite", "step": 501, "layer": "output of layer x"}, "not finite", True),
        ({"event": "stopped", "step": 500, "error": "OSError"}, "stopped", True),
        ({"event": "spike", "step": 480, "score": 9.0}, "spike", False),
        ({"event": "skip", "step": 480, "layer": "gradient of x"}, "skip", False),
        ({"event": "clipping", "step": 300, "warning": "every step of fifty was clipped"}, "stalled clip", False),
    ],
)
def test_what_a_run_has_told_is_told_until_it_is_resumed(event: dict[str, Any], kind: str, grave: bool) -> None:
    own = train(*range(400, 501, 10))
    found = of_log([{"event": "start"}, event], own)
    assert kinds(found) == [kind]
    assert found[0].grave is grave
    assert of_log([{"event": "start"}, event, {"event": "resume", "step": 400}], own) == []


def test_spikes_long_ago_and_clipping_that_is_over_are_no_alarm_now() -> None:
    spikes = [{"event": "spike", "step": step} for step in (100, 200)]
    assert of_log(spikes, train(*range(400, 501, 10))) == []
    told = [{"event": "clipping", "step": 300, "warning": "clipped"}]
    assert of_log(told, train(500, clip_factor=1.0)) == []


def test_a_line_without_a_finite_loss_is_an_alarm() -> None:
    assert kinds(of_lines(train(10, loss=None), [], 0.0, 0)) == ["no loss"]


def test_validation_loss_that_rises_three_times_in_a_row_is_an_alarm() -> None:
    own = train(10)
    assert of_lines(own, validations(3.0, 2.0, 2.1, 2.2), 0.0, 0) == []
    found = of_lines(own, validations(3.0, 2.0, 2.1, 2.2, 2.3), 0.0, 0)
    assert kinds(found) == ["rising"]
    assert "best was 2.0000 at step 100" in found[0].words
    assert of_lines(own, validations(2.0, 2.1, None, 2.05, 2.3), 0.0, 0) == []


def test_silence_is_measured_by_what_a_line_usually_takes() -> None:
    own = train(*range(10, 101, 10))  # five seconds each
    assert of_lines(own, [], 59.0, 0) == []
    assert kinds(of_lines(own, [], 61.0, 0)) == ["silent"]
    slow = [msgspec.structs.replace(each, seconds=each.step * 6.0) for each in own]  # a minute each
    assert of_lines(slow, [], 599.0, 0) == []
    assert kinds(of_lines(slow, [], 601.0, 0)) == ["silent"]


def test_lines_that_cannot_be_read_are_counted() -> None:
    assert "2 lines" in of_lines(train(10), [], 0.0, 2)[0].words


def test_layers_that_get_nothing_or_do_not_move_are_named() -> None:
    found = of_layers(layers(q_proj={"gradient_norm": 0.0}, up_proj={"update_to_weight": 0.0}), 0.01)
    assert kinds(found) == ["dead layer", "dead layer"]
    assert "without a gradient: 1 (model.layers.0.self_attn.q_proj)" in found[0].words
    assert "do not move: 1 (model.layers.0.mlp.up_proj)" in found[1].words
    still = layers(up_proj={"update_to_weight": 0.0})
    assert of_layers(still, 0.0) == of_layers(still, None) == []  # at a rate of zero nothing moves


def test_contexts_that_fail_are_an_alarm_and_a_method_without_any_is_not() -> None:
    without = {"context_rank": None}
    found = of_layers(layers(q_proj=without, k_proj={"gradient_context_rank": 1.0}), 0.01)
    assert kinds(found) == ["context failure", "context failure"]
    assert "without a context: 1" in found[0].words
    assert "whose gradient context has one direction: 1" in found[1].words
    none = {name: {**own, "context_rank": None, "gradient_context_rank": None} for name, own in layers().items()}
    assert of_layers(none, 0.01) == []


def test_a_map_that_turns_a_gradient_around_is_an_alarm() -> None:
    assert kinds(of_layers(layers(v_proj={"cosine": -0.01}), 0.01)) == ["turned around"]


def test_of_many_layers_a_few_are_named() -> None:
    dead = {name: {"gradient_norm": 0.0} for name in layer_names(200)}
    (found,) = of_layers(dead, 0.01)
    assert found.words.startswith("Layers without a gradient: 200 (")
    assert found.words.endswith(", ...)")
    assert len(found.words) < 200


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (42.4, "42 s"),
        (61, "1 min 01 s"),
        (3599, "59 min"),
        (7260, "2 h 01 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_times_are_said_in_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_validation_lines_are_what_a_run_writes() -> None:
    assert msgspec.json.decode(validation_line(100, STEPS), type=Validation).step == 100
