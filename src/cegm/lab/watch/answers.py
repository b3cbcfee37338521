"""What is asked first of a run, in words: is it healthy, is it better than the baseline at this step, when is it done, what did it cost."""

from __future__ import annotations

import time
from statistics import fmean
from typing import Literal

from msgspec import Struct

from cegm.lab.baselines import METHODS
from cegm.lab.watch.follower import TrainLine
from cegm.lab.watch.run_alarms import RECENT, Alarm, duration, of_layers, of_lines, of_log
from cegm.lab.watch.watched_run import State, WatchedRun

MINUS = "\N{MINUS SIGN}"
HOUR = 3600.0
MEBIBYTE = 2**20
LONGEST_ERROR = 300
"""Characters of an error that are shown; result.json has the rest."""


class Answer(Struct):
    """A few words, and what stands behind them."""

    value: str
    detail: str
    tone: Literal["", "good", "bad"] = ""


class Standing(Struct):
    """How a run stands.

    Attributes:
        id: By which it is asked for.
        title: Arm and seed.
        pair: Id of the run that it is held against; empty for none.
        pair_title: Its title.
        state: See `WatchedRun.state`.
        step: Last one that was logged.
        steps: In all; None where that is not known.
        bits_per_byte: Of the last validation.
        difference: That less the pair's at the same step.
        colour: Of its curves.
        healthy: Is it healthy?
        better: Is it better than the baseline at this step?
        done: When is it done?
        cost: What did it cost?
        alarms: What is wrong.
    """

    id: str
    title: str
    pair: str
    pair_title: str
    state: State
    step: int
    steps: int | None
    bits_per_byte: float | None
    difference: float | None
    colour: str
    healthy: Answer
    better: Answer
    done: Answer
    cost: Answer
    alarms: list[Alarm]


def standing(run: WatchedRun, pair: WatchedRun | None, price: float) -> Standing:
    """How a run stands now, beside the run that it is held against; an hour costs so much, 0: unknown."""
    train = run.train
    alarms, validation = _alarms(run, train), _validations(run, pair)
    return Standing(
        id=run.id,
        title=run.title,
        pair="" if pair is None else pair.id,
        pair_title="" if pair is None else pair.title,
        state=run.state,
        step=_step(run, train),
        steps=run.steps,
        bits_per_byte=validation[0],
        difference=validation[1],
        colour=METHODS[run.method].look.colour if run.method in METHODS else "",
        healthy=_healthy(run, alarms),
        better=_better(run, pair, train, validation),
        done=_done(run, train),
        cost=_cost(run, pair, train, price),
        alarms=alarms,
    )


def signed(number: float, digits: int = 4) -> str:
    """A number with its sign."""
    return f"{number:+.{digits}f}".replace("-", MINUS)


def differences(run: WatchedRun, pair: WatchedRun, most: int | None = None) -> list[tuple[int, float]]:
    """Loss less the pair's by step, of the last so many lines that both have, rising; losses are means since the line before."""
    losses = {each.step: each.loss for each in pair.train}
    found = []
    for each in reversed(run.train):
        other = losses.get(each.step)
        if each.loss is not None and other is not None:
            found.append((each.step, each.loss - other))
        if len(found) == most:
            break
    return found[::-1]


def _alarms(run: WatchedRun, train: list[TrainLine]) -> list[Alarm]:
    if run.state == "failed" and run.result is not None:
        return [Alarm("failed", f"The run failed: {str(run.result.error)[:LONGEST_ERROR]}", grave=True)]
    if not train:
        return of_log(run.events.events, train)
    silent = time.monotonic() - run.lines.changed if run.state == "running" else 0.0
    damaged = sum(each.record is None for each in run.lines.lines)
    return [
        *of_log(run.events.events, train),
        *of_lines(train, run.validations, silent, damaged),
        *of_layers(run.layers.last(), train[-1].lr_matrix),
    ]


def _healthy(run: WatchedRun, alarms: list[Alarm]) -> Answer:
    if alarms:
        count = f"{len(alarms)} alarm{'s' * (len(alarms) > 1)}"
        return Answer(run.state if alarms[0].grave else count, alarms[0].words, "bad")
    if run.state == "waiting":
        return Answer("not begun", "Nothing has been written yet.")
    spikes = next((each.spikes for each in reversed(run.train) if each.spikes is not None), None)
    return Answer("healthy", "No alarm" + (f"; {spikes:.0f} spikes so far." if spikes else "."), "good")


