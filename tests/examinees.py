"""Examinees that are no models: one that knows, one that guesses. An axis is on trial before any model is."""

import random

from cegm.lab.tasks.examinee import ReadToken
from cegm.lab.tasks.items import Choice


class Oracle:
    """Knows that the right option comes first, reads every word as expected, and writes what `knows` says follows a prompt."""

    positions = None
    batch_size = 16
    tokens = 0

    def __init__(self, knows=None):
        self.knows = knows

    def choose(self, choices: list[Choice]):
        return [[0.0, *[-10.0] * (len(choice.options) - 1)] for choice in choices]

    def read(self, texts):
        return [[ReadToken(start, end, 0.0, True) for start, end in words(text)] for text in texts]

    def write(self, prompts, tokens, until=None):
        return [self.knows(prompt) for prompt in prompts]

    def studied(self, texts, steps):
        return (self for _ in steps)


class Guesser(Oracle):
    """Chooses at random, whatever the options are."""

    def __init__(self, seed=0):
        self.rng = random.Random(seed)

    def choose(self, choices):
        return [[self.rng.random() for _ in choice.options] for choice in choices]

    def read(self, texts):
        return [[ReadToken(start, end, -5.0, self.rng.random() < 0.01) for start, end in words(text)] for text in texts]


def words(text):
    """Spans of the white-space words of a text, each with the space in front of it, as most tokenizers cut."""
    spans, start = [], 0
    for word in text.split(" "):
        spans.append((max(start - 1, 0), start + len(word)))
        start += len(word) + 1
    return spans
