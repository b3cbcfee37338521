"""Rephrasings of public texts: what is kept, what is changed, and what is said of a damaged file."""

import json
import random
import re

import pytest

pytest.importorskip("transformers")

from cegm.lab.tasks.items import NotMeasured
from cegm.lab.tasks.lookalikes import (
    NAME,
    NUMBER,
    TECHNIQUES,
    Split,
    dropout,
    mixed,
    renamed,
    splits,
    syntactic,
    thinned,
)
from cegm.lab.tasks.public.annotated import treebank

PAIRS = [
    ("In May , Ann met Bob Lee , who sang .", "In May , Ann met Bob Lee . <::::> He sang ."),
    ("In June , the sea met the shore , and sang .", "In June , the sea met the shore . <::::> It sang ."),
    ("Old Ann met Bob Lee , who slept .", "Old Ann met Bob Lee . <::::> Bob slept ."),
    ("It met 12 dogs for 9 cats , it says .", "It met 12 dogs for 9 cats . <::::> It says so ."),
]
TAGGED = [
    "The/DET/DT old/ADJ/JJ cat/NOUN/NN does/AUX/VBZ not/PART/RB sleep/VERB/VB on/ADP/IN the/DET/DT mat/NOUN/NN",
    "A/DET/DT young/ADJ/JJ dog/NOUN/NN does/AUX/VBZ not/PART/RB run/VERB/VB on/ADP/IN the/DET/DT road/NOUN/NN",
    "Too/ADV/RB short/ADJ/JJ",
]


def conllu(number, tagged):
    text = " ".join(each.split("/")[0] for each in tagged.split())
    rows = [f"# sent_id = doc{number // 2}-{number}", f"# text = {text}"]
    for place, each in enumerate(tagged.split(), start=1):
        form, role, tag = each.split("/")
        rows.append("\t".join([str(place), form, form.lower(), role, tag, "_", "0", "_", "_", "_"]))
    return "\n".join(rows) + "\n\n"


@pytest.fixture
def source(tmp_path):
    row = {"id": 1, "premise": "p", "hypothesis": "h"}
    row["disambiguations"] = [
        {"premise": "p 1", "hypothesis": "h", "label": "entailment"},
        {"premise": "p 2", "hypothesis": "h", "label": "neutral"},
    ]
    for place, text in {
        "wikisplit/test.tsv": "".join(f"{whole}\t{parts}\n" for whole, parts in PAIRS),
        "ud_ewt/en_ewt-ud-test.conllu": "".join(conllu(number, tagged) for number, tagged in enumerate(TAGGED)),
        "ambient/AmbiEnt/test.jsonl": json.dumps(row) + "\n",
        "ambient/AmbiEnt/dev.jsonl": json.dumps(row) + "\n",
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text, "utf-8")
    return tmp_path


def test_a_split_is_set_against_the_sentence_with_another_name(source):
    found = {case.item: case for case in syntactic(source, 9, 0)}
    assert found["1"].anchor == PAIRS[0][0]
    assert found["1"].rephrased == "In May , Ann met Bob Lee . He sang ."
    for case in found.values():
        assert len(case.negatives) == 2
        assert all(negative != case.anchor for negative in case.negatives)
    pattern = r"In (.+) , (.+) met (.+) , who sang \."
    for negative in found["1"].negatives:
        names = re.fullmatch(pattern, negative).groups()
        assert sum(a != b for a, b in zip(names, ("May", "Ann", "Bob Lee"), strict=True)) == 1
    assert all(re.fullmatch(r"It met \d+ dogs for \d+ cats , it says \.", each) for each in found["4"].negatives)
    assert len(syntactic(source, 1, 0)) == 1


def test_a_sentence_without_names_and_numbers_is_not_asked(source):
    path = source / "wikisplit" / "test.tsv"
    path.write_text(
        "The sea met the shore .\tThe sea met . <::::> The shore met .\n" + path.read_text("utf-8"), "utf-8"
    )
    assert "1" not in {case.item for case in syntactic(source, 9, 0)}


def test_mixed_drops_small_words_from_the_rephrasing_only(source):
    case = next(case for case in mixed(source, 9, 0) if case.item == "4")
    assert case.anchor == PAIRS[3][0]
    assert case.rephrased == "It met 12 dogs 9 cats . It says so ."
    assert all(re.fullmatch(r"It met \d+ dogs for \d+ cats \. It says so \.", each) for each in case.negatives)
    assert thinned("the cat of the king", random.Random(0)) != "the cat of the king"
    assert thinned("no words go", random.Random(0)) == "no words go"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Here Ann sang .", "Here X sang ."),
        ("They left Battle of the Labyrinth alone .", "They left X alone ."),
        ("Ann sang . Bob left .", None),  # both may have their capital from the beginning
        ("It had 3.5 dogs .", "It had 7 dogs ."),
    ],
)
def test_one_name_or_else_number_is_replaced(text, expected):
    assert renamed(text, {NAME: ["X"], NUMBER: ["7"]}, random.Random(0)) == expected


