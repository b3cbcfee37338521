"""The evaluation harness, run on the exported files, finds for every item what `cegm evaluate` finds."""

from statistics import fmean

import pytest
import torch

pytest.importorskip("lm_eval")

import datasets
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from cegm.lab.tasks import harness
from cegm.lab.tasks.axes import AXES
from cegm.lab.tasks.axis import record
from cegm.lab.tasks.evaluation import summary
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import Choice, Item
from cegm.lab.train.model import byte_tokenizer, word_tokenizer
from trials import DATA, with_data

WIDE = 0.3
"""Spread of random weights that makes a model decided: margins far above the error of float32."""


def merging_tokenizer():
    """Bytes with merges, and a token before every text."""
    texts = [item.choice.context for item in harness.QUESTIONS["reasoning"]("world", 30, 9)]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=350, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def llama(tokenizer):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=8192,
            initializer_range=WIDE,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def gpt2(tokenizer):
    shape = GPT2Config(vocab_size=len(tokenizer), n_positions=8192, n_embd=32, n_layer=2, n_head=2)
    shape.initializer_range = WIDE
    shape.bos_token_id = shape.eos_token_id = tokenizer.eos_token_id
    return GPT2LMHeadModel(shape)


KINDS = {
    "llama, words": (llama, word_tokenizer),
    "llama, bytes": (llama, byte_tokenizer),
    "gpt2, bytes": (gpt2, byte_tokenizer),
    "llama, merges and an opening token": (llama, merging_tokenizer),
}


@pytest.fixture(autouse=True)
def no_lasting_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module", params=list(KINDS))
def model_folder(request, tmp_path_factory):
    """A model as `cegm train` leaves it in RUN/model."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run") / "model"
    shape, spelling = KINDS[request.param]
    tokenizer = spelling()
    shape(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def examinee(folder):
    return Examinee(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def by_the_harness(folder, tasks, names="cegm"):
    return simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32"},
        tasks=[names] if isinstance(names, str) else names,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size=4,
        device="cpu",
        bootstrap_iters=0,
    )


def compare(found, own, axis, items):
    """Every likelihood, every choice, and the accuracy of every task.

    Args:
        found: What the harness returned.
        own: Our examinee.
        axis: Name.
        items: What was exported.
    """
    records = {}
    for item, likelihoods in zip(items, own.choose([item.choice for item in items]), strict=True):
        key = (item.subset, item.level, item.item)
        records[key] = (record(axis, "generated", item, likelihoods), likelihoods)
    for task in harness.tasks(axis, items):
        samples = found["samples"][task.name]
        assert len(samples) == len(task.items)
        for sample in samples:
            doc = sample["doc"]
            mine, likelihoods = records.pop((doc["subset"], doc["level"], doc["item"]))
            theirs = [float(likelihood) for likelihood, _ in sample["filtered_resps"]]
            right = theirs.pop(doc["label"])
            assert right == pytest.approx(likelihoods[0], abs=1e-3)
            assert sorted(theirs) == pytest.approx(sorted(likelihoods[1:]), abs=1e-3)
            assert sample[task.metric] == mine.score
            doc["score"] = mine.score
        mean = fmean(sample["doc"]["score"] for sample in samples)
        assert found["results"][task.name][f"{task.metric},none"] == pytest.approx(mean)
    assert not records


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Eight items of everything that the world asks."""
    folder = tmp_path_factory.mktemp("tasks") / "new"
    harness.export(folder, list(harness.QUESTIONS), "world", 8, 0)
    return folder


def test_every_choice_and_every_accuracy(model_folder, exported):
    own = examinee(model_folder)
    words = own.tokenizer.unk_token is not None
    axes = [axis for axis in harness.QUESTIONS if words or axis != "retention"]  # lengths count words, not bytes
    found = by_the_harness(model_folder, exported, "cegm" if words else [f"cegm_{axis}" for axis in axes])
    for axis in axes:
        compare(found, own, axis, harness.QUESTIONS[axis]("world", 8, 0))
        records = AXES[axis].examine(own, "world", 8, 0)
        group = found["results"][f"cegm_{axis}"]["acc,none"]
        if axis == "consistency":  # right there is who is right in every wording
            assert summary(AXES[axis], records).value <= group
            continue
        if axis == "retention":
            records = [each for each in records if each.level <= 1024]
        if axis == "steps":
            records = [each for each in records if each.subset == "forced"]
        assert group == pytest.approx(summary(AXES[axis], records).value)


TRICKY = [
    Item(Choice("{{ 1 + 1 }} is", (" {% two %}", " three: {{", " !four")), "braces", "0", "0"),
    Item(Choice("12", (" 7", " 8888", " 99")), "digits", "0", "0"),
    Item(Choice("Paris is", (" [1, 2]", " ['x']")), "lists", "0", "0"),
    Item(Choice("Zo\u00eb saw", (" \u00c4sa", " a man")), "long", "0", "0", per_byte=True),
    Item(Choice("a\nb\tc", (" \u4f60\u597d", " it is a far longer one", " x")), "long", "1", "1", per_byte=True),
    Item(Choice("", ("Bob left.", "Al stayed on.", "No."), "\nSo: he did."), "tail", "0", "0"),
    Item(Choice("Who? Then", (" Ann", " Eve"), "."), "tail", "1", "1"),
    Item(Choice("Year", (" 3", " 4"), " 5"), "tail", "2", "2"),
]


def test_texts_that_look_like_something_else(model_folder, tmp_path, monkeypatch):
    own = examinee(model_folder)
    if own.tokenizer.unk_token is not None:
        pytest.skip("knows the words of the world only")
    monkeypatch.setitem(harness.QUESTIONS, "reasoning", lambda source, items, seed: TRICKY)
    harness.export(tmp_path / "new", ["reasoning"], "world", 1, 0)
    compare(by_the_harness(model_folder, tmp_path / "new"), own, "reasoning", TRICKY)


@with_data
def test_public_sets(model_folder, tmp_path):
    own = examinee(model_folder)
    if own.tokenizer.unk_token is not None:
        pytest.skip("knows the words of the world only")
    axes = ["ambiguity", "disambiguation", "reasoning", "efficiency"]
    harness.export(tmp_path / "new", axes, DATA, 6, 0)
    found = by_the_harness(model_folder, tmp_path / "new")
    for axis in axes:
        compare(found, own, axis, harness.QUESTIONS[axis](DATA, 6, 0))
