"""From what the caller hands over to the groups of the optimizer: each of the caller's groups split by role, with its options."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, cast

from torch import Tensor
from torch.optim.optimizer import ParamsT

from cegm.groups import Assignment, assign_without_model
from cegm.mapping.coefficient import INITIAL
from cegm.options import check
from cegm.sharding import is_sharded, mesh_of

Group = dict[str, Any]


def by_role(
    params: ParamsT, options: Mapping[str, Any], assignments: MutableMapping[Tensor, Assignment]
) -> list[Group]:
    """Splits each of the caller's groups by role.

    Args:
        params: What torch accepts: tensors, named tensors, or groups of either.
        options: For what a group does not say itself.
        assignments: What is known of each parameter; those without a model are added.

    Raises:
        TypeError: Something that torch does not accept.
        ValueError: No parameters, or one that cannot be used.
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
    return [part for index, group in enumerate(groups) for part in split(group, index, options, assignments)]


def split(
    group: Group, index: int, options: Mapping[str, Any], assignments: MutableMapping[Tensor, Assignment]
) -> list[Group]:
    """One group of the caller as up to three; vectors are kept apart because they have no weight decay."""
    parts: dict[str, list[Any]] = defaultdict(list)
    for position, member in enumerate(_members(group["params"])):
        name, parameter = member if isinstance(member, tuple) else (f"group {index}, parameter {position}", member)
        _require_usable(name, parameter)
        assignment = assignments.setdefault(parameter, assign_without_model(name, parameter))
        if is_sharded(parameter):
            mesh_of(assignment.name, parameter)  # refuses cuts that cannot be followed
        role = group.get("role", assignment.role)
        parts[role if role == "matrix" or parameter.ndim > 1 else "vector"].append(member)
    return [_part(kind, parts[kind], group, options) for kind in ("matrix", "adamw", "vector") if parts[kind]]


def _part(kind: str, members: list[Any], group: Group, options: Mapping[str, Any]) -> Group:
    part = {"role": "adamw" if kind == "vector" else kind, "steps": 0, **group, "params": members}
    rate = options["lr"] if kind == "matrix" or options["aux_lr"] is None else options["aux_lr"]
    part.setdefault("lr", rate)
    if isinstance(part["lr"], Tensor):  # schedulers write into it, and no other group's may change with it
        part["lr"] = part["lr"].detach().clone()
    if kind == "matrix":
        part.update(INITIAL)
        merged = {**options, **part}
        check(merged)
        if merged["coefficient"] == "cosine":
            part["entanglement"] = merged["coefficient_range"][1]
        return part
    decay = options["weight_decay"] if options["aux_weight_decay"] is None else options["aux_weight_decay"]
    part.setdefault("weight_decay", 0.0 if kind == "vector" else decay)
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
