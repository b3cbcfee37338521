"""Tokenizers that put something in front of every text, behind it, or nothing: one byte per token otherwise."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, END, BEGIN, OTHER = range(4)

TEMPLATES = {
    "nothing": None,
    "begin": "<s> $A",
    "begin and end": "<s> $A </s>",
    "end": "$A </s>",
    "two": "<s> <other> $A",
    "end as begin": "</s> $A",  # as OPT's
}
OPENINGS = {"begin": (BEGIN,), "begin and end": (BEGIN,), "two": (BEGIN, OTHER), "end as begin": (END,)}
"""What each puts in front; those that are not named put nothing."""


def opener(how: str) -> PreTrainedTokenizerFast:
    """A tokenizer by its entry in `TEMPLATES`."""
    special = ["<pad>", "</s>", "<s>", "<other>"]
    names = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    if (template := TEMPLATES[how]) is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, index) for index, name in enumerate(special)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>",
        additional_special_tokens=["<other>"],
    )
