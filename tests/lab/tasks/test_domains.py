"""Unseen domains: a knower pays nothing, equal bytes cost eight bits, adaptation and test share no text."""

import math
import warnings
from collections import Counter

import pytest
import torch

from examinees import Guesser, Oracle

pytest.importorskip("docutils")

from transformers import AutoModelForCausalLM

from cegm.lab import world
from cegm.lab.tasks import domains
from cegm.lab.tasks.domains import AXIS, DOMAINS, STEPS, bits_per_byte, byte_bits, cut
from cegm.lab.tasks.examinee import Examinee, ReadToken
from cegm.lab.tasks.items import NotMeasured
from cegm.lab.train.model import fresh_config, word_tokenizer
from trials import DATA, with_data


def test_bits_are_counted_per_byte_of_what_was_scored():
    tokens = [ReadToken(1, 2, -8 * math.log(2), False), ReadToken(2, 3, -16 * math.log(2), False)]
    assert bits_per_byte("aéb", tokens) == pytest.approx(24 / 3)


def test_knowing_only_bytes_costs_their_entropy_and_knowing_nothing_eight_bits():
    assert byte_bits([], ["anything", "é"]) == pytest.approx([8, 8])
    assert byte_bits(["ab" * 10_000, "ab"], ["abab", "a"]) == pytest.approx([1, 1], abs=0.02)
    (unheard,) = byte_bits(["a" * 744], ["b"])
    assert unheard == pytest.approx(math.log2(1000)), "one of 744 + 256"


def test_pieces_keep_to_their_size():
    text = "some words of a text é " * 100
    pieces = cut(text)
    assert all(200 <= len(piece.encode()) <= 600 for piece in pieces)
    assert text.startswith(" ".join(pieces))
    assert cut("short") == []
    assert cut("x" * 700) == []


def test_the_oracle_pays_nothing_and_every_cell_is_filled():
    records = AXIS.examine(Oracle(), "world", 5, 0)
    cells = Counter((r.subset, r.level) for r in records if not r.subset.startswith("control"))
    assert cells == {
        (subset, steps): count
        for name in DOMAINS
        for subset, count in ((name, 5), (f"home after {name}", 2))
        for steps in STEPS
    }, "of the home text a quarter as many, rounded up"
    assert {r.score for r in records if not r.subset.startswith("control")} == {0.0}
    assert Counter(r.subset for r in records if r.subset in AXIS.primary) == dict.fromkeys(DOMAINS, 15)
    assert len({(r.subset, r.item, r.level) for r in records}) == len(records)
    assert all(2 < r.score < 6 for r in records if r.subset.startswith("control"))


class Counting(Oracle):
    """Counts the texts it is given to read."""

    def __init__(self):
        self.texts = Counter()

    def read(self, texts):
        self.texts.update(texts)
        return super().read(texts)


def test_the_home_text_is_read_once_before_adapting():
    """Of 15 cells the five without steps are one: the model that has not adapted yet."""
    examinee = Counting()
    AXIS.examine(examinee, "world", 3, 0)
    home = {piece.text for piece in domains.domain(domains.HOME, "world", 1, 0).test}
    assert {examinee.texts[text] for text in home} == {1 + 2 * len(DOMAINS)}
    assert {count for text, count in examinee.texts.items() if text not in home} == {len(STEPS)}


def test_guessing_costs_what_it_says_and_repeats():
    records = AXIS.examine(Guesser(), "world", 2, 0)
    texts = {p.item: p.text for p in domains.domain("chat", "world", 2, 0).test}
    for record in records:
        if record.subset == "chat":
            text = texts[record.item]
            assert record.score == pytest.approx(5 / math.log(2) * len(text.split()) / len(text.encode()), rel=0.02)
    assert str(AXIS.examine(Guesser(), "world", 2, 0)) == str(records)
    assert str(AXIS.examine(Guesser(), "world", 2, 1)) != str(records)


def test_adaptation_and_test_share_no_document_of_the_world():
    for name in world.REGISTERS:
        found = domains.domain(name, "world", 50, 0)
        assert not set(found.study) & {piece.text for piece in found.test}


@with_data
@pytest.mark.parametrize("name", DOMAINS)
def test_adaptation_and_test_share_no_text_of_public_sets(name):
    found = domains.domain(name, DATA, 20, 0)
    study = "\n".join(found.study)
    assert len(found.test) == len({piece.item for piece in found.test}) == 20
    assert len({piece.cluster for piece in found.test}) >= 10
    assert 200_000 < len(study) <= 410_000
    assert not any(piece.text in study for piece in found.test)


def letter(folder, parts, text):
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_domains_that_are_not_there_are_told_and_the_others_measured(tmp_path):
    with (
        pytest.raises(NotMeasured, match=r"technical was not measured: .*tech_peps"),
        pytest.warns(UserWarning, match="forgetting"),
    ):
        AXIS.examine(Oracle(), tmp_path, 3, 0)
    for number in range(6):
        said = "".join(f"[10:00] <anna> line {number} {line} about nothing at all\n" for line in range(40))
        letter(tmp_path, ("chat_irc", "data", "dev", f"{number}.ascii.txt"), said)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        records = AXIS.examine(Oracle(), tmp_path, 3, 0)
    assert {r.subset for r in records} == {"chat", "control: bytes of chat"}
    assert {r.form for r in records} == {"real"}
    assert len(told) == 5  # four domains and the home text
    letter(tmp_path, ("chat_irc", "data", "dev", "0.ascii.txt"), "[10:00] <anna\n")
    with pytest.raises(NotMeasured):
        AXIS.examine(Oracle(), tmp_path, 3, 0)


def small(batch_size):
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    return Examinee(AutoModelForCausalLM.from_config(fresh_config("tiny", tokenizer)), tokenizer, batch_size)


def test_the_batch_size_changes_nothing_and_adapting_helps(monkeypatch):
    monkeypatch.setattr(domains, "STEPS", (0, 5))
    monkeypatch.setattr(domains, "DOMAINS", {"chat": DOMAINS["chat"]})
    one, many = (AXIS.examine(small(size), "world", 4, 0) for size in (1, 16))
    assert [r.score for r in one] == pytest.approx([r.score for r in many], abs=1e-4)
    mean = {steps: sum(r.score for r in one if (r.subset, r.level) == ("chat", steps)) for steps in (0, 5)}
    assert mean[5] < mean[0]


@with_data
def test_a_model_that_cannot_spell_a_domain_does_not_get_it(monkeypatch):
    monkeypatch.setattr(domains, "STEPS", (0,))
    monkeypatch.setattr(domains, "DOMAINS", {"social": DOMAINS["social"]})
    with pytest.raises(NotMeasured, match="cannot spell"):
        AXIS.examine(small(16), DATA, 4, 0)
