"""Context retention: what a model still knows of its context after 512 to 8192 tokens (the paper's table II).

Both forms ask the same kind of question: a context holds several bindings of a key to a value, far apart; the question repeats a key, and the
options are values of that context. Every option stands in the context, so only the binding tells the right one.

- *Generated* (`data="world"`): facts of the embedded world in filler that shares no word with them.
- *Real* (`data=[texts]`): passages of held-out text, each a head and a tail, planted in other held-out text. The question repeats a head, the
  options are tails. Head and tail come from different places, drawn at random: a natural continuation could be guessed by knowing the language,
  without the context.

Facts, questions and options are fixed across lengths: only the filler grows. Chance is one over the number of options, exactly, because values
are bound to keys at random: a scorer that ignores the keys (the most recent value, the most frequent one) gets that. Continuous score:
log-probability of the right option minus that of the best wrong one, per token of the option.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from cegm import world
from cegm.tasks.scoring import Question, score_options

AXIS = "retention"
LENGTHS = (512, 1024, 2048, 4096, 8192)
BINDINGS = 16
"""Per context; each is asked once. Reading the context is what costs, so many questions share it."""

OPTIONS = 4
HEAD, TAIL = 12, 8
"""Tokens of a planted passage's head and tail."""

WORLD = "world"

Tokens = tuple[int, ...]
Writer = Callable[[int], Tokens]
"""Writes the next so many tokens of filler."""


