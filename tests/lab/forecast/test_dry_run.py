"""A dry run: the numbers of the run itself from shapes alone, and the run's own refusals."""

import pytest
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

from cegm.lab.baselines import METHODS
from cegm.lab.forecast import dry_run
from cegm.lab.forecast.machine import Machine
from cegm.lab.train.model import byte_tokenizer
from cegm.lab.train.run_config import RunConfig


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Configurations of runs of a small model, on a machine that need not be timed."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=258, **sizes))
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("some words and more of them " * 400)
    machine = Machine("here", "cpu", 1, 1e9, 1e9, None, 1e10)
    monkeypatch.setattr("cegm.lab.forecast.machine.here", lambda: machine)

    def make(**given):
        shared = {"data": str(tmp_path / "text.txt"), "max_length": 16, "per_device_train_batch_size": 2}
        return RunConfig(str(tmp_path / "model"), **{**shared, "output_dir": str(tmp_path / "run"), **given})

    return make


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_forecast(run, method):
    text = dry_run.describe(run(method=method, max_steps=5))
    assert "5 steps, 160 tokens of 258 different" in text
    assert "memory   every method fits in 1 GB a device" in text
    assert ("new preconditioners, is not counted" in text) != METHODS[method].planned


def test_epochs_become_the_steps_that_the_run_takes(run):
    text = dry_run.describe(run(num_train_epochs=2.0, max_steps=None, gradient_accumulation_steps=2))
    rows = int(text.split(" different rows")[0].split()[-1].replace(",", ""))
    assert f"training:    {2 * -(-rows // 4):,} steps" in text


def test_files_that_are_cut_are_refused(run, tmp_path):
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="holds no model that transformers can load"):
        dry_run.describe(run())


def test_a_model_whose_passes_cannot_be_counted_is_described_all_the_same(run, monkeypatch):
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: x * x.sum().item())
    text = dry_run.describe(run())
    assert "no forecast of memory and time: what " in text
    assert "weights by Algorithm 1, " in text
