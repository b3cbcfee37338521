"""What is written down of every attempt to answer: a line of the log, the counts, and the text where somebody opted in."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from cegm.lab.records import Request
from cegm.lab.rollout.answer_reader import AnswerReader
from cegm.lab.rollout.course import Course
from cegm.lab.rollout.kept_texts import KeptText
from cegm.lab.rollout.request_log import LineLog
from cegm.lab.rollout.tallies import LEFT

MOST_MARGIN = 1e300
"""Of what clients say; the log takes no larger number."""


@dataclass
class Asked:
    """A request on its way.

    Attributes:
        number: In the log.
        user: Hash.
        stage: Of the roll-out when it came.
        path: Of the interface.
        body: What it asks.
        begun: When it came, by a clock that never jumps.
        champions: Gets the champion's answer for a shadow to be compared with; None where the champion gave none.
    """

    number: int
    user: str
    stage: str
    path: str
    body: dict[str, Any]
    begun: float = field(default_factory=time.perf_counter)
    champions: asyncio.Future[str | None] | None = None


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, as far as the log says."""

    status: int
    reader: AnswerReader | None = None
    error: str = ""
    first_byte_seconds: float | None = None


class Ledger:
    """Writes attempts down.

    Args:
        course: Counts them.
        log: Of requests.
        texts: Prompts and answers, where somebody opted in.
    """

    def __init__(self, course: Course, log: LineLog, texts: LineLog | None) -> None:
        self._course, self._log, self._texts = course, log, texts

    def write(
        self,
        asked: Asked,
        variant: str,
        outcome: Outcome,
        seconds: float | None = None,
        shadow: bool = False,
        disagrees: float | None = None,
    ) -> None:
        """Writes one down, and gives a champion's answer to the shadow that waits for it."""
        reader, now = outcome.reader, datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        record = Request(
            number=asked.number,
            time=now,
            user=asked.user,
            stage=asked.stage,
            variant=variant,
            shadow=shadow,
            status=outcome.status,
            seconds=time.perf_counter() - asked.begun if seconds is None else seconds,
            first_byte_seconds=outcome.first_byte_seconds,
            characters=reader.characters if reader is not None else 0,
            refused=reader is not None and reader.refused,
            error=outcome.error,
            disagrees=disagrees,
            margin=_margin(asked.body),
        )
        self._log.append(record)
        self._course.add(record)
        text = reader.text if reader is not None and not outcome.error and outcome.status != LEFT else None
        if asked.champions is not None and not shadow and not asked.champions.done():
            asked.champions.set_result(text)
        if self._texts is not None and text is not None:
            prompt = json.dumps(asked.body.get("messages", asked.body.get("prompt")))
            self._texts.append(
                KeptText(number=asked.number, time=now, variant=variant, shadow=shadow, prompt=prompt, answer=text)
            )


def _margin(body: Mapping[str, Any]) -> float | None:
    """How far the best passage was ahead of the next in the search behind a prompt, where the client says it as metadata."""
    metadata = body.get("metadata")
    with suppress(TypeError, ValueError):
        margin = float(metadata["margin"]) if isinstance(metadata, dict) and "margin" in metadata else None
        return margin if margin is not None and abs(margin) <= MOST_MARGIN else None
    return None
