"""A small world language: persons, things, places and times whose facts have to be carried over distance, and much that stands between them.

Nothing but the standard library is needed. docs/world.md shows the grammar, what every axis asks in it and what is held apart.
"""

from cegm.world.ambiguities import PRONOUN_LEVELS as PRONOUN_LEVELS
from cegm.world.ambiguities import SENSE_LEVELS as SENSE_LEVELS
from cegm.world.ambiguities import pronoun_exam as pronoun_exam
from cegm.world.ambiguities import sense_exam as sense_exam
from cegm.world.chains import chain_exam as chain_exam
from cegm.world.facts import draw_facts as draw_facts
from cegm.world.facts import facts_in as facts_in
from cegm.world.facts import paraphrased_exam as paraphrased_exam
from cegm.world.facts import recall_exam as recall_exam
from cegm.world.grammar import Exam as Exam
from cegm.world.grammar import filler as filler
from cegm.world.grammar import nested as nested
from cegm.world.journeys import Journey as Journey
from cegm.world.journeys import journey as journey
from cegm.world.registers import REGISTERS as REGISTERS
from cegm.world.registers import register_documents as register_documents
from cegm.world.rephrasings import TECHNIQUES as TECHNIQUES
from cegm.world.rephrasings import rephrasing as rephrasing
from cegm.world.text import documents as documents
from cegm.world.text import story as story
from cegm.world.text import vocabulary as vocabulary
