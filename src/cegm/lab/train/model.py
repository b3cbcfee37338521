"""Model and tokenizer of a run: from a folder, a file or the hub, or a fresh small one; LoRA adapters; hashes of weights."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from cegm.lab.models.conversion import loadable
from cegm.lab.train.adapters import adapted_model
from cegm.lab.train.run_config import WORLD, RunConfig
from cegm.sharding import whole

PAD, END, UNKNOWN = "<pad>", "<eos>", "<unk>"

FRESH: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.1,
    },
    "small": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "initializer_range": 0.06,
    },
    "reader": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.088,
        "tie_word_embeddings": False,
    },
}
"""Llama configurations trained from random weights: about 0.4, 3.5 and 0.5 million parameters. Initial weights are about as large as
one over the root of the width; transformers' .02 is made for models many times wider and costs these hundreds of steps.

`reader` begins with embeddings of unit size, and with a head and output projections of zero (`_clear_stream`): it learns to
recall within a thousand small steps, which `tiny` does not."""

WIDTHS = ("hidden_size", "intermediate_size", "n_inner", "head_dim")
"""Names of a configuration that grow with the width of a model whose heads stay as many."""

FRESH_POSITIONS = 8192

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '" + END + "' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Conversation format of fresh models; models from elsewhere bring their own."""