@dataclass(frozen=True)
class Binding:
    """One key and its value, in tokens.

    Attributes:
        prompt: What the question repeats.
        value: The right option.
        closing: What ends the sentence after the value.
    """

    prompt: Tokens
    value: Tokens
    closing: Tokens = ()

    @property
    def planted(self) -> Tokens:
        """What stands in the context."""
        return self.prompt + self.value + self.closing


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    *,
    data: str | Sequence[str] = WORLD,
    lengths: Sequence[int] = LENGTHS,
    items_per_length: int = 128,
    seed: int = 0,
    batch_size: int = 16,
) -> list[dict[str, Any]]:
    """Scores `items_per_length` questions at every length.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer; lengths count its tokens.
        data: `world`, or held-out texts that the model was not trained on.
        lengths: Tokens of the context and the longest question on it, met within 2 %; at least 512.
        items_per_length: Questions at each length, rounded up to whole contexts.
        seed: Decides bindings, filler and options; not the model.
        batch_size: Questions scored at a time; changes no result.

    Returns:
        A record per question: `axis, item, cluster` (its context), `level` (length), `depth` (relative position of the fact, 0 first), `correct`
        (0 or 1), `chance, score, achieved_length`.

    Raises:
        ValueError: A length beyond the model's positions or below 512, or held-out text that is too short, too repetitive or not text.
    """
    _check_lengths(model, lengths)
    source = _World(tokenizer) if isinstance(data, str) else _Text(tokenizer, data, max(lengths))
    opening = _opening(tokenizer)
    records: list[dict[str, Any]] = []
    for cluster in range(-(-items_per_length // BINDINGS)):
        bindings, filler = source.draw(f"{seed}/{cluster}")
        questions = _questions(bindings, random.Random(f"{seed}/{cluster}/options"))
        asking = len(opening) + max(len(q.prompt) + max(map(len, q.options)) for q in questions)
        for length in lengths:
            context, depths = _context(bindings, length - asking, filler())
            scores = score_options(model, [*opening, *context], questions, batch_size=batch_size)
            for index, (question, own) in enumerate(zip(questions, scores, strict=True)):
                margin = _margin(own, [len(option) for option in question.options])
                records.append(_record(cluster, index, length, depths[index], margin, len(context) + asking))
    return records


def _check_lengths(model: nn.Module, lengths: Sequence[int]) -> None:
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if limit is not None and max(lengths) > limit:
        raise ValueError(f"context length {max(lengths)} is beyond the model's {limit} positions; use at most {limit}")
    if min(lengths) < LENGTHS[0]:
        raise ValueError(
            f"context length {min(lengths)} cannot hold {BINDINGS} facts far apart; use at least {LENGTHS[0]}"
        )


def _record(cluster: int, index: int, length: int, depth: float, margin: float, achieved: int) -> dict[str, Any]:
    return {
        "axis": AXIS,
        "item": f"{cluster}-{index}",
        "cluster": str(cluster),
        "level": length,
        "depth": depth,
        "correct": int(margin > 0),
        "chance": 1 / OPTIONS,
        "score": margin,
        "achieved_length": achieved,
    }


def _margin(scores: Sequence[float], sizes: Sequence[int]) -> float:
    """Log-probability per token of the first option minus that of the best other one; a tie is wrong."""
    normal = [score / size for score, size in zip(scores, sizes, strict=True)]
    return normal[0] - max(normal[1:])


def _questions(bindings: Sequence[Binding], rng: random.Random) -> list[Question]:
    """One question per binding; the right option comes first."""
    questions = []
    for binding in bindings:
        others = [other.value for other in bindings if other.value != binding.value]
        questions.append(Question(binding.prompt, (binding.value, *rng.sample(others, OPTIONS - 1))))
    return questions


def _context(bindings: Sequence[Binding], length: int, filler: Writer) -> tuple[list[int], list[float]]:
    """Bindings at even distances with filler before, between and behind, and the relative depth of each."""
    gap = (length - sum(len(b.planted) for b in bindings)) / (len(bindings) + 1)
    if gap < 0:
        raise ValueError(f"{BINDINGS} facts in this model's tokens do not fit into {length}; use longer contexts")
    context: list[int] = []
    depths = []
    planted = 0
    for index, binding in enumerate(bindings):
        context += filler(round((index + 1) * gap) + planted - len(context))
        depths.append(len(context) / length)
        context += binding.planted
        planted += len(binding.planted)
    context += filler(length - len(context))
    return context, depths


class _World:
    """Bindings and filler of the embedded world."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def draw(self, seed: str) -> tuple[list[Binding], Callable[[], Writer]]:
        """The facts of one context, and what begins its filler anew for every length."""
        facts = world.draw_facts(random.Random(f"{seed}/facts"), BINDINGS)
        return [self._binding(fact) for fact in facts], lambda: self._filler(random.Random(f"{seed}/filler"))

    def _binding(self, fact: world.Fact) -> Binding:
        key, closing = fact.prompt, fact.words[len(fact.prompt) + 1 :]
        return Binding(self._encode(*key), self._encode(fact.person), self._encode(*closing))

    def _filler(self, rng: random.Random) -> Writer:
        def write(tokens: int) -> Tokens:
            written: Tokens = ()
            while len(written) < tokens:
                written += self._encode(*world.filler(rng))
            return written[len(written) - tokens :] if tokens > 0 else ()

        return write

    def _encode(self, *words: str) -> Tokens:
        # The space in front is part of a word for tokenizers that cut by bytes; one token per word ignores it.
        return tuple(self._tokenizer(" " + " ".join(words), add_special_tokens=False)["input_ids"])


class _Text:
    """Passages and filler of held-out text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], longest: int) -> None:
        self._tokens: list[int] = []
        enough = 8 * longest
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(
                    f"held-out document {index} is a {type(text).__name__}, context retention needs plain text; hold out text"
                )
            # A token is rarely more than 40 characters, and a whole library need not be read.
            self._tokens += tokenizer(text[: 40 * enough], add_special_tokens=False, verbose=False)["input_ids"]
            if len(self._tokens) > enough:
                break
        del self._tokens[enough:]
        needed = longest + 2 * BINDINGS * (HEAD + TAIL)
        if len(self._tokens) < needed:
            raise ValueError(
                f"the held-out text has {len(self._tokens)} tokens, context retention at {longest} needs {needed}; "
                "hold out more text or use shorter lengths"
            )
        self._seen = Counter(self._gram(start, HEAD) for start in range(len(self._tokens) - HEAD + 1))

    def draw(self, seed: str) -> tuple[list[Binding], Callable[[], Writer]]:
        """Heads and tails of one context, bound at random, and its filler: the text without them."""
        rng = random.Random(f"{seed}/passages")
        heads, tails = self._spans(rng)
        bindings = [
            Binding(self._gram(head, HEAD), self._gram(tail, TAIL)) for head, tail in zip(heads, tails, strict=True)
        ]
        taken = {start + i for start in heads + tails for i in range(HEAD + TAIL)}
        rest = [token for place, token in enumerate(self._tokens) if place not in taken]
        beginning = rng.randrange(len(rest))
        return bindings, lambda: self._filler(rest, beginning)

    def _spans(self, rng: random.Random) -> tuple[list[int], list[int]]:
        """Places of the heads, each found once in the whole text so that it names one passage, and of different tails elsewhere."""
        places = list(range(0, len(self._tokens) - HEAD - TAIL + 1, HEAD + TAIL))
        rng.shuffle(places)
        heads = [place for place in places if self._seen[self._gram(place, HEAD)] == 1][:BINDINGS]
        tails = {self._gram(place, TAIL): place for place in places if place not in heads}
        if len(heads) < BINDINGS or len(tails) < BINDINGS:
            raise ValueError(
                f"the held-out text repeats itself: fewer than {BINDINGS} different passages; hold out other text"
            )
        return heads, rng.sample(list(tails.values()), BINDINGS)

    def _gram(self, start: int, size: int) -> Tokens:
        return tuple(self._tokens[start : start + size])

    @staticmethod
    def _filler(rest: list[int], beginning: int) -> Writer:
        """Running text from `beginning` on, continued at its start when it ends."""
        position = beginning

        def write(tokens: int) -> Tokens:
            nonlocal position
            written = tuple(rest[(position + i) % len(rest)] for i in range(max(tokens, 0)))
            position += len(written)
            return written

        return write


def _opening(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """The token that this tokenizer puts before every text, where it has one: models trained with it lean on it."""
    begin = tokenizer.bos_token_id
    return (begin,) if begin is not None and list(tokenizer("")["input_ids"])[:1] == [begin] else ()
