"""Exams: the right option is right by the grammar, the wrong ones are wrong, and guessing them from anywhere but the context does not pay."""

import random
from collections import Counter

import pytest

from cegm.lab import world
from cegm.lab.world.ambiguities import DEEDS, SENSES, TOPICS
from cegm.lab.world.chains import OPTIONS as WAYS
from cegm.lab.world.facts import PERSONS, RELATIONS
from cegm.lab.world.grammar import NATURE
from cegm.lab.world.journeys import STAGES, TOWNS


def many(exam, count=200):
    return [exam(random.Random(index)) for index in range(count)]


def test_recall_asks_for_the_person_bound_to_the_key():
    for exam in many(world.recall_exam):
        bound = {(relation, key): person for relation, key, person in world.facts_in(exam.context)}
        relation, key = exam.context.split()[-2:]
        assert exam.options[0] == f" {bound[relation, key]}"
        assert {option.strip() for option in exam.options} <= set(bound.values())
        assert len(set(exam.options)) == 4
        assert exam.protected == {relation, key, *(option.strip() for option in exam.options)}


def test_the_place_of_the_asked_fact_says_nothing():
    places = Counter(
        [f[1] for f in map(str.split, exam.context.split(" . ")[:6])].index(exam.context.split()[-1])
        for exam in many(world.recall_exam, 1200)
    )
    assert all(150 < count < 250 for count in places.values())


def test_paraphrases_ask_the_same_of_the_same_facts():
    for exams in many(world.paraphrased_exam):
        assert len(exams) == 3
        assert len({exam.options for exam in exams}) == 1
        assert len({exam.context.rsplit(" . ", 1)[0] for exam in exams}) == 1
        assert len({exam.context.rsplit(" . ", 1)[1] for exam in exams}) == 3


def test_what_is_said_fits_only_the_person_who_is_like_that():
    for level in world.PRONOUN_LEVELS:
        for exam in many(lambda rng, level=level: world.pronoun_exam(rng, level), 100):
            sentences = [part.split() for part in exam.context.removesuffix(" .").split(" . ")]
            traits = dict(sentences[:3:2])
            right, wrong = (traits[option.strip()] for option in exam.options)
            assert right != wrong
            assert exam.tail.split()[0] == (DEEDS[right] if level else right)
            assert len(sentences) == (6 if level == 2 else 3)


def test_the_place_of_the_person_meant_says_nothing():
    firsts = sum(
        exam.context.startswith(exam.options[0].strip()) for exam in many(lambda r: world.pronoun_exam(r, 1), 1000)
    )
    assert 440 < firsts < 560


@pytest.mark.parametrize("depth", range(1, 11))
def test_the_right_way_follows_the_roads_and_no_other_does(depth):
    for exam in many(lambda rng: world.chain_exam(rng, depth), 50):
        words = exam.context.split()
        roads = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "road"}
        assert len(roads) == (3 if depth < 3 else 2) * depth
        way, station = [], words[-1]
        while station in roads:
            station = roads[station]
            way.append(station)
        assert exam.options[0] == " " + " ".join(way)
        assert len(set(exam.options)) == WAYS
        assert all(len(option.split()) == depth for option in exam.options)
        assert all(word in words for option in exam.options for word in option.split())


def test_the_last_topic_tells_the_sense():
    for level in world.SENSE_LEVELS:
        for exam in many(lambda rng, level=level: world.sense_exam(rng, level), 60):
            words = exam.context.split()
            (topic,) = [t for t, shown in TOPICS.items() if words[words.index("comes", 3) + 1] in shown]
            assert exam.options[0] == f" {SENSES[words[-1]][topic]}"
            assert {o.strip() for o in exam.options} == set(SENSES[words[-1]].values())
            assert exam.context.count(" .") == level + 3


def test_a_journey_carries_both_travellers_around_the_ring():
    for told in many(lambda rng: world.journey(rng, 10), 50):
        starts = [part.split() for part in told.context.removesuffix(" .").split(" . ")]
        places = {traveller: TOWNS.index(town) for _, traveller, town in starts}
        assert len(places) == 2
        for step in told.steps:
            stage, traveller = step.instruction.split()
            places[traveller] = (places[traveller] + STAGES[stage]) % len(TOWNS)
            assert step.options[0].strip() == TOWNS[places[traveller]]
            assert len(set(step.options)) == 4


@pytest.mark.parametrize("depth", range(5))
def test_nested_verbs_close_their_nouns_in_reverse(depth):
    for told in many(lambda rng: world.nested(rng, depth), 50):
        assert len(told.spans) == depth + 1
        verbs = [told.text[start:end] for start, end in told.spans]
        nouns = [word for word in told.text.split() if word in NATURE]
        assert verbs == [NATURE[noun] for noun in reversed(nouns)]


@pytest.mark.parametrize("technique", world.TECHNIQUES)
def test_negatives_are_changed_as_much_and_mean_something_else(technique):
    for told in many(lambda rng: world.rephrasing(rng, technique), 200):
        assert len(set(told.negatives)) == len(told.negatives) in ((1,) if technique == "syntactic" else (1, 2))
        assert told.rephrased not in told.negatives
        sizes = {len(text.split()) for text in (told.rephrased, *told.negatives)}
        assert len(sizes) == 1


@pytest.mark.parametrize("technique", ["lexical", "syntactic", "contextual"])
def test_a_rephrasing_keeps_the_facts(technique):
    for told in many(lambda rng: world.rephrasing(rng, technique), 200):
        assert world.facts_in(told.rephrased) == world.facts_in(told.anchor)
        changed = [world.facts_in(negative) != world.facts_in(told.anchor) for negative in told.negatives]
        assert all(changed) or technique == "lexical"


def test_a_synonym_keeps_the_verb_of_the_key_and_a_negative_does_not():
    for told in many(lambda rng: world.rephrasing(rng, "lexical"), 200):
        for text, right in ((told.rephrased, True), *((negative, False) for negative in told.negatives)):
            sentences = [part.split() for part in text.removesuffix(" .").split(" . ")]
            assert all(verb in RELATIONS[relation][key] for relation, key, _, verb in sentences) == right


def test_a_dropped_word_is_a_verb_or_in_negatives_a_person():
    for told in many(lambda rng: world.rephrasing(rng, "dropout"), 200):
        assert sum(word in PERSONS for word in told.rephrased.split()) == 2
        assert all(sum(word in PERSONS for word in negative.split()) == 1 for negative in told.negatives)


def test_filler_shares_no_word_with_what_is_asked():
    asked = {word for exam in many(world.recall_exam) for word in exam.protected}
    rng = random.Random(0)
    assert not asked & {word for _ in range(300) for word in world.filler(rng)}
