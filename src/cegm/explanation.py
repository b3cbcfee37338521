"""`explain`: which tokens of a text push the weights the way training is already moving them (alignment scores `A_t`).

Paper arXiv 2502.00048, section III-C. A score `a_i = d_i^T G_t c_i` belongs to a *position* of the text: to what the
model does there, having read the text up to and including that token. It is positive when learning from this position
would move the weight along the entangled gradient `G_t`, negative when it would move it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from cegm.assignment import Assignment
from cegm.context.alignment import alignment
from cegm.context.patches import Geometry, context_rows, demand_rows
from cegm.context.taps import Observer, watch
from cegm.explanation_text import token_rows, token_strings
from cegm.optimizer import CEGM
from cegm.sharding import is_sharded

EXPERTS = "each expert sees tokens of its own, in another order than the text's"
OUT_OF_REACH = "its contexts are out of reach"


@dataclass(frozen=True, eq=False)
class AlignedText:
    """The alignment scores of one text.

    Attributes:
        tokens: The tokens as text, or their ids without a tokenizer.
        scores: Unnormalised scores, shape (layers, tokens), float32 or float64, on the CPU.
    """

    tokens: tuple[str, ...]
    scores: Tensor

    def weights(self) -> Tensor:
        """The paper's `A_t`: softmax of the scores over the tokens of each layer, shape (layers, tokens).

        A softmax of raw inner products is near uniform where gradients are small; scores compare tokens better.
        """
        return self.scores.softmax(dim=-1)

    def total(self) -> Tensor:
        """Scores summed over the layers, shape (tokens,): the inner product over all weights together."""
        return self.scores.sum(dim=0)

    def driving(self, count: int) -> list[tuple[int, str, float]]:
        """The `count` tokens with the highest total, as (position, token, total), highest first."""
        total = self.total()
        order = total.argsort(descending=True, stable=True)[:count].tolist()
        return [(position, self.tokens[position], float(total[position])) for position in order]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Alignment scores of texts.

    Attributes:
        texts: One entry per text, in the order given.
        layers: Names of the rows of `scores`; fused weights appear piece by piece, with their rows in brackets.
        loss: Mean next-token cross-entropy over the predicted tokens of all texts, in nats.
        left_out: Layers without scores, and why.
    """

    texts: tuple[AlignedText, ...]
    layers: tuple[str, ...]
    loss: float
    left_out: dict[str, str]

    def to_html(self, path: str | Path) -> Path:
        """Writes one offline page that colours the texts by their scores.

        Returns:
            The path.
        """
        from cegm import explanation_page

        return explanation_page.write(self, Path(path))


def explain(
    model: nn.Module,
    optimizer: CEGM,
    texts: str | Sequence[str] | Tensor,
    tokenizer: Any = None,
    max_length: int | None = None,
) -> Explanation:
    """Alignment scores of every token of `texts` at every weight that follows Algorithm 1.

    The loss is the mean next-token cross-entropy over the predicted tokens of all texts together, so that the scores of
    a layer, summed over all tokens, are the inner product of the gradient of that loss with the entangled gradient
    `G_t`. Texts are read one at a time, in evaluation mode. Weights, gradients, optimizer, training mode and random
    state are left as they were.

    Args:
        model: A causal language model: called with ids of shape (1, tokens), it gives logits, alone, as `logits` or
            in a tuple with other things.
        optimizer: The `CEGM` that trains it, after at least one step.
        texts: A text, several texts, or token ids of shape (rows, tokens).
        tokenizer: As transformers has them. None: the one in the model's own folder or hub repository; not needed for
            ids.
        max_length: Longest text in tokens; the rest of a text is cut off. None: no limit.

    Raises:
        ValueError: Texts without two tokens, no tokenizer, an optimizer that has not stepped or belongs to another
            model, a model that gives no logits for every token.
    """
    while isinstance(model, DistributedDataParallel):
        model = model.module
    optimizer = getattr(optimizer, "optimizer", optimizer)  # Accelerate wraps it
    assignments = _with_layers(optimizer)
    for assignment in assignments:
        if is_sharded(assignment.parameter):
            raise ValueError(f"{assignment.name} is sharded; load its checkpoint in one process and explain there")
    rows, tokenizer = token_rows(model, texts, tokenizer, max_length)
    predicted = sum(len(row) - 1 for row in rows)
    loss, found, left_out = 0.0, [], _without_momentum(optimizer, assignments)
    left_out |= {a.name: EXPERTS for a in assignments if a.experts > 1}
    left_out |= {a.name: OUT_OF_REACH for a in assignments if not a.places}
    seen = [a for a in assignments if a.name not in left_out]
    with _undisturbed(model):
        for row in rows:
            part, scores, missing = _align(model, optimizer, seen, row, predicted)
            loss += part
            found.append(scores)
            left_out |= missing
    seen = [a for a in seen if a.name not in left_out]
    if not seen:
        raise ValueError(f"no layer could be explained ({_first(left_out)}); pass the model that the optimizer trains")
    return Explanation(
        tuple(
            AlignedText(token_strings(row, tokenizer), torch.cat([scores[a.name] for a in seen]))
            for row, scores in zip(rows, found, strict=True)
        ),
        tuple(matrix.name for a in seen for matrix in a.matrices()),
        loss,
        {a.name.removesuffix(".weight"): left_out[a.name] for a in assignments if a.name in left_out},
    )


# ---------------------------------------------------------------------- what is explained


def _with_layers(optimizer: CEGM) -> list[Assignment]:
    if not isinstance(optimizer, CEGM):
        raise ValueError(f"explain needs the CEGM optimizer of the model, not {type(optimizer).__name__}")
    assignments = optimizer.matrices()
    if not any(a.places for a in assignments):
        raise ValueError("the optimizer was built without a model, so its layers are unknown; use CEGM(model, ...)")
    return assignments


