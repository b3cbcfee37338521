"""`CEGM`: contextually entangled gradient mapping as a `torch.optim.Optimizer`.

`CEGM.step` is Algorithm 1 of the paper (arXiv 2502.00048), line by line; how each line is read is in docs/method.md.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.adamw import adamw
from torch.optim.optimizer import ParamsT

from cegm.context.scores import Scores
from cegm.followed_model import FollowedModel
from cegm.groups import UNTOLD, Assignment, Matrix, Role, table
from cegm.mapping.coefficient import FOLLOWS_LOSS, Coefficient, advance, observe
from cegm.mapping.normalize import Normalize, balance_rows, effective_ranks, frobenius_norms, normalize
from cegm.mapping.spectrum import map_left, map_right
from cegm.options import RECOMMENDED, Hierarchy, LayerScale, Precision, Preset, polar_dtype, resolve
from cegm.owners import Owners
from cegm.param_groups import KINDS, Group, by_role, kind_of, listed, split
from cegm.refresh import Contexts, mean_over_ranks
from cegm.roles import assign
from cegm.sharding import is_sharded, local
from cegm.state import WholeState

ADAMW_EPS = 1e-8

SHAPES_LAYERS = ("power", "gradient_power", "scores", "exclude_sink", "hierarchy", "heads")
"""Options that decide what a layer records."""

STAGES = ("gradient", "mapped", "update")
"""What a gradient is on its way to the weight: as it came, after lines 7 and 9, after line 10."""


class CEGM(WholeState):
    """Contextually entangled gradient mapping.

    Weights of linear layers follow Algorithm 1: momentum `G_t`, context `S_t` from the layer's inputs and `T_t` from
    its output gradients, map `E_t = Phi_q(T_t) G_t Phi_p(S_t)`, normalisation, step. Embeddings, output head, norms and
    biases follow AdamW. With `power = gradient_power = 0`, no row moment and no cautious decay it is
    `torch.optim.Muon`, bit for bit.

    Args:
        params: A model, then grouping and contexts are automatic; or anything torch accepts, with `model` supplying the
            contexts.
        lr: Learning rate, >= 0. With `layer_scale="match_adamw"` a rate tuned for AdamW carries over.
        model: Where `params` live, when `params` is no model. Without any model contexts cannot be seen: the base
            optimizer is left, and a warning says so.
        preset: `recommended` (what won the comparison), `paper` (the letter of Algorithm 1), `lite` (least memory).
            Fills in every option below that is left at None; `repr(optimizer)` shows the result.
        weight_decay: Decoupled weight decay of matrices, >= 0, multiplied by lr.
        cautious: Decay a weight only where the step shrinks it too (arXiv 2510.12402).
        entanglement: Entanglement coefficient `l` in (0, 1], line 7: the weight of the newest gradient. Muon's momentum
            .95 is .05.
        nesterov: Look ahead: use `l G + (1 - l) G_t` in place of `G_t`.
        scores: Context scores `f` of line 8: `uniform`, `attention` (of each context against the layer's summary of
            earlier ones), `gradient` (log |d_i|^2), `alignment` (with the entangled gradient), and the controls
            `random` and `shuffled`; see `cegm.context.scores`.
        exclude_sink: Give the first position of each row no weight.
        hierarchy: Who shares scores: each `layer` has its own, the layers of a `block` or of the `model` share the mean
            of their log-scores. Sharing keeps the output gradients of all sharers until the backward pass has left the
            last of them, on steps that record; it breaks a `torch.compile` graph at each layer.
        heads: Blocks into which inputs and outputs are split; divides both. None: the widest that
            `cegm.options.CONTEXT_BYTES_PER_WEIGHT` leaves room for.
        recurrence: `r` in [0, 1) *per step*; a refresh after k steps keeps `r^k` of the past. With a `GradScaler` call
            `watch_scaler` too.
        refresh_every: Steps between two looks at the contexts, >= 1; the other steps record nothing.
        power: `p` of the context map over the inputs. 0 switches it off, +1 is the paper's.
        gradient_power: `q` of the context map over the output gradients.
        damping: `e` >= 0 in `(S/s + e I)^p`, relative to the mean eigenvalue.
        map_first: Map each gradient before it enters the momentum (line 9 before line 7).
        flow_time: `Dt` >= 0 of the flow `dG/dt = G (g Phi - d I)` in place of the product with `Phi`; 0 switches it off.
            Under `polar` and `frobenius` only the product `Dt g` matters.
        flow_gain: `g` >= 0.
        flow_decay: `d`; the flow is refused where `g rho(Phi) >= d`.
        normalize: Line 10: `polar`, `spectral`, `frobenius` or `none`.
        row_moment: Divide output rows by their running root mean square after line 10 (NorMuon, arXiv 2510.05491).
        layer_scale: `match_adamw` (.2 sqrt(max(m, n))), `spectral` (sqrt(max(1, m/n))) or `none`.
        coefficient: Line 12: `constant`; `progress` (follows the smoothed loss); `plateau` (falls when the smoothed loss
            stands still); both need the loss, by `observe_loss` or a closure; `cosine` (falls over
            `coefficient_period`, from the upper bound of the range to the lower, whatever `entanglement` says);
            `hypergradient` (rises while the group's new gradients agree with its last mapped ones).
        coefficient_step: `Dl` of line 12, in [0, 1].
        coefficient_range: Bounds of `l`.
        coefficient_period: Steps in which `cosine` goes from the upper bound to the lower.
        precision: Of the polar iteration: `auto`, `bfloat16` or `float32`; see `cegm.options.polar_dtype`.
        aux_lr: Learning rate of the AdamW part; None: `lr`.
        aux_betas: Its betas; the second is also the decay of the row moment.
        aux_weight_decay: Its weight decay on embeddings and head (vectors have none); None: `weight_decay`.
        eps: Smallest norm that is divided by, in [0, 1].
        group_patterns: Ordered (shell pattern over parameter names, `matrix` or `adamw`) pairs that override the
            automatic roles.

    Raises:
        ValueError: A value outside its range, a model without any matrix, a complex parameter, one that is sharded in
            another way than `fully_shard` does, or patterns that match nothing.
        TypeError: `params` is not what torch accepts.
    """

    def __init__(
        self,
        params: ParamsT | nn.Module,
        lr: float = 3e-4,
        *,
        model: nn.Module | None = None,
        preset: Preset = "recommended",
        weight_decay: float | None = None,
        cautious: bool | None = None,
        entanglement: float | None = None,
        nesterov: bool | None = None,
        scores: Scores | None = None,
        exclude_sink: bool | None = None,
        hierarchy: Hierarchy | None = None,
        heads: int | None = None,
        recurrence: float | None = None,
        refresh_every: int | None = None,
        power: float | None = None,
        gradient_power: float | None = None,
        damping: float | None = None,
        map_first: bool | None = None,
        flow_time: float | None = None,
        flow_gain: float | None = None,
        flow_decay: float | None = None,
        normalize: Normalize | None = None,
        row_moment: bool | None = None,
        layer_scale: LayerScale | None = None,
        coefficient: Coefficient | None = None,
        coefficient_step: float | None = None,
        coefficient_range: tuple[float, float] | None = None,
        coefficient_period: int | None = None,
        precision: Precision | None = None,
        aux_lr: float | None = None,
        aux_betas: tuple[float, float] | None = None,
        aux_weight_decay: float | None = None,
        eps: float | None = None,
        group_patterns: Sequence[tuple[str, Role]] = (),
    ) -> None:
        given = {name: value for name, value in locals().items() if name in _OPTION_NAMES}
        options = resolve(preset, given)
        self.preset = preset
        self._takes_all = isinstance(params, nn.Module)
        if isinstance(params, nn.Module):
            model, params = params, [{"params": [p for p in params.parameters() if p.requires_grad]}]
        if model is None and group_patterns:
            raise ValueError("group_patterns need the names of a model; pass model=")
        groups = listed(params)
        trained = set(_tensors(groups))
        frozen = set(model.parameters()) - trained if model is not None and self._takes_all else set()
        assignments = [] if model is None else assign(model, group_patterns, trained | frozen)
        self._assignments: dict[Tensor, Assignment] = {a.parameter: a for a in assignments}
        self._model = None if model is None else FollowedModel(model, tuple(group_patterns), trained)
        self._owners = Owners(self._assignments)
        self._contexts = Contexts(self._assignments, self._owners)
        # torch's distributed checkpoints know no groups without parameters
        awaited = {kind_of(self._assignments[p]) for p in frozen} if not any(map(is_sharded, trained)) else set()
        super().__init__(by_role(groups, options, self._assignments, awaited), options)
        self._require_known(self.param_groups)
        self._require_matrices()
        if model is None:
            warnings.warn(
                "CEGM was given no model, so it cannot see contexts and works as its base optimizer; pass model=model",
                stacklevel=2,
            )

    # ------------------------------------------------------------------ groups

    def _require_matrices(self) -> None:
        if any(group["role"] == "matrix" and group["params"] for group in self.param_groups):
            return
        trained = [self._assignments[p] for p in _tensors(self.param_groups)]
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
        unknown = [self._assignments[p] for group in groups for p in _tensors([group])]
        for assignment in unknown if self._model is not None else ():
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
        self._look_at_model(set(_tensors([group])))
        parts = split(group, len(self.param_groups), self.defaults, self._assignments)
        self._require_known(parts)
        for part in parts:
            self._add(part)

    def _add(self, part: dict[str, Any]) -> None:
        super().add_param_group(part)
        group = self.param_groups[-1]
        self._require_alike()
        self._watch(group["params"], group)

    def _watch(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        if group["role"] != "matrix" or not parameters:
            return
        self._owners.add(parameters)
        if group["power"] or group["gradient_power"]:
            for parameter in parameters:
                self._contexts.watch(parameter, group)
            self._contexts.arm(self.state, self.param_groups)

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
        grouped = _tensors(self.param_groups)
        if self._model is None or not self._model.may_have_changed(grouped):
            return
        new, gone, reshaped = self._model.changes(grouped)
        if not self._takes_all:
            self._refuse(new, reshaped)
        elif new or reshaped:
            self._leave([*gone, *reshaped])
            self._look_at_model()
            self._join([*new, *reshaped])
            self._tell(new, "became trainable after CEGM was built", "they have joined its groups")
            self._tell(reshaped, "got another shape after CEGM was built", "their statistics begin anew")
        self._warn_idle(grouped)

    def _leave(self, parameters: Iterable[Tensor]) -> None:
        """Forgets weights: their groups, their state, what is known of them."""
        for parameter in parameters:
            self._contexts.forget(parameter)
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
                self._watch(joining, group)
        self._contexts.begin_late(parameters)

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

    def _warn_idle(self, grouped: Iterable[Tensor]) -> None:
        """Says that there is nothing to train any more, because the model is gone."""
        assert self._model is not None
        if self._model.model() is None and all(p.grad is None for p in grouped):
            warnings.warn(
                "no weight of this optimizer has a gradient, and the model that CEGM was given is gone; build it again for the new one",
                stacklevel=5,
            )
            self._model = None

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
        if self.refreshing:
            self._contexts.refresh(self.state, self.param_groups)  # line 8
        for group in self.param_groups:
            if group["role"] == "adamw":
                self._adamw(group)
                continue
            gradients = self._owners.gradients(group["params"])
            self._begin(gradients)
            for matrices in self._equal_shapes(gradients):
                gradient = _stack(matrices, gradients)  # line 6, (matrices, outputs, inputs)
                self._compare(gradient, matrices, group)  # for line 12
                if group["map_first"]:
                    mapped = self._entangle(self._map(gradient, matrices), matrices, group)  # line 9, then line 7
                else:
                    entangled = self._entangle(gradient, matrices, group)  # line 7
                    mapped = self._map(entangled, matrices)  # line 9
                direction = self._normalize(mapped, matrices, group, group["aux_betas"][1])  # line 10
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
            self._require_dense(parameter, gradient)
            state = self.state[parameter]
            _follow_device(state, "momentum", parameter)
            if "momentum" not in state:
                layout = torch.contiguous_format if parameter.ndim > 2 else torch.preserve_format
                state["momentum"] = torch.zeros_like(gradient, memory_format=layout)  # G_0 = 0, line 2

    def _require_dense(self, parameter: Tensor, gradient: Tensor) -> None:
        if gradient.layout != torch.strided:
            raise RuntimeError(
                f"{self._assignments[parameter].name} has a sparse gradient; give its layer sparse=False, or leave it to another optimizer"
            )

    def _equal_shapes(self, gradients: dict[Tensor, Tensor]) -> list[list[Matrix]]:
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
                    batches[(*matrix.shape, *maps, parameter.dtype, parameter.device)].append(matrix)
        return list(batches.values())

    def _entangle(self, gradient: Tensor, matrices: list[Matrix], group: dict[str, Any]) -> Tensor:
        """Line 7: `G_t = l G + (1 - l) G_{t-1}`, with the Nesterov look-ahead `l G + (1 - l) G_t` if asked for."""
        coefficient = group["entanglement"]
        momenta = [m.view(self.state[m.assignment.parameter]["momentum"]) for m in matrices]
        torch._foreach_lerp_(momenta, list(gradient.to(momenta[0].dtype)), coefficient)
        entangled = torch.stack(momenta)
        return (
            torch.lerp(gradient.to(entangled.dtype), entangled, 1.0 - coefficient) if group["nesterov"] else entangled
        )

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

    def _normalize(self, mapped: Tensor, matrices: list[Matrix], group: dict[str, Any], decay: float) -> Tensor:
        """Line 10, and the row moment after it, which keeps `decay` of its past; 1 leaves it as it is."""
        direction = normalize(mapped, group["normalize"], group["eps"], polar_dtype(group, mapped.device))
        if group["row_moment"]:
            moments = [self._row_moment(matrix) for matrix in matrices]
            stacked = torch.stack(moments)  # (matrices, outputs, 1)
            direction = balance_rows(direction.float(), stacked, decay, group["eps"])
            torch._foreach_copy_(moments, list(stacked))
        return direction

    def _row_moment(self, matrix: Matrix) -> Tensor:
        assignment, state = matrix.assignment, self.state[matrix.assignment.parameter]
        if "row_moment" not in state:
            rows = assignment.experts * assignment.height
            state["row_moment"] = torch.zeros(rows, 1, device=assignment.parameter.device)
        return matrix.rows(state["row_moment"])

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
        torch._foreach_add_(weights, directions, alpha=-lr * _layer_scale(group["layer_scale"], *shape))

    def _adamw(self, group: dict[str, Any]) -> None:
        """Everything that meets no context: torch's AdamW, on the shard of this rank."""
        parameters = [p for p in group["params"] if p.grad is not None]
        for parameter in parameters:
            self._require_dense(parameter, cast(Tensor, parameter.grad))
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            _follow_device(state, "exp_avg", parameter)
            if state["exp_avg"].dtype != parameter.dtype:
                state.update({name: state[name].to(parameter.dtype) for name in ("exp_avg", "exp_avg_sq")})
        if not parameters:
            return
        states = [self.state[p] for p in parameters]
        beta1, beta2 = group["aux_betas"]
        adamw(
            [local(p) for p in parameters],
            [local(cast(Tensor, p.grad)) for p in parameters],
            [local(s["exp_avg"]) for s in states],
            [local(s["exp_avg_sq"]) for s in states],
            [],
            [s["step"] for s in states],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=float(group["lr"]),
            weight_decay=group["weight_decay"],
            eps=ADAMW_EPS,
            maximize=False,
        )

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
            for name, value in RECOMMENDED.items():
                group.setdefault(name, value)
        self._owners.take(self.state)
        self._contexts.arm(self.state, self.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """As torch's. What owners of sharded weights keep is told to all ranks as DTensors, so all of them have to call it."""
        kept, self.state = self.state, cast(Any, self._owners.shared(self.state))
        try:
            return super().state_dict()
        finally:
            self.state = kept

    def _require_loadable(self, state_dict: dict[str, Any]) -> None:
        self._require_same_layers(state_dict["param_groups"])

    def _restore(self, saved: dict[str, Any]) -> None:
        super()._restore(saved)
        self._owners.take(self.state)
        self._contexts.arm(self.state, self.param_groups)  # its guides are tensors of the state

    def _require_same_layers(self, saved_groups: list[dict[str, Any]]) -> None:
        """Options that shaped the entanglement layers cannot change with a checkpoint."""
        for group, saved in zip(self.param_groups, saved_groups, strict=False):
            for name in SHAPES_LAYERS if group["role"] == "matrix" else ():
                if saved.get(name, RECOMMENDED[name]) != group[name]:
                    raise ValueError(
                        f"the checkpoint was made with {name}={saved.get(name, RECOMMENDED[name])!r}, this optimizer has "
                        f"{name}={group[name]!r}; build it with the same option"
                    )

    # ------------------------------------------------------------------ what a person sees

    def matrices(self) -> list[Assignment]:
        """The parameters that follow Algorithm 1, with their layers; `Assignment.matrices()` takes fused ones apart."""
        return [
            self._assignments[p] for group in self.param_groups if group["role"] == "matrix" for p in group["params"]
        ]

    def summary(self) -> str:
        """The group table: which parameter is updated how, and why."""
        members = [self._assignments[p] for group in self.param_groups for p in group["params"]]
        return table(members)

    @torch.no_grad()
    def diagnostics(self) -> dict[str, dict[str, float]]:
        """Per layer, how its context shaped its last gradient; changes nothing.

        Call it after `step()` and before `zero_grad()`; of a sharded model on all ranks, each of which gets the whole. Weights
        that have never moved are left out.

        Returns:
            For each weight of Algorithm 1, by name in the model's order: `gradient_norm` (Frobenius), `update_to_weight` (root mean square
            of the last step over that of the weight), `context_rank` and `gradient_context_rank` (effective rank of
            `S_t` and `T_t`, NaN without), `cosine` (between `G_t` and the mapped gradient `E_t`, NaN where that is zero),
            `entanglement` (the coefficient). Effective ranks, the participation ratio of squared singular values, of what a gradient is on
            its way to the weight: `gradient_rank` (the raw gradient `G`), `mapped_rank` (`E_t`, after momentum and map),
            `update_rank` (the direction the weight moved in); NaN where it is zero.
        """
        report: dict[str, dict[str, float]] = {}
        for group in self.param_groups:
            if group["role"] == "matrix":
                gradients = self._owners.gradients(group["params"])
                weights = self._owners.wholes({p: p.data for p in group["params"] if p.grad is not None})
                for matrices in self._equal_shapes(gradients):
                    self._diagnose(matrices, gradients, weights, group, report)
        report = {name: entry for each in self._owners.exchange_objects(report) for name, entry in each.items()}
        ordered = [matrix.name for assignment in self.matrices() for matrix in assignment.matrices()]
        return {name: report[name] for name in ordered if name in report}

    def _diagnose(
        self,
        matrices: list[Matrix],
        gradients: dict[Tensor, Tensor],
        values: dict[Tensor, Tensor],
        group: dict[str, Any],
        report: dict[str, dict[str, float]],
    ) -> None:
        gradient = _stack(matrices, gradients)
        if group["map_first"]:
            given, turned = gradient, self._map(gradient, matrices)
            mapped = self._entangled(turned, matrices, group)
        else:
            given = self._entangled(gradient, matrices, group)
            turned = mapped = self._map(given, matrices)
        cosines = torch.nn.functional.cosine_similarity(given.float().flatten(1), turned.float().flatten(1))
        cosines[frobenius_norms(turned.float()).flatten() == 0] = math.nan
        direction = self._normalize(mapped, matrices, group, decay=1.0).float()
        sizes = (
            frobenius_norms(direction).flatten()
            * float(group["lr"])
            * _layer_scale(group["layer_scale"], *matrices[0].shape)
        )
        norms = frobenius_norms(gradient.float()).flatten()
        weights = frobenius_norms(_stack(matrices, values).float()).flatten()
        ranks = [effective_ranks(each.float()).tolist() for each in (gradient, mapped, direction)]
        for index, matrix in enumerate(matrices):
            state = self.state[matrix.assignment.parameter]
            report[matrix.name] = {
                "gradient_norm": float(norms[index]),
                "update_to_weight": float(sizes[index] / weights[index].clamp_min(group["eps"])),
                "context_rank": _of_expert(state, "context_rank", matrix),
                "gradient_context_rank": _of_expert(state, "demand_rank", matrix),
                "cosine": float(cosines[index]),
                "entanglement": group["entanglement"],
                **{f"{stage}_rank": rank[index] for stage, rank in zip(STAGES, ranks, strict=True)},
            }

    def _entangled(self, gradient: Tensor, matrices: list[Matrix], group: dict[str, Any]) -> Tensor:
        """What line 7 made of the last gradient, from the momentum that it left."""
        momentum = torch.stack([m.view(self.state[m.assignment.parameter]["momentum"]) for m in matrices])
        return (
            torch.lerp(gradient.to(momentum.dtype), momentum, 1.0 - group["entanglement"])
            if group["nesterov"]
            else momentum
        )

    def __repr__(self) -> str:
        options = "\n".join(f"    {name}: {self.defaults[name]}" for name in sorted(self.defaults))
        return f"{type(self).__name__} (\n    preset: {self.preset}\n{options}\n)"


_OPTION_NAMES = frozenset(CEGM.__init__.__annotations__) - {"params", "model", "preset", "group_patterns", "return"}


def _tensors(groups: Iterable[Group]) -> list[Tensor]:
    """The parameters of groups, with names or without; other things that a caller put there are not for here."""
    members = (member[1] if isinstance(member, tuple) else member for group in groups for member in group["params"])
    return [member for member in members if isinstance(member, Tensor)]


def _stack(matrices: list[Matrix], tensors: dict[Tensor, Tensor]) -> Tensor:
    """Gradients or weights of equal shape, given by parameter, as one tensor, (matrices, outputs, inputs)."""
    return torch.stack([m.view(tensors[m.assignment.parameter]) for m in matrices])


def _follow_device(state: dict[str, Any], key: str, parameter: Tensor) -> None:
    """Moves what lies beside `state[key]` to where the weight is now; counters stay where torch keeps them."""
    device = state[key].device if key in state else parameter.device
    if device != parameter.device:
        for name, value in state.items():
            if isinstance(value, Tensor) and value.device == device and value.ndim:
                state[name] = value.to(parameter.device)


def _of_expert(state: dict[str, Any], key: str, matrix: Matrix) -> float:
    """One of the numbers that a state keeps per expert; NaN where it keeps none."""
    return float(state[key][matrix.expert]) if key in state else math.nan


def _layer_scale(kind: LayerScale, outputs: int, inputs: int) -> float:
    if kind == "match_adamw":
        return float(0.2 * math.sqrt(max(outputs, inputs)))
    return math.sqrt(max(1.0, outputs / inputs)) if kind == "spectral" else 1.0
