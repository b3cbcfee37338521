"""Ambiguity resolution: whom a pronoun means, where only the rest of the sentence tells (the paper's table I).

Every candidate is put in the place of the pronoun and the words *after* it are scored: "partial" scoring (Trinh & Le 2018, arXiv
1806.02847). Those words are the same for all candidates, so that neither the length nor the frequency of a name counts.

- *Generated*: what is said of one of two persons in the embedded world: as told (0), what follows (1), the same after filler (2).
- *Real*: English Winograd schemas as collected in XWINO (arXiv 2106.12066, `wsc_xwinograd_en`, Apache-2.0), in three subsets that are
  reported apart: `wsc`, the 273 of the original challenge; `superglue`, those of SuperGLUE (arXiv 1905.00537) that are not among them, for
  65 of its 170 rows are and are left out here; `naive`, the definite pronouns of Rahman & Ng 2012. And `gap`, pronouns of Wikipedia
  (arXiv 1810.05201, `gap_coreference`, Apache-2.0, test part), scored up to the end of the pronoun's sentence.

Traps: twins differ in a word that turns the answer around, so they form one cluster and are drawn together: whoever always takes the
first-named candidate gets half. 18 of the 273 end with their pronoun: only the full stop is left to score, and they stay in because 273 is
what everybody reports. GAP rows in which neither name is right, or no word follows, are left out (2 candidates, one right). A name may stand
again in the rest of a GAP sentence, and a repeated name is likelier. Whether `her` stands for `X` or `X's` is told by what follows it; a
wrong guess hurts both candidates alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from cegm.lab import world
from cegm.lab.tasks.axis import ChoiceAxis, exams
from cegm.lab.tasks.items import Choice, Item, NotMeasured, Source, shuffled
from cegm.lab.tasks.public.reading import damaged, lines_of, public

NAME = "ambiguity"

SCHEMAS = {"original": "wsc", "superglue": "superglue", "wsc_naive": "naive"}
"""Part of XWINO, without its split -> subset."""

POSSESSIVE = frozenset({"his", "hers", "its", "their", "theirs"})
DETERMINERS = frozenset({"the", "a", "an", "my", "his", "her", "its", "our", "their", "this", "that", "these", "those"})
AFTER_OBJECT = re.compile(
    r"(?:\W*$|\s*[^\w\s]|\s+(?:a|about|after|again|against|all|alone|an|and|any|as|at|away|back|be|because|before|but|by|down|during|every|first"
    r"|for|from|had|he|her|his|home|how|i|if|in|instead|into|is|it|just|not|of|off|on|or|out|over|she|so|than|that|the|their|them|then|there|they"
    r"|this|through|to|together|too|towards?|under|until|up|very|was|well|were|what|when|where|which|while|who|why|with|without|would|you)\b)",
    re.IGNORECASE,
)
"""What follows `her` where it is no possessive: nothing, a punctuation mark or a small word."""

NO_END = re.compile(r"\b(?:\w|capt|col|dr|gen|gov|jr|lt|mr|mrs|ms|no|prof|rep|rev|sen|sgt|sr|st|vs)$", re.IGNORECASE)
"""Initials and abbreviations, whose full stop ends no sentence."""


@dataclass(frozen=True)
class Pronoun:
    """A pronoun in its text, and whom it may mean, the right one first.

    `start` and `end` are its characters, `stop` is where scoring ends.
    """

    text: str
    start: int
    end: int
    stop: int
    candidates: tuple[str, ...]

    @property
    def choice(self) -> Choice:
        """Candidates as options, what follows as tail."""
        before = self.text[: self.start]
        context = before.rstrip()
        return Choice(
            context,
            tuple(before[len(context) :] + self._in_place(name) for name in self.candidates),
            self.text[self.end : self.stop],
        )

    def _in_place(self, name: str) -> str:
        """A candidate with the case and the ending that its new place asks for."""
        pronoun, after = self.text[self.start : self.end], self.text[self.end :]
        first, _, rest = name.partition(" ")
        if pronoun[0].isupper():
            name = name[0].upper() + name[1:]
        elif rest and first.lower() in DETERMINERS:
            name = f"{first.lower()} {rest}"
        owner = not AFTER_OBJECT.match(after) if pronoun.lower() == "her" else pronoun.lower() in POSSESSIVE
        return f"{name}'s" if owner else name


def published(source: Source, items: int, seed: int) -> dict[str, Callable[[], list[Item]]]:
    """Subset -> what reads and draws its questions: whole clusters as long as they fit, for a twin stays with its twin."""

    def drawn(subset: str) -> list[Item]:
        clusters: dict[str, list[Item]] = {}
        for question in gap(source) if subset == "gap" else schemas(source)[subset]:
            clusters.setdefault(question.cluster, []).append(question)
        names = shuffled(sorted(clusters), NAME, subset, seed)
        return [question for name in names for question in clusters[name]][:items]

    return {subset: partial(drawn, subset) for subset in (*SCHEMAS.values(), "gap")}


def schemas(source: Source) -> dict[str, list[Item]]:
    """English schemas of XWINO by subset.

    Each row of `wsc_xwinograd_en/dataset.tsv` has seven columns: language, part, an unused one, text, and as JSON the tokens, the pronoun
    (its words, its span in tokens) and the candidates (name, span, tokens, whether it is right).
    """
    path = public(source, "wsc_xwinograd_en", "dataset.tsv")
    questions: dict[str, list[Item]] = {subset: [] for subset in SCHEMAS.values()}
    original: set[str] = set()
    previous: tuple[frozenset[str], list[str], str] = (frozenset(), [], "")
    for number, line in enumerate(lines_of(path), start=1):
        columns = line.split("\t")
        if columns[0] != "en":
            continue
        try:
            subset = SCHEMAS[columns[1].partition(".")[0]]
            pronoun = _schema(*columns[3:])
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise damaged(path, number, "no Winograd schema") from error
        known = _letters(pronoun.text)
        if subset == "wsc":
            original.add(known)
        elif subset == "superglue" and known in original:
            continue
        names, opening = frozenset(map(_letters, pronoun.candidates)), pronoun.text.split()[:3]
        # Rows of one schema follow each other, and have their candidates or their first words in common.
        cluster = previous[2] if names == previous[0] or opening == previous[1] else known[:60]
        previous = (names, opening, cluster)
        questions[subset].append(Item(pronoun.choice, subset, str(number), cluster))
    missing = [subset for subset, items in questions.items() if not items]
    if missing:
        raise NotMeasured(f"{path} has no rows of the subset {missing[0]}; it is not whole, fetch it again")
    return questions


def _schema(text: str, tokens: str, pronoun: str, candidates: str) -> Pronoun:
    _, (first, last), _ = json.loads(pronoun)
    spans = list(_spans(text, json.loads(tokens)))
    right, wrong = (
        [name for name, _, _, is_right in json.loads(candidates) if is_right is which] for which in (True, False)
    )
    if len(right) != 1 or not wrong:
        raise ValueError("one candidate is right")
    return Pronoun(text, spans[first][0], spans[last - 1][1], len(text), (*right, *wrong))


def _spans(text: str, tokens: Iterable[str]) -> Iterable[tuple[int, int]]:
    """Where each token stands; quotation marks may have been respelled by the tokenizer that cut them."""
    place = 0
    for token in tokens:
        quoted = token in ("``", "''") and not text[place:].lstrip().startswith(token)
        written = '"' if quoted else token
        start = text.index(written, place)
        place = start + len(written)
        yield start, place


def gap(source: Source) -> list[Item]:
    """Rows of GAP in which one name is right and a word follows the pronoun in its sentence; a cluster is a page."""
    path = public(source, "gap_coreference", "gap-test.tsv")
    questions = []
    for number, line in enumerate(lines_of(path)[1:], start=2):
        columns = line.split("\t")
        if len(columns) != 11:
            raise damaged(path, number, f"{len(columns)} columns instead of 11")
        name, text, word, offset, first, _, first_right, second, _, second_right, page = columns
        start = int(offset) if offset.isdigit() else -1
        if start < 0 or text[start : start + len(word)] != word:
            raise damaged(path, number, f"no `{word}` at {offset}")
        if first_right == second_right:
            continue
        candidates = (first, second) if first_right == "TRUE" else (second, first)
        end = start + len(word)
        pronoun = Pronoun(text, start, end, sentence_end(text, end), candidates)
        if re.search(r"\w", pronoun.choice.tail):
            questions.append(Item(pronoun.choice, "gap", name, page))
    return questions


def sentence_end(text: str, start: int) -> int:
    """Where the sentence around `start` ends: after a stop before a capital or the end, unless an abbreviation or an initial takes the stop."""
    for stop in re.finditer(r"[.!?]+[\"')\]]*(?=\s+[\"'(\[`]*[A-Z0-9]|\s*$)", text[start:]):
        before = text[: start + stop.start()]
        if text[len(before)] != "." or not NO_END.search(before):
            return start + stop.end()
    return len(text)


def _letters(text: str) -> str:
    """A text as far as two spellings of it agree."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^(the|an?) ", "", text.lower()))


AXIS = ChoiceAxis(
    name=NAME,
    title="Ambiguity resolution",
    paper="Table I",
    measure="share of pronouns whose right candidate makes the words after it likelier than the other one does",
    level="difficulty of the pronoun, 0 to 2; in the real form one level",
    control="always the candidate named first: half",
    sets=("gap_coreference", "wsc_xwinograd_en"),
    generated=partial(exams, NAME, world.pronoun_exam, world.PRONOUN_LEVELS),
    real=published,
    apart=True,
)
