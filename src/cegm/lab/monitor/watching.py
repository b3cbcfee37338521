"""`cegm monitor`: follows the log of a roll-out, fixes the reference, writes alarms into the chain and says each in one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from cegm.lab.monitor import reference
from cegm.lab.monitor.alarms import EVENT, Alarm, Detectors, known_keys, told
from cegm.lab.monitor.indicators import INDICATORS, STREAMS, VARIANTS
from cegm.lab.monitor.monitor_config import MonitorConfig
from cegm.lab.monitor.prompts import PromptReader
from cegm.lab.monitor.reference import Reference, values_of
from cegm.lab.monitor.request_tail import Line, RequestTail
from cegm.lab.records import Request
from cegm.lab.rollout import rollout_state
from cegm.lab.rollout.rollout_state import RolloutFolder

LOOK_SECONDS = 1.0
"""Between two looks at the log."""

Say = Callable[[str], None]


def monitor(config: MonitorConfig) -> int:
    """Watches until it is stopped, or with `once` to the end of the log; 1 where it gave an alarm.

    Raises:
        ValueError: There is no roll-out, its chain or log was changed, or an option differs from what was fixed.
    """
    watch = Watch(config, partial(print, flush=True))
    while True:
        watch.look()
        if config.once:
            watch.say_where_it_stands()
            return int(watch.alarms > 0)
        time.sleep(LOOK_SECONDS)


class Watch:
    """What is known of a roll-out so far.

    Args:
        config: Options.
        say: Takes each line of words.
    """

    def __init__(self, config: MonitorConfig, say: Say) -> None:
        self.alarms = 0
        self._config, self._say = config, say
        self._folder = RolloutFolder(Path(config.rollout))
        events, log = rollout_state.read(self._folder)[1], self._folder.requests
        self._told = known_keys(events)
        self._known = None if config.renew else reference.fixed(events)
        self._begun: list[Line] = []
        self._champions: list[Line] = []
        self._detectors: Detectors | None = None
        if self._known is not None:
            reference.require_same(self._known, config)
        place = self._known.place if self._known is not None else _latest(log, config) if config.renew else 0
        self._tail = RequestTail(log, place)
        self._prompts = PromptReader(config.base_model, self._folder) if config.base_model else None

    def look(self) -> None:
        """Judges what has come."""
        lines = self._tail.read()
        for line in lines if self._prompts is None else self._prompts.filled([*lines]):
            if self._detectors is not None:
                self._judge(line.request)
                continue
            self._begun.append(line)
            if line.request.variant == "champion":
                self._champions.append(line)
            if len(self._champions) == self._wanted:
                self._begin()

    def say_where_it_stands(self) -> None:
        """What is judged, or why nothing is."""
        if self._detectors is None:
            self._say(
                f"{len(self._champions):,} of {self._wanted:,} requests of the champion; nothing is judged before"
            )
        elif not self.alarms:
            self._say("no new alarm")

    @property
    def _wanted(self) -> int:
        return self._config.reference if self._known is None else self._known.reference

    def _begin(self) -> None:
        """Fixes the reference, or finds it as it was; a restless one begins behind the change."""
        lines = self._champions
        known = self._known or self._fix(lines)
        if known is None:
            return
        if reference.digest(lines) != known.lines_sha256:
            raise ValueError(
                f"the reference in {self._folder.requests} is not what the chain knows; restore the log, or add --renew"
            )
        self._known = known
        self._say(described(known, [line.request for line in lines]))
        self._detectors = Detectors(known, [line.request for line in lines])
        inside = {line.place for line in lines}
        for line in self._begun:
            if line.place not in inside:
                self._judge(line.request)
        self._begun = []

    def _fix(self, lines: list[Line]) -> Reference | None:
        """Writes a quiet reference into the chain; drops what came before a change, and gives None."""
        requests = [line.request for line in lines]
        made = reference.made(self._config, lines[0].place, requests, reference.digest(lines))
        found = reference.restlessness(requests, made.threshold, made.lines_sha256)
        if found is not None:
            indicator, count = found
            self._say(
                f"no quiet reference: {indicator.meaning} about request {requests[count - 1].number}; it begins behind that"
            )
            self._begun = [line for line in self._begun if line.place > lines[count - 1].place]
            self._champions = lines[count:]
            return None
        rollout_state.record(self._folder, reference.EVENT, **msgspec.to_builtins(made))
        return made

    def _judge(self, request: Request) -> None:
        assert self._detectors is not None
        for alarm in self._detectors.add(request):
            if alarm.key not in self._told:
                self._give(alarm)

    def _give(self, alarm: Alarm) -> None:
        rollout_state.record(self._folder, EVENT, **msgspec.to_builtins(alarm))
        self._told.add(alarm.key)
        self.alarms += 1
        self._say(told(alarm, self._config.rollout))


def described(known: Reference, requests: Sequence[Request]) -> str:
    """The reference and the promise in two lines."""
    middles = ", ".join(_middles(requests))
    return (
        f"reference: {known.reference:,} requests of the champion from {requests[0].time} to {requests[-1].time}, {middles} "
        f"(sha256 {known.lines_sha256[:16]})\n"
        f"promise: {known.promise:,.0f} requests or more on average between false alarms; each of {len(STREAMS)} detectors "
        f"({len(INDICATORS)} indicators of {len(VARIANTS)} variants) alarms at {known.threshold:,.0f}; at most "
        f"{known.allowed_errors:.2%} may fail and {known.allowed_slow:.1%} take longer than {known.slow_seconds:.3g} s"
    )


def _middles(requests: Sequence[Request]) -> Iterator[str]:
    for indicator in INDICATORS:
        values = sorted(values_of(requests, indicator.name))
        if values and indicator.unit == "share":
            yield f"{indicator.name} {sum(values) / len(values):.1%}"
        elif values:
            yield f"{indicator.name} {values[len(values) // 2]:.4g} {indicator.unit}".rstrip()


def _latest(log: Path, config: MonitorConfig) -> int:
    """Where the champion's latest requests begin, as many as a reference takes."""
    places = [line.place for line in RequestTail(log).read() if line.request.variant == "champion"]
    if len(places) < config.reference:
        raise ValueError(
            f"the champion has answered {len(places)} requests and reference={config.reference} are needed; wait"
        )
    return places[-config.reference]
