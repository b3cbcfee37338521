"""What is formed from the contexts and demands of one micro-batch: weighted sums, numerators and denominator apart."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cegm.context.aggregate import weighted_gram
from cegm.context.patches import Geometry, context_rows, demand_rows
from cegm.context.scores import NEEDS_CONTEXTS, reached_tokens, token_weights
from cegm.options import Scores


class Recipe(NamedTuple):
    """What is formed from a micro-batch.

    Attributes:
        context_heads: Blocks of the context matrix; 0 when it is not wanted.
        demand_heads: Blocks of the demand matrix; 0 when it is not wanted.
        scores: Which context score weighs the tokens.
        exclude_sink: Whether the first position of a row is left out.
    """

    context_heads: int
    demand_heads: int
    scores: Scores
    exclude_sink: bool

    @property
    def needs_contexts(self) -> bool:
        """Whether the contexts have to be kept for the backward pass."""
        return self.context_heads > 0 or self.scores in NEEDS_CONTEXTS

    @property
    def needs_summary(self) -> bool:
        """Whether the weighted mean of the contexts is gathered too."""
        return self.scores == "attention"


def score(
    recipe: Recipe, contexts: Tensor | None, gradient: Tensor, walk: Geometry | None, seed: Tensor, guide: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Rows and weights of one micro-batch: contexts (tokens, inputs) or None, demands (tokens, outputs), weights (tokens,)."""
    rows = None if contexts is None else context_rows(contexts, walk).float()
    demands = demand_rows(gradient, walk)
    reached = reached_tokens(demands, recipe.exclude_sink)
    demands = demands.reshape(-1, demands.shape[-1]).float()
    return rows, demands, token_weights(recipe.scores, rows, demands, reached, seed, guide)


def sums(recipe: Recipe, contexts: Tensor | None, demands: Tensor, weights: Tensor) -> list[Tensor | None]:
    """Numerators and denominator, in the order of `EntanglementLayer.all_carriers`: context, demand, summary, mass."""
    seen = contexts if contexts is not None else demands  # read only where the recipe needs contexts
    return [
        weighted_gram(seen, weights, recipe.context_heads) if recipe.context_heads else None,
        weighted_gram(demands, weights, recipe.demand_heads) if recipe.demand_heads else None,
        weights @ seen if recipe.needs_summary else None,
        weights.sum(),
    ]
