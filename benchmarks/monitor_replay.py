"""Replays traffic to the monitor: quiet, and with something changed; how long until alarms, against what is promised.

    python benchmarks/monitor_replay.py --data ../shared/data --output benchmarks/results/monitor/replay.json

Prompts are public: questions of Banking77 in an order drawn for each replay, then those of GSM8K (another domain), or the same with letters of
every third word changed places (noise). Their bits per byte are those of a trigram of bytes that knows one novel. Answers come from a
*simulated* server, so that hundreds of thousands are possible without a GPU: `Server` says how it behaves, and how one that is damaged does.
A reference of 1,000 requests of the champion comes first, then requests that go to either variant by a coin, every fifth to both.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from cegm.lab.monitor import reference
from cegm.lab.monitor.alarms import Alarm, Detectors
from cegm.lab.monitor.monitor_config import MonitorConfig
from cegm.lab.records import Request

REFERENCE, BEFORE, AFTER = 1_000, 1_000, 3_000
"""Requests of the reference, then until the change, then at most behind it."""

QUIET, CHANGED = 100, 30
"""Replays."""

PROMISES = {10_000.0: 4_000, 500.0: 2_000}
"""Requests of a quiet replay behind its reference, by what is promised."""

OUTSIDE = 0.6
"""What is left of the margin of a search about what its index does not hold."""


class Trigram:
    """Bits per byte for a reader that knows how often each byte follows two others, one, or none."""

    STRENGTH = 4.0

    def __init__(self, text: str) -> None:
        read = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        alone = (np.bincount(read, minlength=256) + 1) / (len(read) + 256)
        pairs = np.bincount(read[:-1] * 256 + read[1:], minlength=1 << 16).reshape(256, 256)
        triples = np.bincount((read[:-2] * 256 + read[1:-1]) * 256 + read[2:], minlength=1 << 24).reshape(1 << 16, 256)
        after_one = (pairs + self.STRENGTH * alone) / (pairs.sum(1, keepdims=True) + self.STRENGTH)
        below = np.tile(after_one, (256, 1))  # of the second byte of each pair
        self._bits = -np.log2((triples + self.STRENGTH * below) / (triples.sum(1, keepdims=True) + self.STRENGTH))

    def bits_per_byte(self, text: str) -> float:
        """Of all bytes but the first two."""
        read = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        return float(self._bits[read[:-2] * 256 + read[1:-1], read[2:]].mean())


@dataclass(frozen=True)
class Prompt:
    """What the monitor learns of a question."""

    letters: int
    bits: float
    is_outside: bool = False


@dataclass(frozen=True)
class Server:
    """How answers are: letters grow with the prompt, seconds with letters, the rest is drawn.

    Attributes:
        letters: Times the usual length.
        refusals: Share.
        errors: Share.
        slowness: Times the usual seconds.
        agreement: Shares of words in common with the other variant are drawn from Beta(agreement, 10 - agreement).
        liked: Share of the twentieth of users who say something that like it.
    """

    letters: float = 1.0
    refusals: float = 0.03
    errors: float = 0.003
    slowness: float = 1.0
    agreement: float = 6.0
    liked: float = 0.8

    def answer(self, number: int, prompt: Prompt, variant: str, is_shadow: bool, rng: np.random.Generator) -> Request:
        """The line of the log."""
        failed, refused = bool(rng.random() < self.errors), bool(rng.random() < self.refusals)
        letters = 60.0 if refused else self.letters * (150 + 2 * prompt.letters) * rng.lognormal(0, 0.4)
        margin = rng.lognormal(-1.5, 0.5) * (OUTSIDE if prompt.is_outside else 1.0)
        return Request(
            number=number, time="", user="", stage="canary 50", variant=variant, shadow=is_shadow,
            status=502 if failed else 200, error="ConnectError" if failed else "",
            seconds=self.slowness * (0.2 + letters / 300 * rng.lognormal(0, 0.2)), characters=0 if failed else int(letters),
            refused=refused and not failed, margin=float(margin), prompt_bits_per_byte=prompt.bits,
            disagrees=float(1 - rng.beta(self.agreement, 10 - self.agreement)) if is_shadow else None,
            feedback=float(rng.random() < self.liked) if rng.random() < 0.05 else None,
        )  # fmt: skip


GOOD = Server()
DAMAGED = Server(letters=1.5, refusals=0.09, agreement=4.0, liked=0.6)


@dataclass(frozen=True)
class Change:
    """What is different behind the change: prompts, or the challenger."""

    prompts: str = "home"
    challenger: Server = GOOD


CHANGES = {
    "prompts of another domain (GSM8K)": Change(prompts="outside"),
    "noisy prompts": Change(prompts="noisy"),
    "damaged challenger (longer, refuses and differs more)": Change(challenger=DAMAGED),
    "challenger refuses twice as often (6 %)": Change(challenger=replace(GOOD, refusals=0.06)),
    "challenger fails in 5 % (1 % are allowed)": Change(challenger=replace(GOOD, errors=0.05)),
    "challenger is gone": Change(challenger=replace(GOOD, errors=1.0)),
    "challenger takes twice as long": Change(challenger=replace(GOOD, slowness=2.0)),
}


def traffic(
    prompts: Callable[[int], Prompt], server: Callable[[int], Server], rng: np.random.Generator
) -> Iterator[Request]:
    """Requests behind the reference, without end."""
    number = REFERENCE
    while True:
        prompt, variant = prompts(number), ("champion", "challenger")[int(rng.random() < 0.5)]
        yield (server(number) if variant == "challenger" else GOOD).answer(number, prompt, variant, False, rng)
        if variant == "champion" and number % 5 == 0:
            yield server(number).answer(number, prompt, "challenger", True, rng)
        number += 1


def replayed(
    prompts: Callable[[int], Prompt],
    server: Callable[[int], Server],
    promise: float,
    requests: int,
    rng: np.random.Generator,
) -> Iterator[Alarm]:
    """Alarms among so many requests behind the reference."""
    before = [GOOD.answer(number, prompts(number), "champion", False, rng) for number in range(REFERENCE)]
    known = reference.made(MonitorConfig(rollout="replay", promise=promise), 0, before, f"{rng.integers(2**62):x}")
    detectors = Detectors(known, before)
    for request in traffic(prompts, server, rng):
        if request.number >= REFERENCE + requests:
            return
        yield from detectors.add(request)


def quiet(home: list[Prompt], promise: float, requests: int, replays: int) -> dict[str, Any]:
    """First alarms of quiet traffic, which are all false, and the mean number of requests to one."""
    first: list[int] = []
    names: Counter[str] = Counter()
    at_risk = 0
    for seed in range(replays):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(home))
        alarm = next(replayed(lambda n, o=order: home[o[n]], lambda n: GOOD, promise, requests, rng), None)  # type: ignore[misc]
        at_risk += requests if alarm is None else alarm.request - REFERENCE + 1
        if alarm is not None:
            first.append(alarm.request - REFERENCE + 1)
            names[alarm.indicator] += 1
    mean = at_risk / len(first) if first else None
    return {
        "promise": promise, "replays": replays, "requests": at_risk, "alarms": len(first), "mean_to_alarm": mean, "indicators": names
    }  # fmt: skip


def changed(sets: dict[str, list[Prompt]], change: Change, replays: int) -> dict[str, Any]:
    """Delays of the first alarm behind a change, in requests of both variants together, and what gave it."""
    delays: list[int | None] = []
    names: Counter[str] = Counter()
    false = hard = 0
    begun = REFERENCE + BEFORE
    for seed in range(replays):
        rng = np.random.default_rng(10_000 + seed)
        order, other = rng.permutation(len(sets["home"])), rng.permutation(len(sets[change.prompts]))

        def prompt(n: int, order: np.ndarray = order, other: np.ndarray = other) -> Prompt:
            return sets["home"][order[n]] if n < begun else sets[change.prompts][other[(n - begun) % len(other)]]

        def server(n: int) -> Server:
            return change.challenger if n >= begun else GOOD

        delays.append(None)
        for alarm in replayed(prompt, server, 10_000.0, BEFORE + AFTER, rng):
            if alarm.request < begun:
                false += 1
                continue
            delays[-1] = alarm.request - begun + 1
            names[alarm.indicator] += 1
            hard += alarm.hard
            break
    found = [each for each in delays if each is not None]
    return {
        "replays": replays, "found": len(found), "false_before": false, "median_delay": median(found) if found else None,
        "delay_90": float(np.quantile(found, 0.9)) if found else None, "first": names, "hard_first": hard,
    }  # fmt: skip


def noisy(text: str, rng: random.Random) -> str:
    """Every third word with two neighbouring letters changed."""
    words = text.split(" ")
    for place in range(0, len(words), 3):
        if len(words[place]) > 2:
            at = rng.randrange(len(words[place]) - 1)
            word = words[place]
            words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def prompt_sets(data: Path) -> dict[str, list[Prompt]]:
    """Prompts of each kind, with their bits per byte."""
    novel = sorted((data / "general_novels").rglob("*.txt"))[0].read_text(encoding="utf-8-sig")
    reader = Trigram(novel)
    home: list[str] = []
    for split in ("train", "test"):
        with (data / "faq_banking77/banking_data" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            home += [row["text"].strip() for row in csv.DictReader(file)]
    lines = (data / "gsm8k_test/grade_school_math/data/test.jsonl").read_text(encoding="utf-8").splitlines()
    outside = [json.loads(line)["question"] for line in lines]
    rng = random.Random(0)
    texts = {"home": home, "outside": outside, "noisy": [noisy(text, rng) for text in home]}
    return {
        name: [
            Prompt(len(text), reader.bits_per_byte(text), name == "outside") for text in each if len(text.encode()) > 2
        ]
        for name, each in texts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument(
        "--replays", type=int, default=QUIET, help="of quiet traffic; three tenths as many of each change"
    )
    given = parser.parse_args()
    sets = prompt_sets(given.data)
    few = max(1, given.replays * CHANGED // QUIET)
    found = {
        "reference": REFERENCE,
        "quiet": [quiet(sets["home"], promise, count, given.replays) for promise, count in PROMISES.items()],
        "changed": {name: changed(sets, change, few) for name, change in CHANGES.items()},
    }
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
