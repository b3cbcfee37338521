"""A model in shards (FSDP2), and its way to the files that a single process writes and reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.distributed.parallel_utils import replace_layer_number_by_wildcard

from cegm.sharding import whole


def shard(model: PreTrainedModel) -> None:
    """Spreads every weight of a model, the same on all processes, over them; a group for each block, one for what is outside of them."""
    kinds = model._no_split_modules or ()
    blocks = [name for name, module in model.named_modules() if type(module).__name__ in kinds]
    if not blocks:
        raise ValueError(
            f"{type(model).__name__} does not say what its blocks are, so it cannot be cut; use sharding=ddp"
        )
    # Not transformers' own plan: of GPT-2 it names no blocks, and it cuts embedding and head apart, which may be tied.
    plan = {replace_layer_number_by_wildcard(name): "free_full_weight" for name in blocks}
    setattr(model, "fsdp_plan", plan)  # noqa: B010  # its setter is hidden from type checkers
    model.register_state_dict_post_hook(_without_tied)  # type: ignore[no-untyped-call]
    config, _, mesh = model.prepare_distribute_model(DistributedConfig(fsdp_size=dist.get_world_size()))
    model.maybe_distribute_model(model, config, mesh)  # in place


def _without_tied(model: Any, weights: dict[str, Tensor], *_: Any) -> None:
    """Leaves tied weights out, as transformers does by where they lie in memory, which gathered ones share no more."""
    for name in model.all_tied_weights_keys:
        weights.pop(name, None)


def reshard(model: nn.Module) -> None:
    """Gives back the outermost weights, which stay whole after a forward pass that no backward pass follows."""
    if isinstance(model, FSDPModule):
        model.reshard()


def whole_state(optimizer: Optimizer, keep: bool) -> dict[str, Any]:
    """The state that one process would have, on the CPU. All processes have to ask; those that do not `keep` it get no tensors."""

    def gathered(held: Any) -> Any:
        if not isinstance(held, Tensor):
            return held
        full = whole(held)  # of uneven shards, a view of a padded storage, which a file would hold, too
        return full.cpu().clone() if keep else None

    state: dict[str, Any] = tree_map(gathered, optimizer.state_dict())
    return state


def load_weights(model: nn.Module, folder: Path) -> None:
    """Loads the safetensors of a folder, whole, into shards."""
    weights: dict[str, Any] = {
        name: weight for file in sorted(folder.glob("*.safetensors")) for name, weight in load_file(file).items()
    }
    # Not strict: of tied weights a file holds one.
    set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True, strict=False))


def load_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Loads what `whole_state` returned, or one process saved, into shards."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    shares = {number: _like(parameters[number], held) for number, held in state["state"].items()}
    optimizer.load_state_dict({**state, "state": shares})


def _like(parameter: Tensor, held: dict[str, Any]) -> dict[str, Any]:
    """State of a parameter: what has an entry for each of its own is cut as it is."""
    if not isinstance(parameter, DTensor):
        return held
    mesh, cut = parameter.device_mesh, parameter.placements
    return {
        name: distribute_tensor(value.to(parameter.device), mesh, cut)
        if isinstance(value, Tensor) and value.shape == parameter.shape
        else value
        for name, value in held.items()
    }
