"""Mistakes are real ones, each kind where it can befall a word, and the tables' own defects stay out."""

import json
import random

import pytest

from cegm.lab.tasks import noise
from cegm.lab.tasks.items import NotMeasured
from trials import DATA, with_data


def write(tmp_path, spelling="went wnet\nlook Look lok\nwent go\n", keyboard=None, scanned=None):
    folder = tmp_path / "noise_en" / "nlpaug" / "res"
    for part in ("word/spelling", "char/keyboard", "char/ocr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "word/spelling/spelling_en.txt").write_text(spelling)
    table = {"a": ["q", "w", "a", "1", " s"], "%": "$"}
    (folder / "char/keyboard/en.json").write_text(json.dumps(table) if keyboard is None else keyboard)
    (folder / "char/ocr/en.json").write_text(json.dumps({"o": ["u"], "0": ["O"]}) if scanned is None else scanned)
    return folder


def test_only_other_letters_replace_letters(tmp_path):
    write(tmp_path)
    mistakes = noise.read_mistakes(tmp_path)
    assert mistakes.keyboard == {"a": ("q", "w", "s")}
    assert mistakes.scanned == {"o": ("u",)}
    assert mistakes.spelling == {"went": ("wnet", "go"), "look": ("Look", "lok")}


def test_every_kind_of_mistake_comes_where_it_can_and_none_is_the_word_itself(tmp_path):
    write(tmp_path)
    mistakes = noise.read_mistakes(tmp_path)
    rng = random.Random(0)
    assert {mistakes.wrong("look", rng) for _ in range(300)} == {
        *("lok",),  # a misspelling, and a dropped letter
        *("luok", "louk"),
        *("olok", "loko"),
        *("ook", "loo"),
    }
    assert {mistakes.wrong("aab", rng) for _ in range(300)} == {
        *("qab", "wab", "sab", "aqb", "awb", "asb"),
        "aba",
        *("ab", "aa"),
    }


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"spelling": "went wnet\nalone\n"}, "spelling_en.txt, line 2"),
        ({"spelling": "\n"}, "spelling_en.txt is empty"),
        ({"keyboard": '{"a": ["q"'}, r"keyboard/en.json, line 1: no JSON"),
        ({"scanned": "[1]"}, r"ocr/en.json is no table"),
    ],
)
def test_damage_is_a_one_line_error(tmp_path, broken, what):
    write(tmp_path, **broken)
    with pytest.raises(NotMeasured, match=what):
        noise.read_mistakes(tmp_path)


def test_a_missing_file_is_a_one_line_error(tmp_path):
    (write(tmp_path) / "char/ocr/en.json").unlink()
    with pytest.raises(NotMeasured, match="does not exist"):
        noise.read_mistakes(tmp_path)


@with_data
def test_the_real_tables():
    mistakes = noise.read_mistakes(DATA)
    assert len(mistakes.spelling) == 12978  # in 13,551 lines
    assert "a" not in mistakes.keyboard["a"]
    assert all(letter.isalpha() and len(letter) == 1 for others in mistakes.keyboard.values() for letter in others)
    rng = random.Random(0)
    assert all(mistakes.wrong(word, rng) != word for word in ("went", "journeyed", "John", "took") for _ in range(50))
