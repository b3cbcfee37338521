"""Models: from a folder, fresh, with adapters; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionConfig

from cegm.lab.train.model import byte_tokenizer, load_model, load_tokenizer, weights_hash, word_tokenizer
from cegm.lab.train.run_config import RunConfig

Make = Callable[..., RunConfig]


def test_initial_weights_depend_on_the_seed_alone(text_file: str) -> None:
    def fresh(**given: object) -> str:
        config = RunConfig(model_name_or_path="tiny", data=text_file, **given)
        torch.rand(3)  # whatever was drawn before
        return weights_hash(load_model(config, load_tokenizer(config)))

    assert fresh(seed=1, method="adamw") == fresh(seed=1, method="cegm", learning_rate=1.0)
    assert fresh(seed=1) != fresh(seed=2)


def test_the_reader_begins_with_a_stream_that_carries_the_words_alone() -> None:
    config = RunConfig(model_name_or_path="reader", data="world")
    model = load_model(config, load_tokenizer(config)).eval()
    embeddings, head = model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight
    assert embeddings is not head
    assert embeddings.std().item() == pytest.approx(1.0, abs=0.01)
    assert not head.any()
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        states = model(tokens, output_hidden_states=True)
    assert torch.equal(states.hidden_states[-2], embeddings[tokens]), "a layer adds something"
    assert torch.equal(states.logits, torch.zeros_like(states.logits)), "all words are equally likely"


def test_hash_sees_one_bit() -> None:
    layer = torch.nn.Linear(3, 2)
    before = weights_hash(layer)
    with torch.no_grad():
        layer.weight[0, 0] = torch.nextafter(layer.weight[0, 0], torch.tensor(9.0))
    assert weights_hash(layer) != before


def test_word_tokenizer_knows_the_world(tmp_path: Path) -> None:
    from cegm.lab import world

    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = next(world.documents(0, "train"))
    ids = loaded(text)["input_ids"]
    assert ids == tokenizer(text)["input_ids"]
    assert len(ids) == len(text.split())
    assert loaded.unk_token_id not in ids
    assert loaded.decode(ids) == text


def test_model_round_trip(run_config: Make, tmp_path: Path) -> None:
    config = run_config()
    model = load_model(config, load_tokenizer(config))
    model.save_pretrained(tmp_path / "copy")
    assert weights_hash(AutoModelForCausalLM.from_pretrained(tmp_path / "copy")) == weights_hash(model)


def test_half_precision_weights_are_trained_in_float32(run_config: Make, model_folder: str, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    config = run_config(model_name_or_path=str(tmp_path / "half"))
    assert {p.dtype for p in load_model(config, byte_tokenizer()).parameters()} == {torch.float32}


def test_adapters_only_train_themselves(run_config: Make) -> None:
    config = run_config(lora_r=2, lora_target_modules="q_proj,v_proj")
    model = load_model(config, load_tokenizer(config))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name and ("q_proj" in name or "v_proj" in name) for name in trained)


@pytest.fixture
def adapters(run_config: Make, model_folder: str, tmp_path: Path) -> Path:
    """Adapters that change the model, saved as `cegm train --lora_r` does."""
    config = run_config(lora_r=2, lora_target_modules="q_proj,v_proj")
    model = load_model(config, load_tokenizer(config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "adapters")
    (tmp_path / "ids").write_text(json.dumps(logits(model)))
    return tmp_path / "adapters"


def logits(model: torch.nn.Module) -> list[float]:
    found: list[float] = model(input_ids=torch.tensor([[3, 1, 4, 1, 5]])).logits[0, -1].tolist()
    return found


def test_a_folder_of_adapters_is_the_model_with_them(
    run_config: Make, model_folder: str, adapters: Path, tmp_path: Path
) -> None:
    config = run_config(model_name_or_path=str(adapters))
    tokenizer = load_tokenizer(config)  # the folder has none: that of the model
    whole = load_model(config, tokenizer)
    assert logits(whole) == pytest.approx(json.loads((tmp_path / "ids").read_text()), abs=1e-5)
    assert logits(whole) != pytest.approx(logits(AutoModelForCausalLM.from_pretrained(model_folder)), abs=1e-2)
    assert [name for name, _ in whole.named_parameters() if "lora" in name] == []
    assert all(parameter.requires_grad for parameter in whole.parameters())
    whole.save_pretrained(tmp_path / "whole")  # type: ignore[operator]
    assert weights_hash(AutoModelForCausalLM.from_pretrained(tmp_path / "whole")) == weights_hash(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"base_model_name_or_path": null}', "names no base model.*put a saved model's folder"),
        ('{"base_model_', "cannot be read"),
        ("[]", "cannot be read"),
        ('{"base_model_name_or_path": "no/such"}', "holds no model that transformers can load"),
    ],
)
def test_adapters_without_their_model_are_refused_in_one_line(
    run_config: Make, adapters: Path, content: str, message: str
) -> None:
    (adapters / "adapter_config.json").write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        load_tokenizer(run_config(model_name_or_path=str(adapters)))
    assert "\n" not in str(raised.value)


def test_damaged_adapters_and_adapters_on_adapters_are_refused(run_config: Make, adapters: Path) -> None:
    with pytest.raises(ValueError, match="leave lora_r out"):
        load_model(run_config(model_name_or_path=str(adapters), lora_r=2), byte_tokenizer())
    weights = adapters / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="holds no model that transformers can load"):
        load_model(run_config(model_name_or_path=str(adapters)), byte_tokenizer())


def test_refusals(run_config: Make, model_folder: str, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(ValueError, match="max_length=65 is beyond the 64 positions"):
        load_model(run_config(max_length=65), tokenizer)
    with pytest.raises(ValueError, match="does not fit the model"):
        load_model(run_config(lora_r=2, lora_target_modules="nothing"), tokenizer)
    with pytest.raises(ValueError, match="holds no model that transformers can load"):
        load_model(run_config(model_name_or_path=str(tmp_path)), tokenizer)
    cut = tmp_path / "cut"
    shutil.copytree(model_folder, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="holds no model that transformers can load"):
        load_model(run_config(model_name_or_path=str(cut)), tokenizer)
    damaged = tmp_path / "damaged"
    shutil.copytree(model_folder, damaged)
    settings = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**settings, "vocab_size": 100}))
    with pytest.raises(ValueError, match="holds no model that transformers can load") as raised:
        load_model(run_config(model_name_or_path=str(damaged)), tokenizer)
    assert "\n" not in str(raised.value)


def test_a_folder_without_language_model_or_tokenizer_is_told_so(
    run_config: Make, model_folder: str, tmp_path: Path
) -> None:
    for name in ("empty", "mute", "seeing"):
        (tmp_path / name).mkdir()
    AutoModelForCausalLM.from_pretrained(model_folder).save_pretrained(tmp_path / "mute")
    CLIPVisionConfig().save_pretrained(tmp_path / "seeing")
    for name, message in (
        ("empty", "holds no model that transformers can load"),
        ("mute", "holds no tokenizer that transformers can load"),
        ("seeing", "is a clip_vision_model model, which predicts no next words; give a causal language model"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            load_tokenizer(run_config(model_name_or_path=str(tmp_path / name)))
        assert "\n" not in str(raised.value)