def _validations(run: WatchedRun, pair: WatchedRun | None) -> tuple[float | None, float | None, int]:
    """Bits per byte of the last validation, those less the pair's at the same step, and that step."""
    own = [(each.step, each.bits_per_byte) for each in run.validations if each.bits_per_byte is not None]
    last = own[-1][1] if own else None if run.result is None else run.result.bits_per_byte
    if pair is None:
        return last, None, 0
    others = {each.step: each.bits_per_byte for each in pair.validations if each.bits_per_byte is not None}
    both = [(step, value - others[step]) for step, value in own if step in others]
    if both:
        return last, both[-1][1], both[-1][0]
    if run.result is None or pair.result is None or last is None or pair.result.bits_per_byte is None:
        return last, None, 0
    return last, last - pair.result.bits_per_byte, int(run.result.steps or 0)


def _better(
    run: WatchedRun,
    pair: WatchedRun | None,
    train: list[TrainLine],
    validation: tuple[float | None, float | None, int],
) -> Answer:
    if pair is None:
        return Answer("no baseline", "Nothing is beside it; --baseline RUN gives a run of your own.")
    _, difference, step = validation
    validated = "" if difference is None else f"Validation {signed(difference)} bits per byte at step {step:,}."
    # With an entanglement loss the training loss is no longer that of the text alone.
    found = [] if run.config.get("beta") != pair.config.get("beta") else differences(run, pair, RECENT)
    if not found:
        if difference is None:
            return Answer("not known yet", f"No step that {pair.title} has logged, too.")
        return Answer(f"{signed(difference)} bits/byte", f"than {pair.title}. {validated}", _tone(difference))
    mean, lower = fmean(each for _, each in found), sum(each < 0 for _, each in found)
    detail = f"than {pair.title} at the same steps: lower in {lower} of {len(found)} lines up to step {found[-1][0]:,}."
    return Answer(f"{signed(mean)} nats", f"{detail} {validated}".strip(), _tone(mean))


def _tone(difference: float) -> Literal["good", "bad"]:
    return "good" if difference < 0 else "bad"


def _done(run: WatchedRun, train: list[TrainLine]) -> Answer:
    step, steps = _step(run, train), run.steps
    place = f"Step {step:,}" + (f" of {steps:,}, {step / steps:.0%}" if steps else "")
    if run.state == "waiting":
        return Answer("not begun", f"{steps:,} steps are planned." if steps else "")
    if run.state != "running":
        words = {"examined": "being examined"}.get(run.state, run.state)
        return Answer(words, f"{place}.")
    pace = _pace(train)
    if pace is None or not steps:
        return Answer("not known yet", f"{place}.")
    left = max(0, steps - step) * pace
    return Answer(f"{duration(left)} left", f"{place}, {duration(pace)} each; validations and checkpoints come on top.")


def _cost(run: WatchedRun, pair: WatchedRun | None, train: list[TrainLine], price: float) -> Answer:
    last = run.final or (train[-1] if train else run.result)
    if last is None or last.seconds is None:
        return Answer("nothing yet", "")
    speed = f", {last.tokens / last.seconds:,.0f} a second" if last.tokens and last.seconds else ""
    detail = f"Training; {last.tokens or 0:,} tokens{speed}"
    if last.memory_bytes is not None:
        detail += f"; {last.memory_bytes / MEBIBYTE:,.0f} MiB at most"
    own, other = _step_seconds(train), None if pair is None else _step_seconds(pair.train)
    if own and other and pair is not None:
        detail += f"; a step takes {100 * own / other:.0f} % of {pair.title}'s"
    value = duration(last.seconds)
    return Answer(f"{value}, {last.seconds / HOUR * price:,.2f}" if price else value, f"{detail}.")


def _step(run: WatchedRun, train: list[TrainLine]) -> int:
    if train:
        return run.final.steps if run.final is not None else train[-1].step
    return int(run.result.steps or 0) if run.result is not None else 0


def _pace(train: list[TrainLine]) -> float | None:
    """Training seconds of a step, over the last lines."""
    last = [each for each in train[-RECENT - 1 :] if each.seconds is not None]
    if len(last) < 2 or last[-1].step == last[0].step:
        return last[0].seconds / last[0].step if last and last[0].seconds and last[0].step else None
    return (float(last[-1].seconds or 0.0) - float(last[0].seconds or 0.0)) / (last[-1].step - last[0].step)


def _step_seconds(train: list[TrainLine]) -> float | None:
    """Of a step, mean over the last lines."""
    times = [(each.forward_backward_seconds, each.optimizer_seconds) for each in train[-RECENT:]]
    known = [passes + update for passes, update in times if passes is not None and update is not None]
    return fmean(known) if known else None
