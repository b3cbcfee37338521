"""A rehearsal, which reads nothing, foresees the work that a model then does, on every axis."""

import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM, MambaConfig

from cegm.lab.tasks.axes import PAPER, chosen
from cegm.lab.tasks.effort import Pace, Rehearsal, Size, Work, counted, pace, rehearsed
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.train.model import byte_tokenizer, fresh_config, word_tokenizer

ITEMS = 4


def examinee(tokenizer=None):
    torch.manual_seed(0)
    tokenizer = tokenizer or word_tokenizer()
    return Examinee(AutoModelForCausalLM.from_config(fresh_config("tiny", tokenizer)), tokenizer)


@pytest.mark.parametrize("name", [axis for axis in PAPER if axis not in ("domains", "retention", "coherence")])
def test_what_is_foreseen_is_what_is_done(name):
    """Writing apart: nobody knows beforehand how much a model writes."""
    one, done = examinee(), []
    axes = chosen(name)
    (foreseen,) = rehearsed(one, axes, "world", ITEMS, 0)
    counted(one.model, done.append)
    read = one.reads_trees
    done.clear()
    axes[0].examine(one, "world", ITEMS, 0)
    assert read
    operations = sum(work.operations for work in done)
    assert foreseen.operations == pytest.approx(operations, rel=0.5 if name == "drift" else 0.2)


def test_a_model_that_reads_no_trees_is_foreseen_too():
    tokenizer, done = byte_tokenizer(), []
    shape = MambaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2)
    one = Examinee(AutoModelForCausalLM.from_config(shape), tokenizer)
    (foreseen,) = rehearsed(one, chosen("consistency"), "world", 2, 0)
    counted(one.model, done.append)
    chosen("consistency")[0].examine(one, "world", 2, 0)
    assert foreseen.operations == pytest.approx(sum(work.operations for work in done), rel=1e-6)
    assert foreseen.passes == len(done)


def test_studying_is_foreseen_and_told_by_the_student():
    one, done = examinee(), []
    rehearsal = Rehearsal(one)
    text = ["the crow hums and the wind bends . " * 40]
    list(rehearsal.studied(text, (0, 2), length=32))
    counted(one.model, done.append)
    list(one.studied(text, (0, 2), length=32))
    assert rehearsal.work == Work(sum(w.passes for w in done), sum(w.operations for w in done))


def test_operations_are_those_of_the_weights():
    model = examinee().model
    size = Size.of(model)
    inner = sum(weight.numel() for name, weight in model.named_parameters() if "layers" in name or "norm" in name)
    vocabulary = model.config.vocab_size
    assert (size.token, size.look, size.logits) == (2 * inner, 4 * 2 * 128, 2 * vocabulary * 128)


def test_a_pace_gives_seconds():
    found = pace(examinee().model)
    assert found.by_operation > 0 <= found.by_pass
    assert Pace(2.0, 0.5).seconds(Work(3, 10)) == 11
