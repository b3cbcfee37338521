"""Noise is nested, keeps its hands off what is protected, and reaches the share it is asked for."""

import random

from cegm.lab.tasks.alterations import Alteration, altered, content, exchanged, mistaken

TEXT = "with lantern mira lights . the crow hums . since april bruno plants . some wind bends slowly ."
WORDS = tuple(TEXT.split())
VOCABULARY = [*WORDS, "hugo", "kettle", "anna"]
PROTECTED = {"lantern", "mira", "bruno"}


def test_content_words_are_neither_protected_nor_function_words_nor_marks():
    assert [WORDS[i] for i in content(WORDS, PROTECTED)] == [
        *("lights", "crow", "hums", "april", "plants", "wind", "bends", "slowly")
    ]
    assert content(["Mira", "went", "home."], {"mira", "home"}) == [1]


def test_every_content_word_is_altered_once_and_a_protected_one_keeps_its_letters():
    for seed in range(50):
        found = exchanged(WORDS, PROTECTED, VOCABULARY, random.Random(seed))
        places = [each.place + offset for each in found for offset in range(each.size)]
        assert sorted(places) == content(WORDS)
        for each in found:
            old = WORDS[each.place : each.place + each.size]
            assert each.words != old
            assert PROTECTED & {*each.words} == PROTECTED & {*old}
            assert each.size == 1 or each.words == old[::-1]


def test_every_kind_comes_and_facts_lose_their_shape():
    texts = [
        (each, seed) for seed in range(50) for each in exchanged(WORDS, PROTECTED, VOCABULARY, random.Random(seed))
    ]
    kinds = {(each.size, len(each.words)) for each, _ in texts}
    assert kinds == {(1, 0), (1, 1), (1, 2), (2, 2)}
    whole = [altered(WORDS, exchanged(WORDS, PROTECTED, VOCABULARY, random.Random(s)), len(WORDS)) for s in range(50)]
    assert not any("lantern mira" in text for text in whole)


def test_as_many_alterations_come_as_it_takes():
    words = ("aa", "bb", "cc", "dd", "ee")
    alterations = [Alteration(3, 1, ()), Alteration(0, 2, ("bb", "aa")), Alteration(4, 1, ("xx",))]
    texts = [altered(words, alterations, count) for count in range(6)]
    assert texts == [
        "aa bb cc dd ee",
        "aa bb cc ee",
        "bb aa cc ee",
        "bb aa cc ee",
        "bb aa cc xx",
        "bb aa cc xx",
    ]


def test_mistakes_keep_punctuation_and_never_make_a_protected_word():
    def wrong(word, rng):
        return rng.choice(["hall", word + "x"])

    found = mistaken(["John", "went", "home."], {"john", "hall"}, wrong, random.Random(0))
    assert sorted((each.place, each.words) for each in found) == [(1, ("wentx",)), (2, ("homex.",))]
