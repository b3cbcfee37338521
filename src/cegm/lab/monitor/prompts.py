"""How surprising prompts are to the base model, in bits per byte: read in the background, and only where an operator opted in twice.

Texts have to be kept (`cegm rollout serve --keep_texts_days`), and a model has to be named. What was found stays in `prompts.jsonl`, as a number
alone, when the texts are gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from cegm.lab.monitor.request_tail import Line
from cegm.lab.rollout import kept_texts
from cegm.lab.rollout.rollout_state import RolloutFolder
from cegm.lab.strict import json_lines

MOST_LETTERS = 1_000
"""Of a prompt as many are read."""


class PromptReader:
    """Reads prompts with a model.

    Args:
        model: Folder or name of a model that knows something.
        folder: Of the roll-out.
    """

    def __init__(self, model: str, folder: RolloutFolder) -> None:
        self._model, self._texts, self._found = model, folder.texts, folder.root / "prompts.jsonl"
        self._bits: dict[int, float | None] = {}
        if self._found.exists():
            known = json_lines(self._found, growing=True)
            self._bits = {record["number"]: record["bits_per_byte"] for _, record in known}

    def filled(self, lines: Sequence[Line]) -> list[Line]:
        """The lines with what was found of their prompts."""
        self._read({line.request.number for line in lines} - self._bits.keys())
        return [line._replace(request=self._filled(line)) for line in lines]

    def _filled(self, line: Line) -> Any:
        return msgspec.structs.replace(line.request, prompt_bits_per_byte=self._bits.get(line.request.number))

    def _read(self, numbers: set[int]) -> None:
        """Reads prompts that nobody has read, as far as their texts are there."""
        if not numbers:
            return
        kept = {text.number: text.prompt for text in kept_texts.read(self._texts)}
        prompts = {number: asked(kept[number])[:MOST_LETTERS] for number in sorted(numbers & kept.keys())}
        with self._found.open("a", encoding="utf-8") as file:
            for number, text in prompts.items():
                self._bits[number] = self._bits_of(text)
                file.write(json.dumps({"number": number, "bits_per_byte": self._bits[number]}) + "\n")

    def _bits_of(self, text: str) -> float | None:
        """Bits per byte of one prompt; None where it is too short or cannot be spelt."""
        from cegm.lab.tasks.domains import bits_per_byte
        from cegm.lab.tasks.items import NotMeasured

        try:
            (tokens,) = self._examinee.read([text])
        except NotMeasured:
            return None
        return bits_per_byte(text, tokens) if tokens else None

    @cached_property
    def _examinee(self) -> Any:
        """The model, loaded when the first prompt is there; others on this machine come first."""
        from cegm.lab.tasks.examinee import Examinee
        from cegm.lab.train.model import load_trained
        from cegm.lab.train.prepare import quieten

        if hasattr(os, "nice"):
            os.nice(10)
        quieten()
        return Examinee(*load_trained(self._model, trust_remote_code=False))


def asked(prompt: str) -> str:
    """What the user said last, of a prompt as it is kept: JSON of a text or of messages."""
    value = json.loads(prompt)
    if isinstance(value, str):
        return value
    messages = [each for each in value if isinstance(each, Mapping) and each.get("role") == "user"] if value else []
    content = messages[-1].get("content") if messages else ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
