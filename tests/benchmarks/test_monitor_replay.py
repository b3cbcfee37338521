"""The replay of traffic: prompts and servers are what it says, and the monitor sees what it puts in."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

import monitor_replay as replay

HOME = [replay.Prompt(letters, bits) for letters, bits in zip(range(20, 420), np.linspace(2, 4, 400), strict=True)]
SETS = {"home": HOME * 10, "outside": [replay.Prompt(200, 6.0, True)] * 50}


def test_the_reader_needs_less_for_what_it_knows_and_never_nothing() -> None:
    reader = replay.Trigram("the river carries a small boat past old houses. " * 50)
    known, foreign = reader.bits_per_byte("the river carries a boat"), reader.bits_per_byte("Zwölf Boxkämpfer")
    assert 0 < known < 2 < foreign


def test_its_probabilities_add_up_to_one() -> None:
    reader = replay.Trigram("abcabcabd" * 20)
    assert (2.0 ** -reader._bits[[0, 97 * 256 + 98, 65_535]]).sum(1) == pytest.approx(1.0)


def test_noise_changes_letters_of_every_third_word_and_nothing_else() -> None:
    text = "one two three four five six seven"
    changed = replay.noisy(text, random.Random(0)).split(" ")
    assert [each for each in changed if each in text.split(" ")] == ["two", "three", "five", "six"]
    assert all(sorted(a) == sorted(b) for a, b in zip(changed, text.split(" "), strict=True))


def test_a_challenger_that_is_gone_is_found_at_once_and_quiet_traffic_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "REFERENCE", 200)
    monkeypatch.setattr(replay, "BEFORE", 100)
    monkeypatch.setattr(replay, "AFTER", 100)
    found = replay.changed(SETS, replay.Change(challenger=replace(replay.GOOD, errors=1.0)), 2)
    assert (found["found"], found["hard_first"], found["first"]["errors"]) == (2, 2, 2)
    assert found["median_delay"] < 20
    quiet = replay.quiet(SETS["home"], 10_000.0, 200, 2)
    assert (quiet["requests"], quiet["alarms"], quiet["mean_to_alarm"]) == (400, 0, None)
