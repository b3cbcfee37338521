import itertools
import random

from cegm import world
from cegm.world.facts import PERSONS, RELATIONS
from cegm.world.text import ADJECTIVES, ADVERBS, NOUNS, VERBS


def take(count, seed=0, split="train"):
    return list(itertools.islice(world.documents(seed, split), count))


def facts_in(document):
    """(relation, key, person) of every fact sentence, in order."""
    words = document.split()
    return [tuple(words[i : i + 3]) for i, word in enumerate(words) if word in RELATIONS]


def test_the_vocabulary_is_closed_and_without_doubles():
    words = world.vocabulary()
    assert words == sorted(set(words))
    assert len(words) < 300
    assert set(" ".join(take(300)).split()) <= set(words)


def test_the_same_seed_gives_the_same_text_on_every_machine():
    assert take(5) == take(5)
    assert take(1)[0].startswith("with candle bruno prays . since december mira writes . since december mira writes .")


def test_splits_and_seeds_share_no_document():
    sets = [set(take(400, seed, split)) for seed in (0, 1) for split in ("train", "validation")]
    for first, second in itertools.combinations(sets, 2):
        assert not first & second


def test_a_key_has_one_person_in_a_document_and_any_in_the_world():
    bindings = {}
    for document in take(300):
        own = {}
        for relation, key, person in facts_in(document):
            assert own.setdefault((relation, key), person) == person
        assert len(set(own.values())) == len(own), "a person stands for two keys"
        for pair, person in own.items():
            bindings.setdefault(pair, set()).add(person)
    assert min(len(persons) for persons in bindings.values()) > 5


def test_every_fact_is_recalled_after_it_was_stated():
    for document in take(100):
        found = facts_in(document)
        assert all(found.count(fact) >= 2 for fact in found)


def test_filler_shares_no_word_with_facts():
    filler_words = {*ADJECTIVES, *NOUNS, *VERBS, *ADVERBS, "a", "some"}
    fact_words = {*PERSONS, *RELATIONS, *(w for m in RELATIONS.values() for pair in m.items() for w in pair)}
    assert not filler_words & fact_words
    rng = random.Random(0)
    assert all(set(world.filler(rng)) <= filler_words | {"."} for _ in range(200))


def test_options_are_other_persons_of_the_same_document():
    rng = random.Random(0)
    facts = world.draw_facts(rng, 8)
    chosen = world.options(rng, facts, facts[2], 4)
    assert chosen[0] == facts[2].person
    assert len(set(chosen)) == 4
    assert set(chosen) <= {fact.person for fact in facts}


def test_no_key_belongs_to_two_relations():
    keys = [key for members in RELATIONS.values() for key in members]
    assert len(keys) == len(set(keys))
