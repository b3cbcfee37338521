"""Documents: closed vocabulary, the same everywhere, nothing shared between what is learned and what is asked."""

import itertools
import random

from cegm.lab import world
from cegm.lab.world.chains import DEEPEST_WRITTEN
from cegm.lab.world.facts import KEYS, PERSONS, RELATIONS, WORDINGS
from cegm.lab.world.journeys import LONGEST_WRITTEN, STAGES
from cegm.lab.world.registers import register_words


def take(count, seed=0, split="train"):
    return list(itertools.islice(world.documents(seed, split), count))


def sentences(document):
    return [part.split() for part in document.removesuffix(" .").split(" . ")]


def test_the_vocabulary_is_closed_and_without_doubles():
    words = world.vocabulary()
    assert words == sorted(set(words))
    assert len(words) < 300
    assert set(" ".join(take(400)).split()) <= set(words)
    for register in world.REGISTERS:
        texts = itertools.islice(world.register_documents(register, 0, "train"), 20)
        assert set(" ".join(texts).split()) <= set(words)


def test_the_same_seed_gives_the_same_text_on_every_machine():
    assert take(5) == take(5)
    assert take(1)[0].startswith(
        "they name hammer elsa . roll friday lukas hammer elsa harbor tomas hammer elsa hammer elsa"
    )


def test_splits_and_seeds_share_no_document():
    sets = [set(take(400, seed, split)) for seed in (0, 1) for split in ("train", "validation")]
    for first, second in itertools.combinations(sets, 2):
        assert not first & second


def test_a_key_has_one_person_in_a_document_and_any_in_the_world():
    bindings = {}
    for document in take(400):
        own = {}
        for relation, key, person in world.facts_in(document):
            assert own.setdefault((relation, key), person) == person
        assert len(set(own.values())) == len(own), "a person stands for two keys"
        for pair, person in own.items():
            bindings.setdefault(pair, set()).add(person)
    assert len(bindings) == len(KEYS)
    assert min(len(persons) for persons in bindings.values()) > 8


def test_every_fact_is_told_at_least_three_times():
    for document in take(100):
        found = [tuple(s[-2:]) for s in sentences(document) if s[0] == "they"]
        found += [(s[1], s[2]) for s in sentences(document) if s[0] in RELATIONS]
        found += [(s[2], s[4]) for s in sentences(document) if s[0] == "who"]
        assert found
        assert all(found.count(fact) >= 3 for fact in found)


def test_what_the_exams_generalise_to_is_in_no_document():
    """Contamination: long ways and journeys, and every word of the other registers, are unseen in training."""
    documents = take(2000)
    ways = [s for d in documents for s in sentences(d) if s[0] == "way"]
    assert max(len(way) - 2 for way in ways) == DEEPEST_WRITTEN < 10
    assert LONGEST_WRITTEN < 10
    home = set(" ".join(documents).split())
    told = {word for wording in WORDINGS for word in wording.split()}
    assert len(register_words() - home) > 50
    assert register_words() & home <= told | {*RELATIONS, *STAGES, "is", "the", "to", "that"}
    rng = random.Random(0)
    exams = [world.recall_exam(rng), world.chain_exam(rng, 3), world.pronoun_exam(rng, 1), *world.paraphrased_exam(rng)]
    whole = " ".join(documents)
    assert not any(exam.context in whole for exam in exams)


def test_adaptation_and_test_text_of_a_register_differ():
    for register in world.REGISTERS:
        train, test = (
            set(itertools.islice(world.register_documents(register, 0, split), 50)) for split in ("train", "validation")
        )
        assert not train & test


def test_a_story_states_the_facts_the_judge_finds():
    told = world.story(random.Random(3))
    assert len(told.facts) == 5
    assert world.facts_in(told.text) == told.facts
    changed = told.text.replace(next(iter(told.facts))[2], "zzz")
    assert len(world.facts_in(changed)) == 4
    assert all(person in PERSONS for _, _, person in told.facts)
