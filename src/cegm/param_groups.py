"""From what the caller hands over to the groups of the optimizer: each of the caller's groups split by role, with its options."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

from torch import Tensor
from torch.optim.optimizer import ParamsT

from cegm.assignment import ROLES, Assignment, Role, assign_without_model
from cegm.mapping.coefficient import INITIAL
from cegm.options import RECOMMENDED, check
from cegm.sharding import is_sharded, mesh_of

Group = dict[str, Any]


SHAPES_LAYERS = ("power", "gradient_power", "scores", "exclude_sink", "hierarchy", "heads", "normalize", "retain")
"""Options that decide what a layer records, and the hash of the context card; of `normalize` it is `product` that does."""


class Kind(NamedTuple):
    """What the weights of one group have in common."""

    role: str
    decays: bool


KINDS = (Kind("matrix", True), Kind("matrix", False), Kind("adamw", True), Kind("adamw", False))


def listed(params: ParamsT) -> list[Group]:
    """What the caller hands over as groups, each with a list of members.

    Args:
        params: What torch accepts: tensors, named tensors, or groups of either.

    Raises:
        TypeError: Something that torch does not accept.
        ValueError: No parameters.
    """
    if isinstance(params, Tensor):
        raise TypeError(
            "params argument given to the optimizer should be an iterable of Tensors or dicts, but is one Tensor; "
            "pass [parameter] or the model"
        )
    entries = list(cast("Iterable[Any]", params))
    if not entries:
        raise ValueError("the optimizer got no parameters; pass the model itself, or model.parameters()")
    groups = entries if isinstance(entries[0], dict) else [{"params": entries}]
    return [{**group, "params": _members(group["params"])} for group in groups]


def by_role(
    groups: Sequence[Group],
    options: Mapping[str, Any],
    assignments: MutableMapping[Tensor, Assignment],
    awaited: Container[Kind] = (),
) -> list[Group]:
    """Splits each of the caller's groups by role.

    Args:
        groups: As `listed` gives them.
        options: For what a group does not say itself.
        assignments: What is known of each parameter; those without a model are added.
        awaited: Kinds that get a group though no parameter is of them yet: those that come later find a schedule there.

    Raises:
        TypeError: A member that is no tensor.
        ValueError: One that cannot be used.
    """
    return [p for index, group in enumerate(groups) for p in split(group, index, options, assignments, awaited)]


def split(
    group: Group,
    index: int,
    options: Mapping[str, Any],
    assignments: MutableMapping[Tensor, Assignment],
    awaited: Container[Kind] = (),
) -> list[Group]:
    """One group of the caller as up to four: by role, and apart what has no weight decay."""
    parts: dict[Kind, list[Any]] = defaultdict(list)
    for position, member in enumerate(group["params"]):
        name, parameter = member if isinstance(member, tuple) else (f"group {index}, parameter {position}", member)
        _require_usable(name, parameter)
        assignment = assignments.setdefault(parameter, assign_without_model(name, parameter))
        if is_sharded(parameter):
            mesh_of(assignment.name, parameter)  # refuses cuts that cannot be followed
        if "role" in group:
            assignment = assignments[parameter] = _by_order(assignment, group["role"])
        parts[kind_of(assignment)].append(member)
    return [_part(kind, parts[kind], group, options) for kind in KINDS if parts[kind] or kind in awaited]


def _by_order(assignment: Assignment, role: str) -> Assignment:
    """In the role that the caller's group says."""
    if role not in ROLES:
        raise ValueError(f"a group has role={role!r}; use one of {', '.join(ROLES)}, or leave it out")
    shape, pieces = assignment.parameter.shape, assignment.pieces
    if role == "matrix" and not pieces:
        if len(shape) != 2:
            raise ValueError(
                f"{assignment.name} ({'x'.join(map(str, shape))}) is no matrix, but its group has role='matrix'; leave role out"
            )
        pieces = (shape[0],)
    return replace(assignment, role=cast(Role, role), reason="role of its group", pieces=pieces)


def kind_of(assignment: Assignment) -> Kind:
    """Which of the groups a weight belongs to."""
    return Kind(assignment.role, assignment.decays)


def _part(kind: Kind, members: list[Any], group: Group, options: Mapping[str, Any]) -> Group:
    part = {"role": kind.role, "decays": kind.decays, "steps": 0, **group, "params": members}
    rate = options["lr"] if kind.role == "matrix" or options["aux_lr"] is None else options["aux_lr"]
    part.setdefault("lr", rate)
    if isinstance(part["lr"], Tensor):  # schedulers write into it, and no other group's may change with it
        part["lr"] = part["lr"].detach().clone()
    if not kind.decays:
        part.setdefault("weight_decay", 0.0)
    if kind.role == "matrix":
        part.update(INITIAL)
        merged = {**options, **part}
        check(merged)
        if merged["coefficient"] == "cosine":
            part["entanglement"] = merged["coefficient_range"][1]
        return part
    decay = options["weight_decay"] if options["aux_weight_decay"] is None else options["aux_weight_decay"]
    part.setdefault("weight_decay", decay)
    return part


def _members(params: Any) -> list[Any]:
    """The parameters of one group in the caller's order, each alone or as (name, parameter)."""
    if isinstance(params, set):
        raise TypeError("parameters must come in an order, which a set has not; pass a list")
    members = [params] if isinstance(params, Tensor) else list(params)
    if len({isinstance(member, tuple) for member in members}) > 1:
        raise ValueError("all optimizer params should be with/without names. Some param names are missing")
    return members


def _require_usable(name: str, parameter: Any) -> None:
    if not isinstance(parameter, Tensor):
        raise TypeError(f"{name} is no Tensor but {type(parameter).__name__}; the optimizer can only optimize Tensors")
    if parameter.is_complex():
        raise ValueError(f"{name} is complex; CEGM takes real weights only, leave it to another optimizer")


def tensors_of(groups: Iterable[Group]) -> list[Tensor]:
    """The parameters of groups, with names or without; other things that a caller put there are not for here."""
    members = (member[1] if isinstance(member, tuple) else member for group in groups for member in group["params"])
    return [member for member in members if isinstance(member, Tensor)]


def require_same_layers(groups: Sequence[Group], saved_groups: Sequence[Group]) -> None:
    """Raises ValueError where an option that shaped the entanglement layers is not that of a checkpoint."""
    for group, saved in zip(groups, saved_groups, strict=False):
        for name in SHAPES_LAYERS if group["role"] == "matrix" else ():
            before = saved.get(name, RECOMMENDED.get(name, ""))
            if before != group[name] and (name != "normalize" or "product" in (before, group[name])):
                raise ValueError(
                    f"the checkpoint was made with {name}={before!r}, this optimizer has "
                    f"{name}={group[name]!r}; build it with the same option"
                )
