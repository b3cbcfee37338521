"""Senses: the oracle gets all of them, a guesser chance; both directions of a pair are asked, and the last word is the last word."""

import json

import pytest

pytest.importorskip("transformers")

from cegm.lab import world
from cegm.lab.tasks.disambiguation import AXIS, Use, lambada, word_questions, word_uses
from cegm.lab.tasks.examinee import ReadToken
from cegm.lab.tasks.items import NotMeasured
from cegm.lab.tasks.public.annotated import ambiguous
from examinees import Guesser, Oracle
from trials import DATA, is_chance, names_are_unique, with_data

WATER, MONEY = "/dictionary/m_1.001", "/dictionary/m_1.002"
SENTENCES = [("boats lay along the muddy {} today", WATER), ("the {} lends gold to nearly everybody", MONEY)]


def word(text, level="SPACE_BREAK", **more):
    attributes = {"text": text, "break_level": level} | more
    return "<word " + " ".join(f'{key}="{value}"' for key, value in attributes.items()) + "/>"


def document(number):
    words = [word("/", "NO_BREAK"), word(f"{number}.txt", "NO_BREAK")]
    for sentence, sense in SENTENCES:
        level = "SENTENCE_BREAK"
        for each in f"{sentence} {number}".split():
            more = {"lemma": "bank", "pos": "NOUN", "sense": sense} if each == "{}" else {}
            words.append(word("bank" if more else each, level, **more))
            level = "SPACE_BREAK"
        words.append(word(".", "NO_BREAK"))
    return "<doc>" + "\n".join(words) + "</doc>"


READINGS = [
    {"premise": "p a", "hypothesis": "h", "label": "neutral"},
    {"premise": "p b", "hypothesis": "h", "label": "entailment"},
]
AMBIENT = [
    {"id": 7, "premise": "p", "hypothesis": "h", "disambiguations": READINGS},
    {"id": "8_c", "premise": "p", "hypothesis": "h", "disambiguations": []},
    {"id": 9, "premise": "p", "hypothesis": "other", "disambiguations": READINGS},
]
PASSAGES = [{"text": f'Long ago.\n\n"I know {name}," said {name}'} for name in ("Ann", "Bob", "Cy")]


@pytest.fixture
def source(tmp_path):
    files = {"lambada/lambada_test.jsonl": "".join(json.dumps(row) + "\n" for row in PASSAGES)}
    for part in ("dev", "test"):
        files[f"ambient/AmbiEnt/{part}.jsonl"] = "".join(json.dumps(row) + "\n" for row in AMBIENT)
    for number in range(4):
        files[f"masc_wsd/masc/written/{number}.xml"] = document(number)
    for place, text in files.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text, "utf-8")
    return tmp_path


@pytest.mark.parametrize("form", ["world", "public"])
def test_an_oracle_gets_everything_and_the_items_are_sound(form, source):
    records = AXIS.examine(Oracle(), "world" if form == "world" else source, 20, 0)
    assert names_are_unique(records)
    assert {r.axis for r in records} == {AXIS.name}
    assert all(r.score == 1 for r in records)
    assert {r.level for r in records} == (set(world.SENSE_LEVELS) if form == "world" else {0})
    assert {r.subset for r in records} == ({""} if form == "world" else {"lambada", "masc", "ambient"})


def test_the_sentence_that_is_scored_is_the_same_for_both_candidates(source):
    uses = word_uses(source)
    assert len(uses) == 8
    assert uses[0] == Use("bank-NOUN", "m_1.001", "boats lay along the muddy bank today 0.", "written/0.xml")
    first, second = word_questions(uses, 0)
    assert {first.item, second.item} == {"bank-NOUN-m_1.001-m_1.002", "bank-NOUN-m_1.002-m_1.001"}
    assert first.cluster == second.cluster
    assert first.choice.options == second.choice.options[::-1]
    for question in (first, second):
        right, wrong = question.choice.options
        assert ("boats" in question.choice.tail) == ("boats" in right) != ("boats" in wrong)
        documents = [text.strip()[-2] for text in (question.choice.tail, right, wrong)]
        assert documents[0] not in documents[1:]


