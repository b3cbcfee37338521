"""Token accuracy by complexity: how often a model's first guess is the word, the deeper the syntax of the sentence (figure 6).

- *Generated*: sentences of the world with 0 to 4 clauses inside one another; only verbs are scored, whose order the nesting alone tells.
- *Real*: sentences of the English Web Treebank (`ud_ewt`), by the depth of their gold dependency tree; all words but punctuation are scored.
  Besides, apart from the primary measure, BLiMP's minimal pairs (`blimp`, arXiv 1912.00582): is the grammatical sentence the likelier one, by
  the sum over its tokens? One paradigm is one cluster.

A word is right if all of its tokens are the model's first guesses; a sentence's score is the share of its scored words that are right. What a
tokenizer leaves without anything before it, at most the first word, is not scored. Continuous: mean log-probability of a scored word in nats;
of a pair, that of the right sentence minus that of the wrong one.

Traps: bins are of gold syntax, not of length or of a parser's opinion; but deep sentences are long ones, and late words have more before them,
so the slope over depth is no measure of anything: models are compared at each depth. There is no chance level without a closed list of words;
the control is who always says the commonest scored word (`control: commonest word`). Pairs have 1/2.
"""

from __future__ import annotations

import math
import random
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from cegm.lab import world
from cegm.lab.tasks.axis import Axis, record
from cegm.lab.tasks.examinee import Examinee, ReadToken
from cegm.lab.tasks.items import Choice, Form, Item, NotMeasured, Record, Source, available, form_of, stable_seed
from cegm.lab.tasks.public.annotated import treebank
from cegm.lab.tasks.public.reading import json_rows, public

NAME = "complexity"
DEPTHS = range(5)
BINS = (1, 3, 5, 7)
"""Least depth of each bin of the treebank; sentences of one word alone, of depth 0, have nothing to predict."""

SILENT = ("PUNCT", "SYM")
"""Parts of speech that are not scored."""

PARADIGM = re.compile(r"data/[^/]+\.jsonl")


@dataclass(frozen=True)
class Sentence:
    """A sentence of a document, the characters (start, end) of its scored words, and its depth or the least depth of its bin."""

    name: str
    document: str
    text: str
    words: tuple[tuple[int, int], ...]
    level: int


def nested_sentences(items: int, seed: int) -> list[Sentence]:
    """As many sentences of the world at each depth."""
    sentences = []
    for depth in DEPTHS:
        for index in range(items):
            name = f"{depth}-{index}"
            drawn = world.nested(random.Random(stable_seed(NAME, seed, name)), depth)
            sentences.append(Sentence(name, name, drawn.text, drawn.spans, depth))
    return sentences


def treebank_sentences(source: Source, items: int, seed: int) -> list[Sentence]:
    """As many sentences of the treebank in each bin, or all where it has fewer."""
    bins: dict[int, list[Sentence]] = {least: [] for least in BINS}
    for each in chain(treebank(source, "dev"), treebank(source, "test")):
        words = tuple(word.span for word in each.words if word.role not in SILENT)
        reached = [least for least in BINS if each.depth >= least]
        if reached and len(words) > 1:
            bins[reached[-1]].append(Sentence(each.name, each.document, each.text, words, reached[-1]))
    rng = random.Random(stable_seed(NAME, "ewt", seed))
    return [each for drawn in bins.values() for each in rng.sample(drawn, min(items, len(drawn)))]


def judged(sentence: Sentence, tokens: Sequence[ReadToken]) -> tuple[float, float] | None:
    """Share of right words and mean log-probability of a word; None if no word has anything before it."""
    rights, likelihoods = [], []
    for start, end in sentence.words:
        parts = [token for token in tokens if token.start < end and token.end > start]
        if parts and parts[0].start <= start:  # else a part of it was at the very beginning and has not been scored
            rights.append(all(token.top for token in parts))
            likelihoods.append(sum(token.log_probability for token in parts))
    return (sum(rights) / len(rights), sum(likelihoods) / len(likelihoods)) if rights else None


