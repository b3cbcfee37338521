"""What an exam about the world hands out: a context and options of which the first is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Exam:
    """One question.

    Attributes:
        context: Sentences, and the question up to its answer.
        options: Continuations, the right one first; each begins with a space.
        tail: Words after the option that are judged in its stead; empty for none.
        cluster: Exams of one cluster share their facts.
        protected: Words that noise must leave alone: the key asked for and all options.
    """

    context: str
    options: tuple[str, ...]
    tail: str = ""
    cluster: str = ""
    protected: frozenset[str] = frozenset()


def joined(sentences: Sequence[Sequence[str]]) -> str:
    """Sentences as text: words apart by single spaces."""
    return " ".join(word for sentence in sentences for word in sentence)
