"""A small world language: persons, things, places and times whose facts have to be carried over distance, and much that stands between them.

Nothing but the standard library is needed. docs/world.md shows the grammar, what every axis asks in it and what is held apart.
"""

from cegm.world.chains import chain_exam
from cegm.world.deeds import PRONOUN_LEVELS, pronoun_exam
from cegm.world.exam import Exam
from cegm.world.facts import Fact, draw_facts, facts_in, options, paraphrased_exam, recall_exam
from cegm.world.filler import Nested, filler, nested
from cegm.world.journeys import Journey, Step, journey
from cegm.world.registers import REGISTERS, register_documents
from cegm.world.rephrasings import TECHNIQUES, Rephrasing, rephrasing
from cegm.world.senses import SENSE_LEVELS, sense_exam
from cegm.world.text import Story, documents, story, vocabulary

__all__ = [
    "PRONOUN_LEVELS",
    "REGISTERS",
    "SENSE_LEVELS",
    "TECHNIQUES",
    "Exam",
    "Fact",
    "Journey",
    "Nested",
    "Rephrasing",
    "Step",
    "Story",
    "chain_exam",
    "documents",
    "draw_facts",
    "facts_in",
    "filler",
    "journey",
    "nested",
    "options",
    "paraphrased_exam",
    "pronoun_exam",
    "recall_exam",
    "register_documents",
    "rephrasing",
    "sense_exam",
    "story",
    "vocabulary",
]
