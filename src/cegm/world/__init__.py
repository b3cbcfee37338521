"""A small world whose facts have to be carried over distance: who is with what, who is where, who has done something since when.

Nothing but the standard library is needed. docs/world.md shows the grammar and what is held apart.
"""

from cegm.world.facts import Fact, draw_facts, options
from cegm.world.text import documents, filler, vocabulary

__all__ = ["Fact", "documents", "draw_facts", "filler", "options", "vocabulary"]