def commonest_word(sentences: Sequence[Sentence]) -> list[float]:
    """Share of the scored words of each sentence that are the word scored most often in all of them: the control."""
    said = [[each.text[start:end].lower() for start, end in each.words] for each in sentences]
    ((commonest, _),) = Counter(chain.from_iterable(said)).most_common(1)
    return [words.count(commonest) / len(words) for words in said]


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Accuracy of words at each depth, and in the real form of choosing the grammatical one of two sentences."""
    form = form_of(source)
    if form == "generated":
        return _read(examinee, nested_sentences(items, seed), form, "")
    return available(
        {
            "ud_ewt": lambda: _read(examinee, treebank_sentences(source, items, seed), form, "ud_ewt"),
            "blimp": lambda: minimal_pairs(examinee, source, items, seed),
        }
    )


def _read(examinee: Examinee, sentences: Sequence[Sentence], form: Form, subset: str) -> list[Record]:
    records = []
    for each, tokens in zip(sentences, examinee.read([each.text for each in sentences]), strict=True):
        right, likelihood = judged(each, tokens) or (0.0, math.nan)
        readable = not math.isnan(likelihood)
        records.append(
            Record(NAME, form, subset, each.name, each.document, each.level, right, likelihood, math.nan, readable)
        )
    for each, share in zip(sentences, commonest_word(sentences), strict=True):
        subset = "control: commonest word"
        records.append(Record(NAME, form, subset, each.name, each.document, each.level, share, math.nan, math.nan))
    return records


def paradigms(source: Source) -> dict[str, list[Item]]:
    """Paradigm of BLiMP (a cluster) -> its pairs of sentences, the right one first, sorted by name.

    Set `blimp` (alexwarstadt/blimp, CC BY 4.0). Layout: `BLiMP.zip` with `data/<paradigm>.jsonl`, 67 paradigms of 1,000 pairs,
    read in place. Known defects: `__MACOSX` holds shadows of the files that are no text.
    """
    path = public(source, "blimp", "BLiMP.zip")
    pairs = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if PARADIGM.fullmatch(n)):
                text, where = archive.read(name).decode(), f"{path}, {name}"
                rows = json_rows(text, where, "UID", "pairID", "sentence_good", "sentence_bad")
                pairs[rows[0]["UID"]] = [
                    Item(
                        Choice("", (r["sentence_good"], r["sentence_bad"])),
                        "blimp",
                        f"{r['UID']}-{r['pairID']}",
                        r["UID"],
                    )
                    for r in rows
                ]
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise NotMeasured(f"{path}: {error}; fetch the file again") from error
    if not pairs:
        raise NotMeasured(f"{path} has no data/*.jsonl in it; fetch the file again")
    return pairs


def minimal_pairs(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Pairs of all paradigms in turn: the first of each, then the second of each, and so on up to `items`."""
    rng = random.Random(stable_seed(NAME, "blimp", seed))
    drawn = [rng.sample(pairs, len(pairs)) for pairs in paradigms(source).values()]
    rng.shuffle(drawn)
    pairs = [pair for turn in zip_longest(*drawn) for pair in turn if pair is not None][:items]
    answers = examinee.choose([pair.choice for pair in pairs])
    return [record(NAME, "real", pair, likelihoods) for pair, likelihoods in zip(pairs, answers, strict=True)]


AXIS = Axis(
    name=NAME,
    title="Token accuracy by complexity",
    paper="Figure 6",
    measure="share of words that are the first guess, mean over sentences of all depths",
    level="depth of clauses, or least depth of a bin of dependency trees",
    control="always saying the commonest word (subset `control: commonest word`); 1/2 for pairs",
    measured=measure,
    primary=("", "ud_ewt"),
    sets=("blimp", "ud_ewt"),
    no_task="words are counted, whether each is the first guess, and no options are given",
)