def test_nothing_else_to_put_there_is_no_negative():
    assert renamed("Here Ann sang .", {NAME: ["Ann", "ann"], NUMBER: []}, random.Random(0)) is None


def test_dropout_loses_small_words_and_its_negatives_one_content_word(source):
    found = {case.item: case for case in dropout(source, 9, 0)}
    assert set(found) <= {"doc0-0", "doc0-1"}
    assert {case.cluster for case in found.values()} == {"doc0"}
    for case in found.values():
        assert set(case.rephrased.split()) < set(case.anchor.split())
        assert "not" in case.rephrased
        for negative in case.negatives:
            pairs = zip(case.anchor.split(), negative.split(), strict=True)
            assert sum(a != b for a, b in pairs) == 1


def test_every_technique_repeats_itself_and_a_small_sample_is_part_of_a_large_one(source):
    for name in ("syntactic", "contextual", "dropout", "mixed"):
        assert TECHNIQUES[name](source, 9, 3) == TECHNIQUES[name](source, 9, 3)
        assert TECHNIQUES[name](source, 1, 3) == TECHNIQUES[name](source, 9, 3)[:1]


def test_words_written_as_one_are_read_as_one(tmp_path):
    def row(number, form, role, more):
        return "\t".join([number, form, "_", role, role, "_", "_", "_", "_", more])

    rows = [
        "# sent_id = d-x-1",
        "# text = Ann's dog.",
        row("1-2", "Ann's", "_", "_"),
        row("1", "Ann", "PROPN", "_"),
        row("2", "'s", "PART", "_"),
        row("3", "dog", "NOUN", "SpaceAfter=No"),
        row("3.1", "ran", "VERB", "CopyOf=9"),
        row("4", ".", "PUNCT", "_"),
    ]
    (tmp_path / "ud_ewt").mkdir()
    (tmp_path / "ud_ewt" / "en_ewt-ud-test.conllu").write_text("\n".join(rows) + "\n\n", "utf-8")
    (sentence,) = treebank(tmp_path, "test")
    assert sentence.name == "d-x-1"
    assert [(w.form, w.role, w.spaced) for w in sentence.words] == [
        ("Ann's", "", True),
        ("dog", "NOUN", False),
        (".", "PUNCT", True),
    ]


@pytest.mark.parametrize(
    ("technique", "file", "change", "says"),
    [
        ("syntactic", "wikisplit/test.tsv", lambda text: text[:-3], "line 4"),
        ("syntactic", "wikisplit/test.tsv", lambda text: text.replace("\t", "|", 1), "line 1"),
        ("mixed", "wikisplit/test.tsv", lambda text: text.replace("<::::>", "", 1), "line 1"),
        ("dropout", "ud_ewt/en_ewt-ud-test.conllu", lambda text: text[:-1], "within a sentence"),
        (
            "dropout",
            "ud_ewt/en_ewt-ud-test.conllu",
            lambda text: text.replace("\tDET", "", 1),
            "line 1: .*9 columns",
        ),
        ("dropout", "ud_ewt/en_ewt-ud-test.conllu", lambda text: text.replace("\n1\t", "\nx\t", 1), "line 1: sentence"),
        (
            "dropout",
            "ud_ewt/en_ewt-ud-test.conllu",
            lambda text: text.replace("sent_id", "id"),
            "line 1: sentence with .*sent_id",
        ),
        ("contextual", "ambient/AmbiEnt/dev.jsonl", lambda text: text.replace("premise", "p"), "line 1"),
    ],
)
def test_damage_is_named(source, technique, file, change, says):
    (source / file).write_text(change((source / file).read_text("utf-8")), "utf-8")
    with pytest.raises(NotMeasured, match=says):
        TECHNIQUES[technique](source, 9, 0)


def test_lexical_has_no_public_form(source):
    with pytest.raises(NotMeasured, match="synonyms"):
        TECHNIQUES["lexical"](source, 9, 0)


def test_a_pair_is_read(source):
    assert splits(source)[0] == Split(1, PAIRS[0][0], "In May , Ann met Bob Lee . He sang .")
