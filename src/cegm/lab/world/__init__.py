"""A small world language: persons, things, places and times whose facts have to be carried over distance, and much that stands between them.

Nothing but the standard library is needed. docs/world.md shows the grammar, what every axis asks in it and what is held apart.
"""

from cegm.lab.world.ambiguities import PRONOUN_LEVELS as PRONOUN_LEVELS
from cegm.lab.world.ambiguities import SENSE_LEVELS as SENSE_LEVELS
from cegm.lab.world.ambiguities import pronoun_exam as pronoun_exam
from cegm.lab.world.ambiguities import sense_exam as sense_exam
from cegm.lab.world.chains import chain_exam as chain_exam
from cegm.lab.world.facts import draw_facts as draw_facts
from cegm.lab.world.facts import facts_in as facts_in
from cegm.lab.world.facts import paraphrased_exam as paraphrased_exam
from cegm.lab.world.facts import recall_exam as recall_exam
from cegm.lab.world.grammar import Exam as Exam
from cegm.lab.world.grammar import filler as filler
from cegm.lab.world.grammar import nested as nested
from cegm.lab.world.journeys import Journey as Journey
from cegm.lab.world.journeys import journey as journey
from cegm.lab.world.registers import REGISTERS as REGISTERS
from cegm.lab.world.registers import register_documents as register_documents
from cegm.lab.world.rephrasings import TECHNIQUES as TECHNIQUES
from cegm.lab.world.rephrasings import rephrasing as rephrasing
from cegm.lab.world.text import documents as documents
from cegm.lab.world.text import story as story
from cegm.lab.world.text import vocabulary as vocabulary
