"""Pronouns: the oracle gets all of them, a guesser half, twins stay together, and every public row is read as it was meant."""

import json

import pytest

pytest.importorskip("transformers")

from cegm.lab.tasks.ambiguity import AXIS, Pronoun, gap, schemas, sentence_end
from cegm.lab.tasks.items import NotMeasured
from examinees import Guesser, Oracle
from trials import DATA, is_chance, names_are_unique, with_data


def schema(text, pronoun, right, wrong, part="original", language="en"):
    tokens = text.replace(".", " .").replace('"', ' " ').split()
    place = tokens.index(pronoun)
    names = [[right, [0, 1], [right], True], [wrong, [0, 1], [wrong], False]]
    columns = [json.dumps(x) for x in (tokens, [pronoun, [place, place + 1], [pronoun]], names)]
    return "\t".join([language, part, "?", text, *columns])


TWINS = [
    schema("The ant fled from the dog because it was scared.", "it", "The ant", "the dog"),
    schema("The ant fled from the dog because it was scary.", "it", "the dog", "The ant"),
    schema("Ann met Sue. She waved.", "She", "Ann", "Sue"),
    schema("A qui? Lui.", "Lui", "a", "b", language="fr"),
    schema("Ann met Sue . She waved.", "She", "Ann", "Sue", part="superglue.val"),
    schema("Ann called Sue. She came.", "She", "Sue", "Ann", part="superglue.val"),
    schema('Bob said "no" to Tim because his dog bit.', "his", "Bob", "Tim", part="wsc_naive.test"),
]
HEAD = "ID\tText\tPronoun\tPronoun-offset\tA\tA-offset\tA-coref\tB\tB-offset\tB-coref\tURL"


def page(name, text, pronoun, right="A"):
    offset = text.index(f" {pronoun}") + 1
    columns = [
        name,
        text,
        pronoun,
        offset,
        "Ada",
        0,
        str(right == "A").upper(),
        "Eve",
        9,
        str(right == "B").upper(),
        "wiki",
    ]
    return "\t".join(map(str, columns))


PAGES = [
    page("t-1", "Ada saw Eve. Then Dr. Li gave her the prize, at 5 p.m. today. Ada left.", "her"),
    page("t-2", "Ada saw Eve and told her to go.", "her", right="B"),
    page("t-3", "Ada saw Eve and left her.", "her"),
    page("t-4", "Ada saw Eve and the dog that bit her there.", "her", right="neither"),
]


@pytest.fixture
def source(tmp_path):
    for place, rows in (("wsc_xwinograd_en/dataset.tsv", TWINS), ("gap_coreference/gap-test.tsv", [HEAD, *PAGES])):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_text("\n".join(rows) + "\n", "utf-8")
    return tmp_path


@pytest.mark.parametrize("form", ["world", "public"])
def test_an_oracle_gets_everything_and_the_items_are_sound(form, source):
    records = AXIS.examine(Oracle(), "world" if form == "world" else source, 50, 0)
    assert names_are_unique(records)
    assert {r.axis for r in records} == {AXIS.name}
    assert all(r.score == 1 and r.continuous == 10 and r.chance == 0.5 for r in records)
    assert {r.level for r in records} == ({0, 1, 2} if form == "world" else {0})
    assert {r.subset for r in records} == ({""} if form == "world" else {"wsc", "superglue", "naive", "gap"})


def test_a_tie_is_wrong(source):
    class Undecided(Oracle):
        def choose(self, choices):
            return [[-1.0] * len(choice.options) for choice in choices]

    assert all(r.score == 0 and r.continuous == 0 for r in AXIS.examine(Undecided(), source, 9, 0))


def test_whoever_takes_the_first_named_gets_half_of_the_generated_pronouns():
    class First(Oracle):
        def choose(self, choices):
            return [[-float(c.context.split().index(o.strip())) for o in c.options] for c in choices]

    assert is_chance(AXIS.examine(First(), "world", 500, 0))


def test_the_candidate_takes_the_place_of_the_pronoun(source):
    found = schemas(source)
    ant, dog, wave = (question.choice for question in found["wsc"])
    assert ant.context == "The ant fled from the dog because"
    assert ant.options == (" the ant", " the dog")
    assert ant.tail == " was scared."
    assert (dog.options, dog.tail) == ((" the dog", " the ant"), " was scary.")
    assert (wave.context, wave.options, wave.tail) == ("Ann met Sue.", (" Ann", " Sue"), " waved.")
    (owner,) = (question.choice for question in found["naive"])
    assert (owner.options, owner.tail) == ((" Bob's", " Tim's"), " dog bit.")


