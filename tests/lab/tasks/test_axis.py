"""Items become records fairly: ties are wrong, lengths are compared alike, nothing is left out in silence."""

import pytest

import models
from cegm.lab.tasks.axis import record, scored
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import Choice, Item, NotMeasured
from examinees import Oracle

ITEM = Item(Choice("a b", (" cc", " d")), "s", "1", "c", 2.0)


def test_a_record_holds_margin_and_chance_and_a_tie_is_wrong():
    right = record("x", "real", ITEM, [-1.0, -1.5])
    assert (right.score, right.continuous, right.chance) == (1.0, 0.5, 0.5)
    assert (right.axis, right.form, right.subset, right.item, right.cluster, right.level) == (
        "x",
        "real",
        "s",
        "1",
        "c",
        2.0,
    )
    tie = record("x", "real", ITEM, [-1.0, -1.0])
    assert (tie.score, tie.continuous) == (0.0, 0.0)


def test_free_texts_are_compared_per_byte():
    item = Item(ITEM.choice, "s", "1", "c", per_byte=True)
    assert record("x", "real", item, [-3.0, -2.5]).continuous == pytest.approx(-1 + 1.25)


def test_questions_beyond_the_model_are_left_out_with_a_warning():
    from cegm.lab.train.model import byte_tokenizer

    tokenizer = byte_tokenizer()
    examinee = Examinee(models.llama(vocabulary=len(tokenizer)), tokenizer)
    long = Item(Choice("a" * 200, (" b", " c")), "s", "2", "d")
    with pytest.warns(UserWarning, match="1 of 2 questions are longer than the model's 128 positions"):
        assert [each.item for each in scored(examinee, "x", "real", [ITEM, long])] == ["1"]
    with pytest.raises(NotMeasured, match="longer than the 128 tokens"):
        scored(examinee, "x", "real", [long])
    assert len(scored(Oracle(), "x", "real", [ITEM, long])) == 2


def test_the_longest_question_that_fits_is_asked():
    from cegm.lab.train.model import byte_tokenizer

    tokenizer = byte_tokenizer()
    examinee = Examinee(models.llama(vocabulary=len(tokenizer)), tokenizer)
    for size in range(100, 140):
        item = Item(Choice("a" * size, (" bcd", " e")), "s", "2", "d")
        row = len(examinee.opening) + len(tokenizer("a" * size + " bcd", add_special_tokens=False)["input_ids"]) - 1
        try:
            assert scored(examinee, "x", "real", [item])
            assert row <= 128
        except NotMeasured:
            assert row > 128
