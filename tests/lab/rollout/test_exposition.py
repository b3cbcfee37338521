"""The page for Prometheus is one that Prometheus reads."""

from __future__ import annotations

import re

from cegm.lab.rollout.exposition import exposition
from cegm.lab.rollout.rollout_state import RolloutState
from cegm.lab.rollout.tallies import Key, Tallies, Tally

NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = rf'{NAME}="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{{LABEL}(?:,{LABEL})*\}})? (?:[-+]?[0-9.e+-]+|nan|inf)")
"""Of the format's description, version 0.0.4."""


def page() -> str:
    tallies = Tallies()
    tallies[Key("canary 5", "challenger", False)] = tally = Tally(requests=3, errors=1, seconds=0.75)
    tally.latest.extend([0.25, 0.5])
    tallies[Key('a "stage"\nof\\', "champion", True)] = Tally()
    state = RolloutState(stage="canary 5")
    return exposition(state, tallies, {"broken_streams": 2}, {"log_lines_waiting": 0.0})


def test_every_line_is_a_sample_or_a_type_that_comes_before_its_samples() -> None:
    known: list[str] = []
    for line in page().removesuffix("\n").split("\n"):
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("counter", "gauge", "summary")
            assert name not in known, "samples of one name stand together"
            known.append(name)
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1].removesuffix("_sum").removesuffix("_count") == known[-1]


def test_numbers_are_those_that_were_counted() -> None:
    text, labels = page(), 'stage="canary 5",variant="challenger",shadow="false"'
    for line in (
        f"cegm_rollout_requests_total{{{labels}}} 3",
        f"cegm_rollout_errors_total{{{labels}}} 1",
        f'cegm_rollout_seconds{{{labels},quantile="0.5"}} 0.25',
        f'cegm_rollout_seconds{{{labels},quantile="0.95"}} 0.5',
        f"cegm_rollout_seconds_sum{{{labels}}} 0.75",
        "cegm_rollout_broken_streams_total 2",
        "cegm_rollout_share 0.05",
        'cegm_rollout_stage{stage="canary 5"} 1',
    ):
        assert f"\n{line}\n" in text