def test_twins_share_a_cluster_and_repeated_sentences_are_left_out(source):
    found = schemas(source)
    first, second, third = (question.cluster for question in found["wsc"])
    assert first == second != third
    assert [question.item for question in found["superglue"]] == ["6"]  # line 5 is line 3 with another space


def test_a_drawn_sample_keeps_twins_together(source):
    for seed in range(5):
        wsc = [r for r in AXIS.examine(Oracle(), source, 2, seed) if r.subset == "wsc"]
        assert len(wsc) == 2
        assert {r.item for r in wsc} in ({"1", "2"}, {"3", "1"})


def test_pages_are_scored_to_the_end_of_the_sentence(source):
    found = gap(source)
    assert [question.item for question in found] == ["t-1", "t-2"]  # nothing follows in t-3, nobody is right in t-4
    prize, told = (question.choice for question in found)
    assert (prize.options, prize.tail) == ((" Ada", " Eve"), " the prize, at 5 p.m. today.")
    assert (told.options, told.tail) == ((" Eve", " Ada"), " to go.")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("He saw Mr. Smith. Then he left.", "He saw Mr. Smith."),
        ('He said "no!" Then he left.', 'He said "no!"'),
        ("He met J. R. Ewing there", "He met J. R. Ewing there"),
        ("It cost 3.5 dollars? Yes.", "It cost 3.5 dollars?"),
        ("He came, e.g. by car. 12 left.", "He came, e.g. by car."),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text, sentence):
    assert text[: sentence_end(text, 0)] == sentence


def test_her_owns_what_a_content_word_names():
    def option(text):
        start = text.index("her")
        return Pronoun(text, start, start + 3, len(text), ("Ada", "Eve")).choice.options[0]

    assert option("he saw her dog") == " Ada's"
    assert option("he saw her with dogs") == " Ada"
    assert option("he saw her.") == " Ada"


def damaged(path, change):
    path.write_text(change(path.read_text("utf-8")), "utf-8")


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("wsc_xwinograd_en/dataset.tsv", lambda text: text[:-40], "line 7"),
        ("wsc_xwinograd_en/dataset.tsv", lambda text: text.replace("\t", "|", 20), "subset wsc"),
        ("wsc_xwinograd_en/dataset.tsv", lambda text: text.replace("true", "false", 1), "line 1"),
        ("wsc_xwinograd_en/dataset.tsv", lambda text: text.replace('"ant"', '"cow"', 1), "line 1"),
        ("wsc_xwinograd_en/dataset.tsv", lambda text: "", "empty"),
        ("gap_coreference/gap-test.tsv", lambda text: text.replace("\tAda\t", "|", 1), "line 2: 9 columns"),
        ("gap_coreference/gap-test.tsv", lambda text: text.replace("Ada saw", "Ada", 1), "line 2"),
    ],
)
def test_damage_is_named_and_the_rest_measured(source, file, change, says):
    damaged(source / file, change)
    with pytest.warns(UserWarning, match=says):
        records = AXIS.examine(Oracle(), source, 9, 0)
    assert {r.subset for r in records} == ({"gap"} if "wsc" in file else {"wsc", "superglue", "naive"})


def test_nothing_there_is_not_measured(tmp_path):
    with pytest.raises(NotMeasured, match=r"dataset\.tsv does not exist"):
        AXIS.examine(Oracle(), tmp_path, 9, 0)


@with_data
def test_the_public_sets_are_read_whole():
    found = schemas(DATA)
    assert {subset: len(questions) for subset, questions in found.items()} == {
        "wsc": 273,
        "superglue": 105,
        "naive": 1882,
    }
    assert len({question.cluster for question in found["wsc"]}) < 140  # 273 schemas, nearly all of them twins
    records = AXIS.examine(Oracle(), DATA, 2000, 0)
    assert names_are_unique(records)
    assert {r.axis for r in records} == {AXIS.name}
    assert all(r.score == 1 for r in records)
    assert sum(r.subset == "gap" for r in records) > 1600
    assert is_chance(AXIS.examine(Guesser(), DATA, 500, 0))
