"""What a server with OpenAI's interface answered, whole or as a stream of events: its text, whether it ended, whether it refuses."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec

MOST_TEXT = 65_536
"""Letters of an answer that are kept to compare it; longer ones are counted only."""

MOST_LINE = 1 << 20
"""Bytes of an event; a longer one is passed on unread."""

APOSTROPHE = "['\u2019]"
REFUSAL = re.compile(
    rf"\W*(?:i(?:{APOSTROPHE}m| am) (?:sorry|unable|not able)|i can(?:{APOSTROPHE}t|not)|i won{APOSTROPHE}t|sorry, |as an ai\b"
    "|申し訳|お答えできま)",
    re.IGNORECASE,
)
"""How answers begin that answer nothing, in English and Japanese."""

CHINESE_JAPANESE_KOREAN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WORD = re.compile(f"[{CHINESE_JAPANESE_KOREAN}]|[^\\W{CHINESE_JAPANESE_KOREAN}]+")
"""A word, or a letter where words are written without blanks between them."""


class AnswerReader:
    """Reads an answer while its bytes pass.

    Args:
        is_stream: Whether it comes as events.
    """

    def __init__(self, is_stream: bool) -> None:
        self._is_stream = is_stream
        self._open = b""
        self._parts: list[str] = []
        self._kept = 0
        self._says_refused = False
        self.characters = 0
        self.is_whole = False
        self.failed = False

    @property
    def text(self) -> str:
        """The first letters of the answer."""
        return "".join(self._parts)

    @property
    def refused(self) -> bool:
        """Whether the model refuses, by its own mark or by how it begins."""
        return self._says_refused or REFUSAL.match(self.text) is not None

    def feed(self, content: bytes) -> None:
        """Takes the next bytes; of an answer that is no stream all at once."""
        if not self._is_stream:
            self._take(content)
            self.is_whole = not self.failed
            return
        *lines, self._open = (self._open + content).split(b"\n")
        if len(self._open) > MOST_LINE:
            self._open = b""
        for line in lines:
            if line.startswith(b"data:"):
                data = line[len(b"data:") :].strip()
                if data == b"[DONE]":
                    self.is_whole = True
                else:
                    self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            self.failed = not self._is_stream
            return
        if not isinstance(value, dict) or value.get("error"):
            self.failed = True
            return
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        said = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        if not isinstance(said, dict):
            return
        ended = choice.get("finish_reason")
        self.is_whole |= bool(ended)
        self._says_refused |= bool(said.get("refusal")) or ended == "content_filter"
        text = said.get("content")
        if isinstance(text, str):
            self.characters += len(text)
            part = text[: MOST_TEXT - self._kept]
            self._kept += len(part)
            self._parts.append(part)


def disagreement(answer: str, other: str) -> float:
    """One minus the share of words that two answers have in common (Dice), from 0 for the same words to 1 for none."""
    first, second = (Counter(WORD.findall(text.lower())) for text in (answer, other))
    total = first.total() + second.total()
    return 1 - 2 * (first & second).total() / total if total else 0.0