def test_whoever_likes_one_sentence_gets_half(source):
    class Fond(Oracle):
        def choose(self, choices):
            return [[float(sum(map(ord, option))) for option in choice.options] for choice in choices]

    assert [r.score for r in AXIS.examine(Fond(), source, 100, 0) if r.subset == "masc"] in ([1.0, 0.0], [0.0, 1.0])


def test_words_without_another_document_are_not_asked(source):
    uses = word_uses(source)
    assert word_questions([use for use in uses if use.document in ("written/0.xml", "written/1.xml")], 0)
    assert word_questions([use for use in uses if use.document == "written/0.xml"], 0) == []
    assert word_questions([use for use in uses if use.sense == "m_1.001"], 0) == []


def test_only_readings_that_leave_the_hypothesis_alone_are_asked(source):
    assert [each.name for each in ambiguous(source)] == ["test-7", "dev-7"]
    assert (ambiguous(source)[0].entailing, ambiguous(source)[0].others) == ("p b", ("p a",))


class Reader(Oracle):
    """Cuts the last word in two tokens, of which the last one may be unexpected; a space of its own is a token too."""

    def __init__(self, known):
        self.known = known

    def read(self, texts):
        ends = [len(text) for text in texts]
        return [
            [
                ReadToken(0, end - 3, -9.0, False),
                ReadToken(end - 4, end - 3, -9.0, False),
                ReadToken(end - 3, end - 2, -1.0, True),
                ReadToken(end - 2, end, -2.0, text.endswith(self.known)),
            ]
            for text, end in zip(texts, ends, strict=True)
        ]


def test_every_token_of_the_last_word_must_be_the_first_guess(source):
    found = lambada(Reader("Ann"), source, 2, 0) + lambada(Reader("Ann"), source, 3, 0)
    assert {r.item: r.score for r in found if r.item != "3"} == {"1": 1.0, "2": 0.0}
    assert {r.continuous for r in found if r.item != "3"} == {-3.0}


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("lambada/lambada_test.jsonl", lambda text: text[:-10], "line 3"),
        ("lambada/lambada_test.jsonl", lambda text: text.replace('"text"', '"words"', 1), "line 1: no 'text'"),
        ("masc_wsd/masc/written/2.xml", lambda text: text[:-10], "2.xml, line"),
        ("masc_wsd/masc/written/2.xml", lambda text: text.replace("break_level", "level", 1), "'break_level'"),
        ("ambient/AmbiEnt/dev.jsonl", lambda text: text.replace("label", "mark", 1), "line 1"),
        ("ambient/AmbiEnt/dev.jsonl", lambda text: "", "empty"),
    ],
)
def test_damage_is_named_and_the_rest_measured(source, file, change, says):
    (source / file).write_text(change((source / file).read_text("utf-8")), "utf-8")
    with pytest.warns(UserWarning, match=says):
        records = AXIS.examine(Oracle(), source, 9, 0)
    assert len({r.subset for r in records}) == 2


def test_nothing_there_is_not_measured(tmp_path):
    with pytest.raises(NotMeasured, match=r"lambada_test\.jsonl does not exist"):
        AXIS.examine(Oracle(), tmp_path, 9, 0)


@with_data
def test_the_public_sets_are_read_whole():
    assert len(ambiguous(DATA)) == 267
    records = AXIS.examine(Oracle(), DATA, 10_000, 0)
    assert names_are_unique(records)
    assert {r.axis for r in records} == {AXIS.name}
    sizes = {subset: sum(r.subset == subset for r in records) for subset in ("lambada", "masc", "ambient")}
    assert sizes["lambada"] == 5153
    assert sizes["masc"] > 400
    assert all(r.score == 1 for r in records)
    assert is_chance([r for r in AXIS.examine(Guesser(), DATA, 500, 0) if r.subset != "lambada"])
