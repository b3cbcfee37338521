"""`CEGM`: contextually entangled gradient mapping as a `torch.optim.Optimizer`.

`CEGM.step` is Algorithm 1 of the paper (arXiv 2502.00048), line by line; how each line is read is in docs/method.md.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.optimizer import ParamsT

from cegm.assignment import Assignment, Matrix, Role, stack
from cegm.auxiliary import adamw_step, follow_device, require_dense
from cegm.context.card import ContextCard
from cegm.diagnostics import diagnose
from cegm.factors import Factors
from cegm.grouped import GroupedByRole
from cegm.mapping.coefficient import FOLLOWS_LOSS, advance, observe
from cegm.mapping.normalize import layer_scale, normalize, polar_dtype
from cegm.mapping.spectrum import map_left, map_right
from cegm.moments import adam_directions, balanced, square
from cegm.momentum import entangle
from cegm.options import RECOMMENDED, OptionValues, Preset, named, resolve
from cegm.owners import Owners
from cegm.param_groups import Group, require_same_layers
from cegm.ranks import mean_over_ranks
from cegm.refresh import Contexts
from cegm.retained import Retention
from cegm.sharding import is_sharded

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CEGM(GroupedByRole):
    """Contextually entangled gradient mapping.

    Weights of linear layers follow Algorithm 1: momentum `G_t`, context `S_t` from the layer's inputs and `T_t` from
    its output gradients, map `E_t = Phi_q(T_t) G_t Phi_p(S_t)`, normalisation, step. Embeddings, output head, norms and
    biases follow AdamW. With `power = gradient_power = 0`, no row moment and no cautious decay it is
    `torch.optim.Muon`, bit for bit. With `normalize="product"` steps of LoRA factors depend on their product alone.

    Args:
        params: A model, then grouping and contexts are automatic; or anything torch accepts, with `model` supplying the
            contexts.
        lr: Learning rate, >= 0. With `layer_scale="match_adamw"` a rate tuned for AdamW carries over.
        model: Where `params` live, when `params` is no model. Without any model contexts cannot be seen: the base
            optimizer is left, and a warning says so.
        preset: `recommended` (what won the comparison), `paper` (the letter of Algorithm 1), `lite` (least memory),
            `finetune` (Adam's direction, for models that are trained already).
            Fills in every option below that is left at None; `repr(optimizer)` shows the result.
        retain: A context card (`cegm.card`, `cegm card`) or its path: steps keep away from what home contexts use, so that
            the model forgets less of what it knew. Adapters that have not begun are turned away from it, too.
        group_patterns: Ordered (shell pattern over parameter names, `matrix` or `adamw`) pairs that override the
            automatic roles.
        given: Any of the options in `cegm.options.OptionValues`, by name; docs/method.md has their table. Under a
            `GradScaler`, `recurrence` wants `watch_scaler`; `progress` and `plateau` want the loss, by `observe_loss`
            or a closure; `hierarchy` keeps output gradients until the backward pass has left the last sharer.

    Raises:
        ValueError: A value outside its range, a card of another model, a model without any matrix, a complex parameter, one that is sharded in
            another way than `fully_shard` does, patterns that match nothing, or `normalize="product"` without adapters.
        TypeError: `params` is not what torch accepts.
    """

    @named
    def __init__(
        self,
        params: ParamsT | nn.Module,
        lr: float = 3e-4,
        *,
        model: nn.Module | None = None,
        preset: Preset = "recommended",
        retain: ContextCard | str | Path | None = None,
        group_patterns: Sequence[tuple[str, Role]] = (),
        **given: Unpack[OptionValues],
    ) -> None:
        options = resolve(preset, {"lr": lr, **given})
        self.preset = preset
        root = params if isinstance(params, nn.Module) else model
        self._retention = None if retain is None else Retention(retain, root)
        options["retain"] = "" if self._retention is None else self._retention.card.hash
        self._assignments: dict[Tensor, Assignment] = {}
        self._owners = Owners(self._assignments)
        self._contexts = Contexts(self._assignments, self._owners)
        self._factors = Factors()
        super().__init__(params, model, options, group_patterns)
        if options["normalize"] == "product" and not self._factors:
            raise ValueError(
                "normalize='product' is for LoRA adapters, and no matrix here is one; pass model=, for rank 1 also "
                "group_patterns=[('*lora_*', 'matrix')], or use normalize='polar'"
            )
        if self._model is None:
            warnings.warn(
                "CEGM was given no model, so it cannot see contexts and works as its base optimizer; pass model=model",
                stacklevel=2,
            )
        if self._retention is not None:
            self._retention.begin_adapters(self.matrices(), options)

    def _begin_watching(self, parameters: Sequence[Tensor], group: Group) -> None:
        if group["role"] != "matrix" or not parameters:
            return
        self._owners.add(parameters)
        if self._retention is not None:
            self._retention.require_known(self._assignments[p] for p in parameters)
        model = None if self._model is None else self._model.model()
        if group["normalize"] == "product" and model is not None:
            self._factors.add(model, parameters)
        if group["power"] or group["gradient_power"]:
            for parameter in parameters:
                self._contexts.watch(parameter, self.options_of(parameter, group))
            self._contexts.arm(self.state, self.param_groups)

    def _end_watching(self, parameter: Tensor) -> None:
        self._contexts.forget(parameter)
        self._factors.forget(parameter)

    def _join(self, parameters: Sequence[Tensor]) -> None:
        super()._join(parameters)
        self._contexts.begin_late(parameters)

    # ------------------------------------------------------------------ Algorithm 1

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One training step, lines 6 to 12 of Algorithm 1.

        Args:
            closure: Recomputes the loss and its gradients, as torch defines it; its loss feeds the coefficient
                controller.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            self.observe_loss(loss)
        self._require_present()
        self._follow_model()
        self._contexts.learn(self.state)
        if self.refreshing:
            self._contexts.refresh(self.state, self.param_groups)  # line 8
        self._factors.measure(self.param_groups)
        for group in self.param_groups:
            if group["role"] == "adamw":
                adamw_step(group, self.state, self._assignments)
                continue
            gradients = self._owners.gradients(group["params"])
            self._begin(gradients)
            moved = self._pulled_weights(group)
            for matrices in self.equal_shapes(gradients):
                gradient = stack(matrices, gradients)  # line 6, (matrices, outputs, inputs)
                self._compare(gradient, matrices, group)  # for line 12
                if group["normalize"] == "adam":
                    square(self.state, gradient, matrices, group["aux_betas"][1])  # for line 10
                if group["map_first"]:
                    mapped = entangle(self.state, self._map(gradient, matrices), matrices, group)  # line 9, then line 7
                else:
                    entangled = entangle(self.state, gradient, matrices, group)  # line 7
                    mapped = self._map(entangled, matrices)  # line 9
                _, direction = self.direct(mapped, matrices, group, group["aux_betas"][1])  # line 10
                direction = self._pull(direction, moved, matrices, group)  # and back along them
                if not self._owners.keep(direction, matrices):
                    weights = [m.view(m.assignment.parameter) for m in matrices]
                    self._update(weights, list(direction), matrices[0].shape, group)  # line 11
            for matrix, weight, direction in self._owners.deliver(group["params"]):
                self._update([weight], [direction], matrix.shape, group)  # line 11 for shards
        self._adjust_coefficients()  # line 12
        self._contexts.arm(self.state, self.param_groups)
        return loss

    def _require_present(self) -> None:
        """Raises ValueError where the model's weights are others than when the optimizer was built."""
        for parameter in (p for group in self.param_groups for p in group["params"] if p.grad is None):
            assignment = self._assignments.get(parameter)
            places = () if assignment is None or is_sharded(parameter) else assignment.places
            if assignment is None or any(is_sharded(place.weight()) for place in places):
                name = "a weight" if assignment is None else assignment.name
                raise ValueError(f"{name} was replaced after CEGM was built; build it after fully_shard(model)")

    def _begin(self, gradients: dict[Tensor, Tensor]) -> None:
        """Raises RuntimeError for gradients that cannot be taken, and gives each weight that has none a momentum of zeros."""
        for parameter, gradient in gradients.items():
            if parameter.ndim > 2 and not parameter.is_contiguous():
                raise RuntimeError(
                    f"{self._assignments[parameter].name} left contiguous memory; build CEGM after model.to(memory_format=...)"
                )
            require_dense(self._assignments[parameter].name, gradient)
            state = self.state[parameter]
            follow_device(state, "momentum", parameter)
            if "momentum" not in state:
                layout = torch.contiguous_format if parameter.ndim > 2 else torch.preserve_format
                state["momentum"] = torch.zeros_like(gradient, memory_format=layout)  # G_0 = 0, line 2

    def equal_shapes(self, gradients: dict[Tensor, Tensor]) -> list[list[Matrix]]:
        """The weights that have a gradient here and a momentum, batched by shape; experts that no token reached have none."""
        batches: dict[tuple[Any, ...], list[Matrix]] = defaultdict(list)
        for parameter, gradient in gradients.items():
            state = self.state.get(parameter, {})
            if "momentum" not in state:
                continue
            assignment = self._assignments[parameter]
            reached = gradient.flatten(1).any(dim=1).tolist() if assignment.experts > 1 else [True]
            for matrix in assignment.matrices():
                if reached[matrix.expert]:
                    maps = tuple(state[key].shape[-1] if key in state else 0 for key in ("context_map", "demand_map"))
                    side = self._factors.side(parameter)
                    batches[(*matrix.shape, *maps, side, parameter.dtype, parameter.device)].append(matrix)
        return list(batches.values())

    def _map(self, entangled: Tensor, matrices: list[Matrix]) -> Tensor:
        """Line 9: `E_t = Phi_q(T_t) G_t Phi_p(S_t)^T`."""
        state = self.state[matrices[0].assignment.parameter]
        if "context_map" in state:
            maps = torch.stack([m.context_blocks(self.state[m.assignment.parameter]["context_map"]) for m in matrices])
            entangled = map_right(entangled.float(), maps)
        if "demand_map" in state:
            maps = torch.stack([m.demand_blocks(self.state[m.assignment.parameter]["demand_map"]) for m in matrices])
            entangled = map_left(entangled.float(), maps)
        return entangled

    def direct(
        self, mapped: Tensor, matrices: list[Matrix], group: dict[str, Any], decay: float
    ) -> tuple[Tensor, Tensor]:
        """Line 10, of LoRA factors as a step of their product: the direction before it is turned away from home contexts, and after."""
        normalized = self._normalize(self._factors.into(mapped, matrices), matrices, group, decay)
        return normalized, self._factors.back(self._retain(normalized, matrices, group), matrices)

    def _normalize(self, mapped: Tensor, matrices: list[Matrix], group: dict[str, Any], decay: float) -> Tensor:
        """Line 10, and the row moment after it, which keeps `decay` of its past; 1 leaves it as it is."""
        if group["normalize"] == "adam":
            direction = adam_directions(self.state, mapped, matrices, group)
        else:
            direction = normalize(mapped, group["normalize"], group["eps"], polar_dtype(group, mapped.device))
        if self.options_of(matrices[0].assignment.parameter, group)["row_moment"]:
            direction = balanced(self.state, direction, matrices, decay, group["eps"])
        return direction

    def _retain(self, direction: Tensor, matrices: list[Matrix], group: dict[str, Any]) -> Tensor:
        """After line 10: `E^ <- Tq(T) E^ Phi(S)` over home contexts, at the norm it had."""
        return direction if self._retention is None else self._retention.turned(direction, matrices, group)

    def _pulled_weights(self, group: dict[str, Any]) -> dict[Tensor, Tensor]:
        """Whole weights that retention pulls back; where they are before their first step is kept as where they began."""
        if self._retention is None or not group["retain_pull"]:
            return {}
        weights = self._owners.wholes({p: p.detach() for p in group["params"] if p.grad is not None})
        for parameter, weight in weights.items():
            if "beginning" not in self.state[parameter]:
                self.state[parameter]["beginning"] = weight.clone()
        return weights

    def _pull(
        self, direction: Tensor, weights: dict[Tensor, Tensor], matrices: list[Matrix], group: dict[str, Any]
    ) -> Tensor:
        """After that: `E^ <- E^ + k (W - W0) S`, decoupled from line 10 and from the layer scale as weight decay is."""
        if self._retention is None or not weights:
            return direction
        beginnings = {p: self.state[p]["beginning"] for p in weights}
        deviation = stack(matrices, weights).float() - stack(matrices, beginnings).float()
        pulled = self._retention.pulled(deviation, matrices, group)
        return direction.float() + pulled / layer_scale(group, *matrices[0].shape)

    def _update(
        self, weights: list[Tensor], directions: list[Tensor], shape: tuple[int, int], group: dict[str, Any]
    ) -> None:
        """Line 11: `W -= h E^` with the scale of a layer of this shape, after decoupled weight decay."""
        lr = float(group["lr"])
        if group["cautious"]:
            agrees = [(d * w > 0).to(w.dtype) for d, w in zip(directions, weights, strict=True)]
            for weight, mask in zip(weights, agrees, strict=True):
                weight.mul_(1.0 - lr * group["weight_decay"] * mask)
        else:
            torch._foreach_mul_(weights, 1.0 - lr * group["weight_decay"])
        torch._foreach_add_(weights, directions, alpha=-lr * layer_scale(group, *shape))

    # ------------------------------------------------------------------ contexts

    @property
    def refreshing(self) -> bool:
        """Whether the step that is being accumulated now records contexts."""
        return self._contexts.recording

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears gradients, and with them contexts of a step that was given up.

        `model.zero_grad()` knows no optimizer. After it a layer sees, at its next forward pass, that the gradient its
        contexts belong to is gone, and forgets them. Under `torch.compile`, or with `set_to_none=False`, it cannot see
        that: there, give a step up by this method.
        """
        super().zero_grad(set_to_none)
        self._contexts.clear()

    def watch_scaler(self, scaler: GradScaler) -> None:
        """Takes the factor of a `GradScaler` out of the output gradients that contexts keep.

        It matters under `recurrence` alone: without it a context map does not depend on the scale. With it, `T_t` would
        weigh steps by the square of their factor, which changes while training.
        """
        self._contexts.scaler = scaler

    # ------------------------------------------------------------------ entanglement coefficient (line 12)

    def observe_loss(self, loss: float | Tensor) -> None:
        """Tells the coefficient controllers that follow it the loss of this step; a loss that is not finite tells them nothing.

        Every data-parallel process has to call it; the mean over processes counts, so that all keep the same coefficient.
        """
        groups = [g for g in self.param_groups if g["role"] == "matrix" and g["coefficient"] in FOLLOWS_LOSS]
        value = mean_over_ranks(float(torch.as_tensor(loss).detach())) if groups else math.nan
        if not math.isfinite(value):
            return
        for group in groups:
            observe(group, value)

    def await_loss(self) -> None:
        """Lets the coefficients that follow the loss stand still until `observe_loss` tells the first one."""
        for group in self.param_groups:
            group["awaits_loss"] = True

    def _compare(self, gradient: Tensor, matrices: list[Matrix], group: dict[str, Any]) -> None:
        """Adds up how far the new gradient agrees with the last mapped one, which `hypergradient` follows."""
        if group["coefficient"] != "hypergradient":
            return
        last = torch.stack([m.view(self.state[m.assignment.parameter]["momentum"]) for m in matrices])
        last = last if group["map_first"] else self._map(last, matrices)
        group["agreement"] = group["agreement"] + (gradient.float() * last.float()).sum()

    def _adjust_coefficients(self) -> None:
        for group in self.param_groups:
            group["steps"] += 1
            if group["role"] == "matrix" and group["coefficient"] != "constant":
                if group["coefficient"] == "hypergradient":
                    group["agreement"] = self._owners.total(group["agreement"])
                advance(group)

    # ------------------------------------------------------------------ state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """After a copy or a load: options from before which a state comes are off, and layers record when due."""
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in {**RECOMMENDED, "retain": ""}.items():
                group.setdefault(name, value)
        self._owners.take(self.state)
        self._contexts.learn(self.state)
        self._contexts.arm(self.state, self.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """As torch's. What owners of sharded weights keep is told to all ranks as DTensors, so all of them have to call it."""
        kept, self.state = self.state, cast(Any, self._owners.shared(self.state))
        try:
            return super().state_dict()
        finally:
            self.state = kept

    def _require_loadable(self, state_dict: dict[str, Any]) -> None:
        require_same_layers(self.param_groups, state_dict["param_groups"])

    def _restore(self, saved: dict[str, Any]) -> None:
        super()._restore(saved)
        self._owners.take(self.state)
        self._contexts.learn(self.state)
        self._contexts.arm(self.state, self.param_groups)  # its guides are tensors of the state

    # ------------------------------------------------------------------ what a person sees

    def options_of(self, parameter: Tensor, group: Group) -> Mapping[str, Any]:
        """Options of a group as they hold for one of its weights: a LoRA factor may do without some (`normalize="product"`)."""
        return self._factors.options(parameter, group)

    def diagnostics(self) -> dict[str, dict[str, float]]:
        """Per layer, how its context shaped its last gradient; changes nothing. See `cegm.diagnostics.diagnose`."""
        return diagnose(self)

    def __repr__(self) -> str:
        options = "\n".join(f"    {name}: {self.defaults[name]}" for name in sorted(self.defaults))
        return f"{type(self).__name__} (\n    preset: {self.preset}\n{options}\n)"
