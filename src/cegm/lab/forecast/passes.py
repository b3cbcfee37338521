"""Forward and backward pass of a model without memory: weights on the meta device, passes traced with tensors that hold no numbers."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from cegm.lab.forecast.operations import counter, operations
from cegm.lab.train.model import fresh_config, load_tokenizer, pretrained_config, with_adapters
from cegm.lab.train.run_config import RunConfig

OUTSIDE = ""
"""Key of activations that belong to no block."""


@dataclass(frozen=True)
class Passes:
    """Of a forward and a backward pass over one micro-batch.

    Attributes:
        forward: Operations.
        backward: The same.
        again: Operations of the forward pass inside blocks, which checkpointing repeats.
        kept: Bytes that the forward pass keeps for the backward pass.
        checkpointed: The same with only the input of each block kept, and one block recomputed at a time.
        logits: Bytes of their gradient in float32.
    """

    forward: float
    backward: float
    again: float
    kept: float
    checkpointed: float
    logits: float


def settings_of(run: RunConfig) -> PretrainedConfig:
    """Configuration of the run's model."""
    return fresh_config(run.model_name_or_path, load_tokenizer(run)) if run.is_fresh else pretrained_config(run)


def meta_model(settings: PretrainedConfig, run: RunConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The run's model with weights that take no memory.

    Raises:
        ValueError: Transformers knows no causal language model of this kind.
    """
    code = run.trust_remote_code
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings, dtype=dtype, trust_remote_code=code)  # type: ignore[no-untyped-call]
    except (AttributeError, ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"no model can be built from the configuration of {run.model_name_or_path}: {said}") from None
    with torch.device("meta"):
        return with_adapters(model, run) if run.lora_r else model


def passes(settings: PretrainedConfig, run: RunConfig) -> Passes:
    """What the passes of a micro-batch take, by tracing them: every architecture says for itself.

    Attention is taken as torch's fused one, without masks. With `bf16` the model is traced in bfloat16. Where all blocks are
    equal, models of one and of two of them are traced, and each further block adds what the second does.

    Raises:
        ValueError: See `meta_model`; or what the model does depends on numbers, as which experts a token meets may.
    """
    text = settings.get_text_config()
    more = text.num_hidden_layers - 2
    if more <= 0 or len(set(getattr(text, "layer_types", None) or [""])) > 1:
        return _trace(settings, run)
    one, two = (dataclasses.astuple(_trace(_of_depth(settings, depth), run)) for depth in (1, 2))
    return Passes(*(b + more * (b - a) for a, b in zip(one, two, strict=True)))


def _of_depth(settings: PretrainedConfig, depth: int) -> PretrainedConfig:
    shown = copy.deepcopy(settings)
    text = shown.get_text_config()
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:depth]
    text.num_hidden_layers = depth
    return shown


def _trace(settings: PretrainedConfig, run: RunConfig) -> Passes:
    kept: dict[str, dict[int, int]] = defaultdict(dict)  # bytes by block and storage
    held: list[Any] = []  # so that no storage gets the number of another
    model: Any = meta_model(settings, run, torch.bfloat16 if run.bf16 else torch.float32).train()
    experts = {p.shape[1:] for p in model.parameters() if p.ndim == 3}
    if experts and hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("batched_mm")  # a product for every token and expert that it meets
    with FakeTensorMode(), counter() as seen, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Of a processor, because attention is fused there.
        weights = {name: _numberless(tensor) for name, tensor in model.named_parameters()}
        weights |= {name: _numberless(tensor) for name, tensor in model.named_buffers()}
        parameters = {weight.untyped_storage()._cdata for weight in weights.values()}
        blocks = _Blocks(seen)

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            copied = tensor.ndim == 3 and (tensor.shape[1:] in experts or tensor.mT.shape[1:] in experts)
            if storage._cdata not in parameters and not copied and not _is_mask(tensor, run.max_length):
                kept[blocks.now][storage._cdata] = storage.nbytes()
                held.append(storage)
            return tensor

        with blocks.watched(model), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            tokens = torch.zeros(run.per_device_train_batch_size, run.max_length, dtype=torch.long)
            batch = {"input_ids": tokens, "labels": tokens, "use_cache": False}
            try:
                outputs = functional_call(model, weights, kwargs=batch)
            except (DataDependentOutputException, DynamicOutputShapeException) as error:
                said = (
                    f"what {run.model_name_or_path} does depends on numbers ({error}), so its passes cannot be counted"
                )
                raise ValueError(said) from None
        forward = operations(seen)
        outputs.loss.backward()
    own = {name: sum(storages.values()) for name, storages in kept.items()}
    whole = sum({storage: size for storages in kept.values() for storage, size in storages.items()}.values())
    rest = own.pop(OUTSIDE, 0) + blocks.inputs
    return Passes(
        forward,
        operations(seen) - forward,
        blocks.operations,
        whole,
        rest + max(own.values(), default=0),
        4.0 * outputs.logits.numel(),
    )


def _numberless(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, requires_grad=tensor.requires_grad)


def _is_mask(tensor: Tensor, length: int) -> bool:
    """Whether it is the causal mask that a traced pass forms and a real one does not."""
    return tensor.ndim == 4 and tensor.shape[1] == 1 and tuple(tensor.shape[2:]) == (length, length)


@dataclass
class _Blocks:
    """What is told of the blocks of a model while it runs: which one runs now, bytes of the inputs of all, operations in all."""

    seen: FlopCounterMode
    now: str = OUTSIDE
    inputs: int = 0
    operations: float = 0.0

    @contextmanager
    def watched(self, model: nn.Module) -> Iterator[None]:
        hooks = []
        for name, module in model.named_modules():
            if isinstance(module, GradientCheckpointingLayer):
                hooks.append(module.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True))
                hooks.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, name: str, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        states = given[0] if given else named["hidden_states"]
        self.now, self.inputs = name, self.inputs + states.numel() * states.element_size()
        self.operations -= operations(self.seen)

    def _leave(self, *_: Any) -> None:
        self.now, self.operations = OUTSIDE, self.operations + operations(self.seen)
