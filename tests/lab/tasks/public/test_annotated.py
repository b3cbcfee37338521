"""The treebank and the minimal pairs: gold depths counted by hand, damage told with file and line."""

import json
import zipfile

import pytest

pytest.importorskip("conllu")

from cegm.lab.tasks.complexity import paradigms
from cegm.lab.tasks.items import Choice, Item, NotMeasured
from cegm.lab.tasks.public.annotated import treebank
from trials import DATA, with_data

ROWS = [
    ("1", "She", "PRON", 2),
    ("2", "said", "VERB", 0),
    ("3-4", "don't", "_", "_"),
    ("3", "do", "AUX", 2),
    ("4", "n't", "PART", 3),
    ("4.1", "go", "VERB", "_"),
    ("5", "!", "PUNCT", 2),
]


def tree(name, rows=ROWS, text="She said don't!", document=None):
    head = ([f"# newdoc id = {document}"] if document else []) + [f"# sent_id = {name}", f"# text = {text}"]
    lines = [f"{i}\t{form}\t_\t{upos}\t_\t_\t{arc}\t_\t_\t_" for i, form, upos, arc in rows]
    return "\n".join([*head, *lines]) + "\n\n"


def bank(folder, dev, test):
    (folder / "ud_ewt").mkdir(exist_ok=True)
    (folder / "ud_ewt" / "en_ewt-ud-dev.conllu").write_text(dev)
    (folder / "ud_ewt" / "en_ewt-ud-test.conllu").write_text(test)
    return folder


def test_words_depth_and_document(tmp_path):
    source = bank(tmp_path, tree("a", document="d") + tree("b"), tree("c", document="e"))
    (a, b), (c,) = treebank(source, "dev"), treebank(source, "test")
    assert [a.text[word.span[0] : word.span[1]] for word in a.words] == ["She", "said", "don't", "!"]
    assert [word.role for word in a.words] == ["PRON", "VERB", "", "PUNCT"]
    assert (a.depth, a.document, b.document, c.document) == (2, "d", "d", "e")


@pytest.mark.parametrize(
    "damaged",
    [
        tree("b", [("1", "She", "PRON", 2), ("2", "said", "VERB", 1)], "She said"),
        tree("b", [("1", "She", "PRON", 0)], "Nobody said"),
        tree("b", [("1", "She", "PRON", 7)], "She"),
        "# sent_id = b\n# text = She\n1 She _ PRON\n\n",
        "1\tShe\t_\tPRON\t_\t_\t0\t_\t_\t_\n\n",
    ],
    ids=["circle", "other text", "no head", "no tabs", "no text"],
)
def test_a_damaged_tree_names_file_and_line(tmp_path, damaged):
    source = bank(tmp_path, tree("a") + damaged, tree("c"))
    with pytest.raises(NotMeasured, match=r"dev\.conllu, line 11: sentence"):
        list(treebank(source, "dev"))


def test_a_missing_split(tmp_path):
    with pytest.raises(NotMeasured, match=r"dev\.conllu does not exist"):
        list(treebank(tmp_path, "dev"))


def archive(folder, names, rows):
    (folder / "blimp").mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "blimp" / "BLiMP.zip", "w") as file:
        for name in names:
            file.writestr(name, "\n".join(rows))
    return folder


def pair(number, **changed):
    row = {"UID": "rule", "pairID": str(number), "sentence_good": "Good.", "sentence_bad": "Bad."}
    return json.dumps(row | changed)


def test_pairs_are_read_in_place_without_shadows(tmp_path):
    source = archive(tmp_path, ["data/rule.jsonl", "__MACOSX/data/._rule.jsonl"], [pair(0), pair(1)])
    found = paradigms(source)
    assert found == {"rule": [Item(Choice("", ("Good.", "Bad.")), "blimp", f"rule-{n}", "rule") for n in range(2)]}


def test_damaged_archives(tmp_path):
    with pytest.raises(NotMeasured, match="does not exist"):
        paradigms(tmp_path)
    with pytest.raises(NotMeasured, match=r"data/rule\.jsonl, line 2: no JSON"):
        paradigms(archive(tmp_path, ["data/rule.jsonl"], [pair(0), pair(1)[:20]]))
    with pytest.raises(NotMeasured, match=r"has no data/\*\.jsonl"):
        paradigms(archive(tmp_path, ["readme"], ["x"]))
    path = archive(tmp_path, ["data/rule.jsonl"], [pair(0)]) / "blimp" / "BLiMP.zip"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(NotMeasured, match=r"BLiMP\.zip: .*fetch"):
        paradigms(tmp_path)


@with_data
def test_the_real_treebank():
    found = [*treebank(DATA, "dev"), *treebank(DATA, "test")]
    assert len(found) == len({each.name for each in found}) == 4078
    assert max(each.depth for each in found) == 12
    assert len({each.document for each in found}) == 634


@with_data
def test_the_real_pairs():
    found = paradigms(DATA)
    assert len(found) == 67
    assert {len(pairs) for pairs in found.values()} == {1000}
    assert len({pair.item for pairs in found.values() for pair in pairs}) == 67_000
