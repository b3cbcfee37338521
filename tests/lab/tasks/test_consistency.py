"""Consistency is worth something only with correctness: an oracle has both, a constant answerer only the first."""

import pytest
from scipy.stats import binomtest

pytest.importorskip("transformers")

from cegm.lab.tasks.consistency import AXIS, WORDINGS, rooms
from cegm.lab.tasks.items import NotMeasured
from examinees import Guesser, Oracle
from trials import DATA, is_chance, names_are_unique, with_data

ROOMS = ("attic", "cellar", "kitchen")
PEOPLE = ("Ann", "Bob", "Cy")


def story(number, mark="|"):
    lines = []
    for turn in range(3):
        who, room = PEOPLE[(number + turn) % 3], ROOMS[(number * 2 + turn) % 3]
        lines += [f"{who} went to the {room}.", f"Where is {who}? {mark}{room}{mark}{2 * turn + 1}"]
    return "".join(f"{place} {line}\n" for place, line in enumerate(lines, start=1))


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "babi" / "tasks_1-20_v1-2" / "en"
    folder.mkdir(parents=True)
    text = "".join(story(number, "|" if number % 2 else "\t") for number in range(4))
    (folder / "qa1_single-supporting-fact_test.txt").write_text(text, "utf-8")
    return tmp_path


class Constant(Oracle):
    """Always prefers the same word, whatever is asked."""

    def choose(self, choices):
        return [[float(sum(map(ord, option))) for option in choice.options] for choice in choices]


class Fickle(Oracle):
    """Right in all wordings but the last one of each question."""

    def __init__(self, wordings):
        self.wordings = wordings

    def choose(self, choices):
        return [
            [-3.0 if place % self.wordings == self.wordings - 1 else 1.0, *[0.0] * (len(choice.options) - 1)]
            for place, choice in enumerate(choices)
        ]


@pytest.mark.parametrize("form", ["world", "public"])
def test_an_oracle_gets_everything_and_the_items_are_sound(form, source):
    records = AXIS.examine(Oracle(), "world" if form == "world" else source, 12, 0)
    assert names_are_unique(records)
    assert {r.axis for r in records} == {AXIS.name}
    assert len(records) == 12
    assert all(r.score == 1 and r.continuous == 10 for r in records)


def test_a_guesser_gets_chance():
    records = AXIS.examine(Guesser(), "world", 3000, 0)
    assert is_chance(records)
    assert records[0].chance < 0.1  # every wording must be guessed


@pytest.mark.parametrize("form", ["world", "public"])
def test_a_constant_answerer_is_consistent_everywhere_and_right_by_chance(form, source):
    answers = []

    class Watched(Constant):
        def choose(self, choices):
            answers.extend(max(choice.options, key=lambda o: sum(map(ord, o))) for choice in choices)
            return super().choose(choices)

    items = 1000 if form == "world" else 12
    records = AXIS.examine(Watched(), "world" if form == "world" else source, items, 0)
    wordings = len(answers) // len(records)
    assert all(len(set(answers[i : i + wordings])) == 1 for i in range(0, len(answers), wordings))
    options = round(records[0].chance ** (-1 / wordings))
    assert binomtest(int(sum(r.score for r in records)), len(records), 1 / options).pvalue > 0.001


def test_one_wrong_wording_is_enough_and_sets_the_margin(source):
    records = AXIS.examine(Fickle(len(WORDINGS)), source, 12, 0)
    assert all(r.score == 0 and r.continuous == -3 for r in records)


def test_a_tie_is_wrong(source):
    class Undecided(Oracle):
        def choose(self, choices):
            return [[0.0] * len(choice.options) for choice in choices]

    assert all(r.score == 0 and r.continuous == 0 for r in AXIS.examine(Undecided(), source, 12, 0))


def test_every_wording_has_the_story_and_the_same_options(source):
    asked = rooms(source, 12, 0)
    assert len({each.cluster for each in asked}) == 4
    first = [each.choice for each in asked if each.item == "1-2"]
    assert len(first) == len(WORDINGS)
    assert {choice.options for choice in first} == {(" attic", " cellar", " kitchen")}
    assert first[0].context == "Ann went to the attic. Where is Ann? Ann is in the"
    assert all("Ann" in choice.context.removeprefix("Ann went to the attic.") for choice in first)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:-5], "line"),
        (lambda text: text.replace("|", ";"), "line 8"),
        (lambda text: text.replace("Where is Bob?", "Who is Bob?", 1), "Who is Bob"),
    ],
)
def test_damage_is_named(source, change, says):
    (path,) = source.rglob("qa1_*")
    path.write_text(change(path.read_text("utf-8")), "utf-8")
    with pytest.raises(NotMeasured, match=says):
        AXIS.examine(Oracle(), source, 12, 0)


def test_nothing_there_is_not_measured(tmp_path):
    with pytest.raises(NotMeasured, match="does not exist"):
        AXIS.examine(Oracle(), tmp_path, 9, 0)


@with_data
def test_the_public_set_is_read_whole():
    records = AXIS.examine(Oracle(), DATA, 2000, 0)
    assert names_are_unique(records)
    assert {r.axis for r in records} == {AXIS.name}
    assert len(records) == 1000
    assert all(r.chance == pytest.approx(6**-4) for r in records)
    assert is_chance(AXIS.examine(Guesser(), DATA, 1000, 0))
    constant = [r.score for r in AXIS.examine(Constant(), DATA, 1000, 0)]
    assert binomtest(int(sum(constant)), 1000, 1 / 6).pvalue > 0.001