def _without_momentum(optimizer: CEGM, assignments: list[Assignment]) -> dict[str, str]:
    left_out = {a.name: "never updated" for a in assignments if "momentum" not in optimizer.state.get(a.parameter, {})}
    if len(left_out) == len(assignments):
        raise ValueError("the optimizer has no entangled gradient yet; call explain after its first step()")
    return left_out


def _first(left_out: dict[str, str]) -> str:
    return next(f"{name}: {reason}" for name, reason in left_out.items())


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, gradients on, eager; modes of all modules and random states are put back, whatever happens."""
    modes = {module: module.training for module in model.modules()}
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    try:
        model.eval()
        # A compiled model would not see hooks that are placed after compiling.
        with torch.random.fork_rng(devices), torch.enable_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _align(
    model: nn.Module, optimizer: CEGM, assignments: list[Assignment], row: Tensor, predicted: int
) -> tuple[float, dict[str, Tensor], dict[str, str]]:
    """One text: its part of the loss, scores (pieces, tokens) by name of the weight, and why some have none."""
    taps = [_Tap(a, optimizer.state[a.parameter]["momentum"], len(row)) for a in assignments]
    for tap in taps:
        for place in tap.assignment.places:
            watch(place, tap, tap.assignment.transposed)
    try:
        ids = row.to(next(model.parameters()).device)
        logits = _logits(model(ids[None]), len(ids))[:-1]  # (tokens - 1, vocabulary)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = cross_entropy(logits, ids[1:].to(logits.device), reduction="sum") / predicted
        carriers = [tap.carrier for tap in taps]
        with torch.autocast(ids.device.type, enabled=False):  # scores in full precision, whatever the caller has around
            scores = (
                torch.autograd.grad(loss, carriers, allow_unused=True) if loss.requires_grad else [None] * len(taps)
            )
    finally:
        for tap in taps:
            tap.unhook()
    missing = {
        t.assignment.name: t.trouble or "not called, or its output does not reach the loss"
        for t, s in zip(taps, scores, strict=True)
        if s is None or t.trouble
    }
    found = {t.assignment.name: s.cpu() for t, s in zip(taps, scores, strict=True) if s is not None}
    return float(loss.detach()), found, missing


def _logits(output: Any, tokens: int) -> Tensor:
    """Of one text, (tokens, vocabulary), wherever they stand in what a model gives: alone, by name, or beside a loss or a cache."""
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if named is not None:
        output = named
    given = output.values() if isinstance(output, Mapping) else [output] if isinstance(output, Tensor) else output
    found = [
        each
        for each in (given if isinstance(given, Iterable) else ())
        if isinstance(each, Tensor) and each.ndim == 3 and each.shape[:2] == (1, tokens) and each.is_floating_point()
    ]
    if len(found) != 1:
        count = "no" if not found else f"{len(found)}"
        raise ValueError(
            f"the model gave {count} logits of shape (1, {tokens}, vocabulary) for one text of {tokens} tokens; let its "
            "forward return them for every token, alone or as `logits`"
        )
    return found[0][0]


class _Tap(Observer):
    """Observes one weight and makes alignment scores the *gradient of a carrier*.

    Autograd then sums over the calls of a module and survives recomputation, as in `cegm.context.layers`. Its
    hooks are taken away at the end.

    Attributes:
        carrier: Zeros that take part in nothing else, shape (pieces, tokens).
        trouble: Why the scores cannot be used; empty if they can.
    """

    def __init__(self, assignment: Assignment, momentum: Tensor, tokens: int) -> None:
        super().__init__()
        self.assignment, self.parameter = assignment, assignment.parameter
        self.entangled = [matrix.view(momentum) for matrix in assignment.matrices()]
        dtype = torch.promote_types(momentum.dtype, torch.float32)
        self.carrier = torch.zeros(len(self.entangled), tokens, dtype=dtype, device=momentum.device, requires_grad=True)
        self.trouble = ""

    def listens(self, module: nn.Module) -> bool:
        """Always."""
        return True

    def lose(self, why: str) -> None:
        """Scores of a part of what the weight meets are no scores of it."""
        self.trouble = why

    def see(self, output: Tensor, contexts: Tensor, walk: Geometry | None, part: int) -> Tensor | None:
        """The output, with the scores of its tokens behind it; None if these are not the tokens of the text."""
        tokens = self.carrier.shape[1]
        fed = demand_rows(output, walk).shape[:-1].numel()
        if fed != tokens:
            self.trouble = f"fed with {fed} vectors, the text has {tokens} tokens"
            return None
        tapped: Tensor = _Align.apply(output, contexts, self.entangled, walk, self.carrier)  # type: ignore[no-untyped-call]
        return tapped


class _Align(torch.autograd.Function):
    """Identity on a layer's output whose backward pass yields the alignment scores of the tokens."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, contexts: Tensor, entangled: list[Tensor], walk: Geometry | None, carrier: Tensor
    ) -> Tensor:
        ctx.save_for_backward(contexts)  # (..., inputs)
        ctx.entangled, ctx.walk = entangled, walk  # pieces of (outputs, inputs)
        return output.clone()  # a view would forbid in-place operations on the output further down

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (contexts,) = ctx.saved_tensors
        rows, demands = context_rows(contexts, ctx.walk), demand_rows(gradients[0], ctx.walk)
        pieces = demands.reshape(-1, demands.shape[-1]).split([len(piece) for piece in ctx.entangled], dim=-1)
        scores = [alignment(rows, d, piece) for d, piece in zip(pieces, ctx.entangled, strict=True)]
        return gradients[0], None, None, None, torch.stack(scores)  # (pieces, tokens)