def load_tokenizer(config: RunConfig) -> PreTrainedTokenizerBase:
    """The model's own tokenizer; for a fresh model one word per token on the world's text, one byte per token otherwise."""
    if config.is_fresh:
        return word_tokenizer() if config.data == WORLD else byte_tokenizer()
    name, adapted = config.model_name_or_path, adapted_model(config.model_name_or_path)
    if adapted and not (Path(name) / "tokenizer_config.json").exists():
        name = adapted
    folder = loadable(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        pretrained_config(config)  # where there is no language model at all, that is what is said
        raise _not_loaded("tokenizer", config, error) from error
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer of {config.model_name_or_path} has neither a padding nor an end token; add one to it"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the generated world, whose vocabulary is closed."""
    from cegm.lab import world

    words = [PAD, END, UNKNOWN, *world.vocabulary()]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrap(backend, unk_token=UNKNOWN)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, for any text."""
    symbols = [PAD, END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return _wrap(backend)


def _wrap(backend: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False, **special
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def load_model(config: RunConfig, tokenizer: PreTrainedTokenizerBase, has_weights: bool = True) -> nn.Module:
    """The model in float32, with LoRA adapters when asked for; initial weights depend on the seed alone.

    Without weights it is on the meta device: its files are looked at, and only shapes are read from them. ValueError where
    there is no model, `max_length` is beyond what it can read, or adapters fit no module.
    """
    settings = _settings(config, tokenizer)
    limit = getattr(settings.get_text_config(), "max_position_embeddings", None)
    if limit is not None and config.max_length > limit:
        raise ValueError(
            f"max_length={config.max_length} is beyond the {limit} positions of {config.model_name_or_path}; use at most {limit}"
        )
    set_seed(config.seed)
    device = torch.device("cpu" if has_weights else "meta")
    if config.is_fresh:
        with device:
            model = _fresh(settings)
    else:
        model = _pretrained(config, device)
    if config.is_fresh and not settings.tie_word_embeddings:
        _clear_stream(model)
    entries = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
    if len(tokenizer) > entries:
        raise ValueError(
            f"the tokenizer of {config.model_name_or_path} has {len(tokenizer)} tokens but the model only {entries}; they do not belong together"
        )
    with device:
        return with_adapters(model, config) if config.lora_r else model


def load_trained(name: str, trust_remote_code: bool) -> tuple[Any, PreTrainedTokenizerBase]:
    """A model that knows something, and its tokenizer; ValueError for a fresh one."""
    run = RunConfig(model_name_or_path=name, max_length=2, trust_remote_code=trust_remote_code)
    if run.is_fresh:
        raise ValueError(f"{name!r} has random weights; train it first: cegm train --output_dir runs/mine")
    tokenizer = load_tokenizer(run)
    return load_model(run, tokenizer), tokenizer


def model_width(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Features between the layers of the configured model."""
    return int(_settings(config, tokenizer).get_text_config().hidden_size)


def model_of_width(config: RunConfig, tokenizer: PreTrainedTokenizerBase, width: int) -> nn.Module:
    """A model of the configured shape but this width, with random weights, to measure time and memory; ValueError where it has no width."""
    settings = _settings(config, tokenizer)
    text = settings.get_text_config()
    factor = width / text.hidden_size
    for name in WIDTHS:
        if isinstance(own := getattr(text, name, None), int):
            setattr(text, name, round(factor * own))
    set_seed(config.seed)
    model = _fresh(settings, config.trust_remote_code)
    return with_adapters(model, config) if config.lora_r else model


def _settings(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    return fresh_config(config.model_name_or_path, tokenizer) if config.is_fresh else pretrained_config(config)


def fresh_config(name: str, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """Configuration of the fresh model `name` for this vocabulary."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=FRESH_POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **{"tie_word_embeddings": True, **FRESH[name]},
    )


def pretrained_config(config: RunConfig) -> PretrainedConfig:
    """Configuration of a model from a folder or the hub.

    ValueError where there is none that transformers can read, or one of no causal language model.
    """
    folder = _base(config)
    try:
        settings: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded("model", config, error) from error
    if type(settings) not in MODEL_FOR_CAUSAL_LM_MAPPING and not hasattr(settings, "auto_map"):
        raise ValueError(
            f"{config.model_name_or_path} is a {settings.model_type} model, which predicts no next words; give a causal language model"
        )
    return settings


def _base(config: RunConfig) -> str:
    """What transformers is to load: of adapters the model below them, of a GGUF file what was made of it."""
    return loadable(adapted_model(config.model_name_or_path) or config.model_name_or_path)


def _fresh(settings: PretrainedConfig, trust_remote_code: bool = False) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        settings, dtype=torch.float32, trust_remote_code=trust_remote_code
    )
    return model


@torch.no_grad()
def _clear_stream(model: Any) -> None:
    """Lets the stream of a fresh model carry the words alone: unit embeddings, and nothing added to them yet."""
    model.get_input_embeddings().weight.normal_(0.0, 1.0)
    model.get_output_embeddings().weight.zero_()
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()


def _pretrained(config: RunConfig, device: torch.device) -> PreTrainedModel:
    adapted, folder = adapted_model(config.model_name_or_path), _base(config)
    try:
        # Weights stay in float32; bf16 means autocast, so that small updates are not rounded away.
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            trust_remote_code=config.trust_remote_code,
            device_map=None if device.type == "cpu" else device,
        )
        return _merged(model, config.model_name_or_path) if adapted else model
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _not_loaded("model", config, error) from error


def _merged(model: PreTrainedModel, adapters: str) -> PreTrainedModel:
    """The model with these adapters in its weights, as if it had been saved whole."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "for .* copying from a non-meta parameter")  # where shapes are all there is
        whole: PreTrainedModel = PeftModel.from_pretrained(model, adapters).merge_and_unload()
    return whole.requires_grad_(True)


def _not_loaded(what: str, config: RunConfig, error: Exception) -> ValueError:
    name = config.model_name_or_path
    if not os.path.isdir(name):
        return ValueError(
            f"model {name!r} is no local folder, and the hub did not give it; check the name, or use tiny or small"
        )
    return ValueError(f"folder {name} holds no {what} that transformers can load: {' '.join(str(error).split())[:200]}")


def with_adapters(model: PreTrainedModel, config: RunConfig) -> nn.Module:
    """The model with fresh LoRA adapters, which alone are trainable; ValueError where they fit no module, or it came with some."""
    from peft import LoraConfig, get_peft_model

    if adapted_model(config.model_name_or_path):
        raise ValueError(
            f"{config.model_name_or_path} holds adapters, and new ones on top could not be saved; leave lora_r out, or merge them first"
        )
    names = config.lora_target_modules
    targets = names if names == "all-linear" else [name.strip() for name in names.split(",")]
    try:
        return get_peft_model(
            model,
            LoraConfig(r=config.lora_r, lora_alpha=config.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"),
        )
    except ValueError as error:
        raise ValueError(
            f"lora_target_modules={names!r} does not fit the model: {' '.join(str(error).split())[:200]}"
        ) from error


def weights_hash(model: nn.Module) -> str:
    """sha256 over names, types and values of all parameters, hex; tied ones count once. Of a model in shards all processes have to ask."""
    sha = hashlib.sha256()
    for name, parameter in model.named_parameters():
        sha.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        sha.update(whole(parameter.detach()).cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
