"""What is wrong with a run, in words: from its lines, its layers and its audit log. What the run itself has told is not judged anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from msgspec import Struct

from cegm.lab.records import Validation
from cegm.lab.watch.follower import TrainLine
from cegm.lab.watch.layer_lines import Layers

RECENT = 10
"""Lines that count as now."""

RISES = 3
"""Validations in a row, each above the one before, that are told."""

SILENT_SECONDS, SILENT_TIMES = 60.0, 10.0
"""A run is silent after a minute and ten times what a line usually takes: validations and checkpoints come between lines, too."""

ONE_DIRECTION = 1.1
"""A context of this effective rank is as good as a single direction, so that its map tells nothing apart."""

NAMED = 3
"""Layers that are named where there are more."""

CONTEXTS = {"context_rank": "context", "gradient_context_rank": "gradient context"}


class Alarm(Struct):
    """One thing that is wrong.

    Attributes:
        kind: A word for it, the same in docs/watch.md.
        words: The sentence.
        grave: Whether the run has ended by it.
    """

    kind: str
    words: str
    grave: bool = False


def of_log(events: Sequence[Mapping[str, Any]], train: Sequence[TrainLine]) -> list[Alarm]:
    """What a run has told about itself since it began or was resumed, if it is still so."""
    begun = max((n for n, each in enumerate(events) if each.get("event") in ("start", "resume")), default=0)
    own = events[begun:]
    since = train[-RECENT].step if len(train) >= RECENT else 0
    found = []
    for event in own:
        if event.get("event") == "non_finite":
            words = f"The run stopped: {event.get('layer')} was not finite at step {event.get('step')}"
            found.append(Alarm("not finite", words, grave=True))
        elif event.get("event") == "stopped":
            found.append(
                Alarm(
                    "stopped", f"The run was stopped after step {event.get('step')}: {event.get('error')}", grave=True
                )
            )
    recent = [event for event in own if isinstance(event.get("step"), int) and event["step"] > since]
    for kind, words in (
        ("spike", "Loss or gradient norm stood out of the steps before"),
        ("skip", "A step was given up because something was not finite"),
    ):
        steps = [event["step"] for event in recent if event["event"] == kind]
        if steps:
            found.append(Alarm(kind, f"{words}, last at step {steps[-1]:,}, {_times(len(steps))} in the last lines"))
    told = [str(event.get("warning")) for event in own if event.get("event") == "clipping"]
    if told and train and (train[-1].clip_factor or 1.0) < 1.0:
        found.append(Alarm("stalled clip", told[-1][:1].upper() + told[-1][1:]))
    return found


def of_lines(train: Sequence[TrainLine], validations: Sequence[Validation], silent: float, damaged: int) -> list[Alarm]:
    """What lines show: a loss that is none, validations that rise, silence for so many seconds, lines that cannot be read."""
    found = []
    if train and train[-1].loss is None:
        found.append(Alarm("no loss", f"No step up to {train[-1].step:,} had a finite loss since the line before"))
    losses = [(each.step, each.loss) for each in validations if each.loss is not None]
    last = [loss for _, loss in losses[-RISES - 1 :]]
    if len(last) > RISES and all(after > before for before, after in pairwise(last)):
        best = min(losses, key=lambda each: each[1])
        found.append(
            Alarm(
                "rising",
                f"Validation loss has risen {RISES} times in a row; its best was {best[1]:.4f} at step {best[0]:,}",
            )
        )
    usual = seconds_of_a_line(train)
    if usual is not None and silent > max(SILENT_SECONDS, SILENT_TIMES * usual):
        found.append(
            Alarm(
                "silent",
                f"No line for {duration(silent)}, where one usually takes {duration(usual)}: the run may be dead",
            )
        )
    if damaged:
        found.append(Alarm("damaged", f"{damaged} lines of metrics.jsonl cannot be read; cegm verify tells more"))
    return found


def of_layers(layers: Layers, rate: float | None) -> list[Alarm]:
    """What the last line says of layers: dead ones, contexts that are missing or have one direction, maps that turn gradients around."""
    moving = layers if rate else {}
    still = (name for name, own in moving.items() if own.get("gradient_norm") and own.get("update_to_weight") == 0)
    found = [
        *_alarm("dead layer", "without a gradient", (n for n, own in layers.items() if own.get("gradient_norm") == 0)),
        *_alarm("dead layer", "that do not move", still),
        *_alarm(
            "turned around",
            "mapped against their gradient",
            (n for n, own in layers.items() if _below(own, "cosine", 0)),
        ),
    ]
    for key, noun in CONTEXTS.items():
        if any(own.get(key) is not None for own in layers.values()):  # else the method has none, or none yet
            without = (name for name, own in layers.items() if own.get(key) is None)
            found += _alarm("context failure", f"without a {noun}", without)
        few = (name for name, own in layers.items() if _below(own, key, ONE_DIRECTION))
        found += _alarm("context failure", f"whose {noun} has one direction", few)
    return found


def seconds_of_a_line(train: Sequence[TrainLine]) -> float | None:
    """Training seconds between two lines, the longest of the last ones."""
    seconds = [each.seconds for each in train[-RECENT:] if each.seconds is not None]
    return max((after - before for before, after in pairwise(seconds)), default=None)


def duration(seconds: float) -> str:
    """A time as people say it, in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _alarm(kind: str, what: str, layers: Iterable[str]) -> list[Alarm]:
    names = list(layers)
    more = ", ..." if len(names) > NAMED else ""
    return [Alarm(kind, f"Layers {what}: {len(names)} ({', '.join(names[:NAMED])}{more})")] if names else []


def _below(own: Mapping[str, float | None], key: str, limit: float) -> bool:
    value = own.get(key)
    return value is not None and value < limit


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
