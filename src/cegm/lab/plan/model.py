"""A model without memory: its weights on the meta device, its passes traced with tensors that hold no numbers."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from cegm.context.taps import is_transposed
from cegm.lab.plan.operations import attention_operations
from cegm.lab.train.model import fresh_config, load_tokenizer, pretrained_config, with_adapters
from cegm.lab.train.run_config import RunConfig

NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
"""Fields of a configuration that attention and logits are counted from."""

TRACED = 2
"""Blocks of a model whose blocks are all equal."""

OUTSIDE = ""
"""Key of activations that belong to no block."""


@dataclass(frozen=True)
class Shape:
    """Of attention and logits.

    Attributes:
        layers: Blocks.
        attention_width: Query heads times their features.
        vocabulary: Logits per token.
    """

    layers: int
    attention_width: int
    vocabulary: int


@dataclass(frozen=True)
class Activations:
    """Bytes that a micro-batch keeps for its backward pass.

    Attributes:
        whole: All of it.
        checkpointed: With only the input of each block kept, and one block recomputed at a time.
    """

    whole: int
    checkpointed: int


def settings_of(run: RunConfig) -> PretrainedConfig:
    """Configuration of the run's model.

    Raises:
        ValueError: No such model, or one without a field that a plan counts with.
    """
    found = fresh_config(run.model_name_or_path, load_tokenizer(run)) if run.is_fresh else pretrained_config(run)
    text = found.get_text_config()
    for name in NEEDED:
        if not isinstance(getattr(text, name, None), int):
            raise ValueError(
                f"the configuration of {run.model_name_or_path} ({type(found).__name__}) has no {name}, which a plan counts with; add it"
            )
    return found


def shape_of(settings: PretrainedConfig) -> Shape:
    """What of a configuration decides attention and logits."""
    text = settings.get_text_config()
    features = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(text.num_hidden_layers, text.num_attention_heads * features, text.vocab_size)


def blank(settings: PretrainedConfig, run: RunConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The run's model with weights that take no memory, on the meta device unless a mode says otherwise.

    Raises:
        ValueError: Transformers knows no causal language model of this kind, or it has weights whose work is not known.
    """
    try:
        model = AutoModelForCausalLM.from_config(settings, dtype=dtype, trust_remote_code=run.trust_remote_code)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"no model can be built from the configuration of {run.model_name_or_path}: {said}") from None
    return with_adapters(model, run) if run.lora_r else model


def meta_model(settings: PretrainedConfig, run: RunConfig) -> nn.Module:
    """The model on the meta device; see `blank`."""
    with torch.device("meta"):
        model = blank(settings, run)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3 and "conv" not in name:
            raise ValueError(
                f"{name} of {run.model_name_or_path} has three dimensions, like experts that not every token meets; their work cannot be planned"
            )
    return model


# ---------------------------------------------------------------------- work


def forward_operations(model: nn.Module, shape: Shape, tokens: float, length: int) -> tuple[float, float]:
    """Of a forward pass, and of the backward pass that follows it.

    Args:
        model: Any device.
        shape: Of its attention.
        tokens: In all rows.
        length: Tokens of a row.

    Returns:
        Forward: 2 per weight and token, and attention. Backward: as much for the gradients of activations, again for those
        of trainable weights, and attention twice.
    """
    weights, trained = 0, 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)) or is_transposed(module):
            assert isinstance(weight, Tensor)
            weights += weight.numel()
            trained += weight.numel() if weight.requires_grad else 0
    attention = attention_operations(tokens, length, shape.layers, shape.attention_width)
    return 2.0 * tokens * weights + attention, 2.0 * tokens * (weights + trained) + 2 * attention


# ---------------------------------------------------------------------- activations


def activations(settings: PretrainedConfig, run: RunConfig) -> Activations:
    """What a forward pass of a micro-batch keeps, by tracing it: every architecture says for itself.

    Attention is taken as torch's fused one, without masks. With `bf16` the model is traced in bfloat16. Where all blocks are
    equal two of them are traced, and the second stands for those that follow.
    """
    shown = _shortened(settings)
    kept, inputs = _trace(shown, run)
    blocks = [name for name in kept if name != OUTSIDE]
    own = {name: sum(kept[name].values()) for name in kept}
    seen: set[int] = set()
    fresh: dict[str, int] = {}
    for name, storages in kept.items():
        fresh[name] = sum(size for number, size in storages.items() if number not in seen)
        seen |= storages.keys()
    more = settings.get_text_config().num_hidden_layers - shown.get_text_config().num_hidden_layers
    whole = sum(fresh.values()) + more * (fresh[blocks[-1]] if blocks else 0)
    checkpointed = own.get(OUTSIDE, 0) + sum(inputs) + more * (inputs[-1] if inputs else 0)
    return Activations(whole, checkpointed + max((own[name] for name in blocks), default=0))


def _shortened(settings: PretrainedConfig) -> PretrainedConfig:
    """A configuration of the first two blocks, if that says all; otherwise the whole."""
    shown = copy.deepcopy(settings)
    text = shown.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if text.num_hidden_layers > TRACED and (kinds is None or len(set(kinds)) == 1):
        if kinds is not None:
            text.layer_types = kinds[:TRACED]
        text.num_hidden_layers = TRACED
    return shown


def _trace(settings: PretrainedConfig, run: RunConfig) -> tuple[dict[str, dict[int, int]], list[int]]:
    """Bytes of what is saved for the backward pass, by block and storage; bytes of each block's input."""
    kept: dict[str, dict[int, int]] = defaultdict(dict)
    inputs: list[int] = []
    held: list[Any] = []  # so that no storage gets the number of another
    place = [OUTSIDE]
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = blank(settings, run, torch.bfloat16 if run.bf16 else torch.float32).train()
        parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in parameters and not _is_mask(tensor, run.max_length):
                kept[place[0]][storage._cdata] = storage.nbytes()
                held.append(storage)
            return tensor

        with _watched(model, place, inputs), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            tokens = torch.zeros(run.per_device_train_batch_size, run.max_length, dtype=torch.long)
            model(input_ids=tokens, labels=tokens, use_cache=False)
    return kept, inputs


def _is_mask(tensor: Tensor, length: int) -> bool:
    """Whether it is the causal mask that a traced pass forms and a real one does not."""
    return tensor.ndim == 4 and tensor.shape[1] == 1 and tuple(tensor.shape[2:]) == (length, length)


@contextmanager
def _watched(model: nn.Module, place: list[str], inputs: list[int]) -> Iterator[None]:
    """Tells in `place` which block runs, and collects the bytes of the inputs of all."""

    def enter(name: str, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        place[0] = name
        states = given[0] if given else named["hidden_states"]
        inputs.append(states.numel() * states.element_size())

    def leave(*_: Any) -> None:
        place[0] = OUTSIDE

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, GradientCheckpointingLayer):
            hooks.append(module.register_forward_pre_hook(partial(enter, name), with_kwargs=True))
            hooks.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
