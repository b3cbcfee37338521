"""Which weights an optimizer trains, in which groups: split by role at the start, and followed when the model changes."""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from cegm.assignment import UNTOLD, Assignment, Role, table
from cegm.followed_model import FollowedModel
from cegm.param_groups import KINDS, Group, by_role, kind_of, listed, split, tensors_of
from cegm.roles import assign
from cegm.sharding import is_sharded
from cegm.state import WholeState


class GroupedByRole(WholeState):
    """An optimizer whose groups are split by role, and which follows the model that it was given when that changes.

    Args:
        params: A model, or anything torch accepts.
        model: Where `params` live, when these are no model; None: nowhere that is known.
        options: For what a group does not say itself.
        group_patterns: Overrides of the automatic roles, as `assign` takes them.

    Raises:
        ValueError: Something that cannot be trained, or patterns without a model.
    """

    _assignments: dict[Tensor, Assignment]
    """What is known of each parameter; a subclass makes it, and shares it with what has to know, before it comes here."""

    def __init__(
        self,
        params: ParamsT | nn.Module,
        model: nn.Module | None,
        options: Mapping[str, Any],
        group_patterns: Sequence[tuple[str, Role]],
    ) -> None:
        self._takes_all = isinstance(params, nn.Module)
        if isinstance(params, nn.Module):
            model, params = params, [{"params": [p for p in params.parameters() if p.requires_grad]}]
        if model is None and group_patterns:
            raise ValueError("group_patterns need the names of a model; pass model=")
        groups = listed(params)
        trained = set(tensors_of(groups))
        frozen = set(model.parameters()) - trained if model is not None and self._takes_all else set()
        assigned = {} if model is None else {a.parameter: a for a in assign(model, group_patterns, trained | frozen)}
        self._assignments.update({p: a for p, a in assigned.items() if p not in frozen})
        self._model = None if model is None else FollowedModel(model, tuple(group_patterns), trained)
        # torch's distributed checkpoints know no groups without parameters
        awaited = {kind_of(assigned[p]) for p in frozen} if not any(map(is_sharded, trained)) else set()
        super().__init__(by_role(groups, options, self._assignments, awaited), dict(options))
        self._require_known(self.param_groups)
        self._require_matrices()

    def _require_matrices(self) -> None:
        if any(group["role"] == "matrix" and group["params"] for group in self.param_groups):
            return
        trained = [self._assignments[p] for p in tensors_of(self.param_groups)]
        if any(a.pieces and a.reason == "vector" for a in trained):  # adapters of rank 1
            why = "every linear layer here has a single row or column"
        elif any(group["role"] == "matrix" for group in self.param_groups):
            why = "every matrix for Algorithm 1 is frozen"
        else:
            raise ValueError("the model has no matrix for Algorithm 1 (no trainable linear layer); use AdamW for it")
        warnings.warn(f"{why}, so AdamW updates all weights", stacklevel=3)

    def _require_alike(self) -> None:
        """Raises ValueError where some weights are sharded and others are not: their gradients would be those of one rank."""
        kinds = {is_sharded(p): p for group in self.param_groups for p in group["params"]}
        if len(kinds) > 1:
            raise ValueError(
                f"{self._assignments[kinds[False]].name} is not sharded and {self._assignments[kinds[True]].name} is; call fully_shard on "
                "the whole model, too"
            )

    def _require_known(self, groups: Iterable[Group]) -> None:
        """Raises ValueError where a group holds a matrix that is not in the model, whose role nobody can tell."""
        for assignment in (self._assignments[p] for p in tensors_of(groups if self._model is not None else ())):
            if assignment.reason == UNTOLD:
                raise ValueError(
                    f"{assignment.name} is a matrix outside of the model that CEGM was given, so its role is unknown; "
                    "give its group role='matrix' or role='adamw'"
                )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group as torch does: split by role, and its matrices watched. The model is looked at again for what is new in it."""
        if "steps" in param_group:  # split already
            self._add(param_group)
            return
        (group,) = listed([param_group])
        self._look_at_model(set(tensors_of([group])))
        parts = split(group, len(self.param_groups), self.defaults, self._assignments)
        self._require_known(parts)
        for part in parts:
            self._add(part)

    def _add(self, part: dict[str, Any]) -> None:
        super().add_param_group(part)
        group = self.param_groups[-1]
        self._require_alike()
        self._begin_watching(group["params"], group)

    def _begin_watching(self, parameters: Sequence[Tensor], group: Group) -> None:
        """Makes ready for weights that have joined a group."""
        raise NotImplementedError

    def _end_watching(self, parameter: Tensor) -> None:
        """Takes away what watches a weight that has left."""
        raise NotImplementedError

    # ------------------------------------------------------------------ a model that changes

    def _look_at_model(self, handed: Container[Tensor] = ()) -> None:
        """Assigns what is trainable in the model, or handed over, and not assigned yet."""
        for assignment in () if self._model is None else self._model.assignments(handed):
            self._assignments.setdefault(assignment.parameter, assignment)

    def _follow_model(self) -> None:
        """Takes in weights that were unfrozen or put in place of others since, if all of the model's are this optimizer's to train.

        They join the groups of their kind, so that schedulers move them too; weights that are gone leave theirs, and
        those of another shape begin anew.
        """
        grouped = tensors_of(self.param_groups)
        if self._model is None or not self._model.may_have_changed(grouped):
            return
        changes = self._model.changes(grouped)
        if changes is None:
            self._warn_gone(grouped)
            return
        new, gone, reshaped = changes
        if not self._takes_all:
            self._refuse(new, reshaped)
        elif new or reshaped:
            self._leave([*gone, *reshaped])
            self._look_at_model()
            self._join([*new, *reshaped])
            self._tell(new, "became trainable after CEGM was built", "they have joined its groups")
            self._tell(reshaped, "got another shape after CEGM was built", "their statistics begin anew")

    def _leave(self, parameters: Iterable[Tensor]) -> None:
        """Forgets weights: their groups, their state, what is known of them."""
        for parameter in parameters:
            self._end_watching(parameter)
            self.state.pop(parameter, None)
            del self._assignments[parameter]
        for group in self.param_groups:
            group["params"][:] = [p for p in group["params"] if p in self._assignments]

    def _join(self, parameters: Sequence[Tensor]) -> None:
        """Takes weights into the groups of their kinds, in the model's order: a checkpoint knows them by their places."""
        assert self._model is not None
        order = self._model.order()
        for kind in KINDS:
            joining = [p for p in parameters if kind_of(self._assignments[p]) == kind]
            group = next((g for g in self.param_groups if (g["role"], g["decays"]) == kind), None)
            if joining and group is None:
                self.add_param_group({"params": joining})
            elif joining and group is not None:
                group["params"][:] = sorted([*group["params"], *joining], key=order.__getitem__)
                self._begin_watching(joining, group)

    def _tell(self, parameters: Sequence[Tensor], what: str, then: str) -> None:
        if parameters:
            first = self._assignments[parameters[0]].name
            warnings.warn(f"{len(parameters)} weights {what} (first {first}); {then}", stacklevel=5)

    def _refuse(self, new: Sequence[Tensor], reshaped: Sequence[Tensor]) -> None:
        """Weights that have changed where the user chose which ones to train.

        Raises:
            ValueError: One has another shape.
        """
        for parameter in reshaped:
            raise ValueError(
                f"{self._assignments[parameter].name} has another shape than when CEGM was built; build it again"
            )
        if new:
            self._look_at_model()
            self._tell(
                new,
                "became trainable after CEGM was built and are in none of its groups",
                "add them with add_param_group",
            )

    def _warn_gone(self, grouped: Iterable[Tensor]) -> None:
        """Says once that there is nothing to train any more, because the model is gone."""
        if all(p.grad is None for p in grouped):
            warnings.warn(
                "no weight of this optimizer has a gradient, and the model that CEGM was given is gone; build it again for the new one",
                stacklevel=5,
            )
            self._model = None

    def matrices(self) -> list[Assignment]:
        """The parameters that follow Algorithm 1, with their layers; `Assignment.matrices()` takes fused ones apart."""
        return [
            self._assignments[p] for group in self.param_groups if group["role"] == "matrix" for p in group["params"]
        ]

    def summary(self) -> str:
        """The group table: which parameter is updated how, and why."""
        members = [self._assignments[p] for group in self.param_groups for p in group["params"]]
        return table(members)
