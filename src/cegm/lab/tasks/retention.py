"""Context retention: what a model still knows of its context after 512 to 8192 tokens (the paper's table II).

A context holds several facts, far apart; questions ask for one, and the options are values that stand in the same context, so only the fact
itself tells the right one.

- *Generated*: facts of the embedded world in filler that shares no word with them.
- *Real*, `passages`: passages of text, each a head and a tail, planted in other text. The question repeats a head, the options are tails.
  Head and tail come from different places, drawn at random: a natural continuation could be guessed by knowing the language, without the
  context. The text is that of novels, or for `evaluate` any held-out text.
- *Real*, `babi`: the statements of a bAbI qa1 story (arXiv 1502.05698) planted in novels, as in BABILong (arXiv 2406.10149); the question
  is where a person is at the end, the options are all places.

Facts, questions and options are fixed across lengths: only the filler grows; its length, that of the context with the longest question on
it, is met within 2 %. The number at the end of an item's name (but for `babi`) rises with the depth of its fact, 0 first. Continuous score:
log-probability of the right option minus that of the best wrong one, per token of the option.

Traps: values are bound to keys at random, so a scorer that ignores the keys (the most recent value, the most frequent one) gets chance,
exactly in the first two; in `babi`, the last place that is named is right more often than chance. A length beyond those that a model was
trained on tests its positions as well: the trained length is to be stated. Lengths count the model's own tokens: only models with one
tokenizer can be compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from typing import Literal

from torch import nn
from transformers import PreTrainedTokenizerBase

from cegm.lab.tasks.axis import ChoiceAxis
from cegm.lab.tasks.examinee import Examinee, Question
from cegm.lab.tasks.haystack import BINDINGS, Passages, Plan, Stories, WorldFacts, novel_texts
from cegm.lab.tasks.items import WORLD, Choice, Form, Item, NotMeasured, Record, Source, form_of

NAME = "retention"
LENGTHS = (512, 1024, 2048, 4096, 8192)


def measure(
    examinee: Examinee, source: Source, items: int, seed: int, lengths: Sequence[int] = LENGTHS
) -> list[Record]:
    """A record per question and length; `items` at every length, rounded up to whole contexts.

    Lengths that the model cannot read, or that cannot hold the facts in its tokens, are left out with a warning.

    Raises:
        NotMeasured: No length is left, or the novels are missing or damaged.
    """
    limit = examinee.positions or max(lengths)
    within = [length for length in lengths if length <= limit]
    if not within:
        raise NotMeasured(
            f"the model reads {limit} tokens, context retention needs {min(lengths)}; use a longer context"
        )
    plans = _plans(examinee.tokenizer, source, items, seed, within[-1])
    least = max(plan.least for plan in plans) + len(examinee.opening)
    held = [length for length in within if length >= least]
    if not held:
        raise NotMeasured(
            f"the facts alone take {least} of this model's tokens and it reads {limit}; use a longer context"
        )
    if len(held) < len(lengths):
        left = ", ".join(str(length) for length in lengths if length not in held)
        warnings.warn(
            f"context retention was not measured at {left}: facts take {least} tokens, the model reads {limit}",
            stacklevel=2,
        )
    return _records(examinee, plans, held, form_of(source))


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    *,
    data: Literal["world"] | Sequence[str] = WORLD,
    lengths: Sequence[int] = LENGTHS,
    items_per_length: int = 128,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Record]:
    """Context retention over held-out texts instead of public sets, at chosen lengths.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer; lengths count its tokens.
        data: `world`, or held-out texts that the model was not trained on.
        lengths: Tokens of the context and the longest question on it, met within 2 %; at least 512.
        items_per_length: Questions at each length, rounded up to whole contexts.
        seed: Decides bindings, filler and options; not the model.
        batch_size: Questions scored at a time; changes no result.

    Returns:
        A record per question and length.

    Raises:
        ValueError: A length beyond the model's positions or below 512, or held-out text that is too short, too repetitive or not text.
    """
    examinee = Examinee(model, tokenizer, batch_size)
    limit = examinee.positions
    if limit is not None and max(lengths) > limit:
        raise ValueError(f"context length {max(lengths)} is beyond the model's {limit} positions; use at most {limit}")
    if min(lengths) < LENGTHS[0]:
        raise ValueError(
            f"context length {min(lengths)} cannot hold {BINDINGS} facts far apart; use at least {LENGTHS[0]}"
        )
    source = WorldFacts(tokenizer) if isinstance(data, str) else Passages(tokenizer, data, max(lengths))
    plans = _bound(source, items_per_length, seed)
    return _records(examinee, plans, lengths, "generated" if isinstance(data, str) else "real")


def texts(lengths: Sequence[int], items: int, seed: int) -> list[Item]:
    """The generated form as texts: lengths count words, which are the tokens of a model of the world."""
    from cegm.lab.train.model import word_tokenizer

    tokenizer = word_tokenizer()

    def text(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens)))

    questions = []
    for plan, length in product(_plans(tokenizer, WORLD, items, seed, lengths[-1]), lengths):
        context = text(plan.context(length - plan.asking))
        for name, question in zip(plan.names, plan.questions, strict=True):
            options = tuple(f" {text(option)}" for option in question.options)
            choice = Choice(f"{context} {text(question.prompt)}", options)
            questions.append(Item(choice, plan.subset, name, plan.cluster, length))
    return questions


def _plans(tokenizer: PreTrainedTokenizerBase, source: Source, items: int, seed: int, longest: int) -> list[Plan]:
    """All contexts of a source, whatever their length; a public set that cannot be read is left out with a warning."""
    if form_of(source) == "generated":
        return _bound(WorldFacts(tokenizer), items, seed)
    plans = _bound(Passages(tokenizer, novel_texts(source, seed), longest), items, seed)
    try:
        plans += Stories(tokenizer, source, seed, longest).plans(items)
    except NotMeasured as error:
        warnings.warn(f"babi was not measured: {error}", stacklevel=3)
    return plans


def _bound(source: WorldFacts | Passages, items: int, seed: int) -> list[Plan]:
    return [source.plan(seed, number) for number in range(-(-items // BINDINGS))]


def _records(examinee: Examinee, plans: Sequence[Plan], lengths: Sequence[int], form: Form) -> list[Record]:
    return [record for plan in plans for length in lengths for record in _answered(examinee, plan, length, form)]


def _answered(examinee: Examinee, plan: Plan, length: int, form: Form) -> Iterator[Record]:
    """Records of one context at one length: read once for all its questions."""
    opening = examinee.opening
    context = [*opening, *plan.context(length - len(opening) - plan.asking)]
    scores = examinee.choose_after(context, plan.questions)
    for name, question, likelihoods in zip(plan.names, plan.questions, scores, strict=True):
        margin, chance = _margin(question, likelihoods), 1 / len(question.options)
        yield Record(NAME, form, plan.subset, name, plan.cluster, length, float(margin > 0), margin, chance)


def _margin(question: Question, scores: Sequence[float]) -> float:
    """Log-probability per token of the first option minus that of the best other one; a tie is wrong."""
    normal = [score / len(option) for score, option in zip(scores, question.options, strict=True)]
    return normal[0] - max(normal[1:])


AXIS = ChoiceAxis(
    name=NAME,
    title="Context retention",
    paper="Table II",
    measure="share of questions whose right answer is strictly the most likely option per token, by length of the context",
    level="tokens of the context",
    control="the value named last gets one over the number of options; in babi .38 of 6 places",
    sets=("babi", "general_novels"),
    generated=partial(texts, LENGTHS[:2]),
    real="the passages of context retention are cut in a model's own tokens; use the generated form",
    measured=measure,
)
