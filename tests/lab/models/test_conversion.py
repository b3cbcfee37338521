"""What is kept of a GGUF file is that file to the bit, or nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("gguf")
pytest.importorskip("transformers")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cegm.durable import sha256
from cegm.lab.models import conversion
from cegm.lab.models.conversion import converted, loadable
from cegm.lab.models.names import SMOLLM2, SMOLLM2_PACKAGE, gguf_of, installed

Write = Callable[..., Path]

TEXTS = ("the cat  sat on the mat", "über\n\tthe 12345 <|im_end|>", "<|im_start|>user\nthe")


def is_the_file_to_the_bit(folder: Path, source: Path) -> None:
    """Tokens, chat template and logits of a folder against those of transformers' own reading of the file."""
    one, other = (
        AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name),
        AutoTokenizer.from_pretrained(folder),
    )
    for text in TEXTS:
        assert other(text)["input_ids"] == one(text)["input_ids"]
    assert other.chat_template == one.chat_template is not None
    assert other.special_tokens_map == one.special_tokens_map
    ids = torch.tensor([one(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        kept = AutoModelForCausalLM.from_pretrained(folder)
        read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        assert torch.equal(kept(ids).logits, read(ids).logits)
    assert {parameter.dtype for parameter in kept.parameters()} == {torch.float32}


def test_a_conversion_is_the_file_to_the_bit_and_an_ordinary_folder(gguf_file: Write, cache: Path) -> None:
    source = gguf_file()
    folder = Path(loadable(str(source)))
    is_the_file_to_the_bit(folder, source)
    digest = sha256(source)
    assert folder == cache / f"tiny-{digest[:16]}"
    facts = json.loads((folder / "source.json").read_text())
    assert (facts["file"], facts["sha256"]) == ("tiny.gguf", digest)
    assert {"gguf", "torch", "transformers"} == set(facts["versions"])
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(facts["files"])
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(
        folder.parent / "saved"
    )  # which one marked quantized refuses


def test_a_file_is_converted_once_and_another_of_its_name_is_another(
    gguf_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = converted(gguf_file())
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_convert", lambda *_: pytest.fail("converted twice"))
        assert converted(gguf_file()) == folder
        assert loadable("owner/name") == "owner/name"
    other = converted(gguf_file(seed=1))
    assert other != folder
    assert folder.is_dir()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "source.json"])
def test_a_damaged_conversion_is_made_again_with_one_line(
    gguf_file: Write, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = gguf_file()
    folder = converted(source)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-10])
    capsys.readouterr()
    assert converted(source) == folder
    assert capsys.readouterr().err == f"cegm: {folder} is damaged and made again from tiny.gguf\n"
    assert (folder / name).read_bytes() == whole


def test_what_lies_beside_a_file_is_not_looked_at(gguf_file: Write) -> None:
    source = gguf_file("folder/tiny.gguf")
    (source.parent / "chat_template.jinja").write_text("another template")
    (source.parent / "tokenizer_config.json").write_text('{"eos_token": "the"}')
    tokenizer = AutoTokenizer.from_pretrained(converted(source))
    assert tokenizer.eos_token == "<|im_end|>"
    assert "im_start" in tokenizer.chat_template


def test_what_a_killed_process_left_is_in_nobodys_way(gguf_file: Write, cache: Path) -> None:
    source = gguf_file()
    left = cache / f".tiny-{sha256(source)[:16]}.writing"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_text("half")
    folder = converted(source)
    assert not left.exists()
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0


WRONG: dict[str, tuple[Callable[[Write], Path], str]] = {
    "cut in its header": (lambda write: cut(write(), 100), "fetch it again"),
    "cut in its weights": (lambda write: cut(write(), -100), "fetch it again"),
    "empty": (lambda write: cut(write(), 0), "fetch it again"),
    "a text": (lambda write: text(write()), "not a GGUF file"),
    "an unknown architecture": (lambda write: write(architecture="strange"), "architecture strange is not supported"),
    "a vision model": (lambda write: write(architecture="clip"), "architecture clip is not supported"),
    "no tokenizer": (lambda write: write(tokenizer=False), "Cannot build a tokenizer"),
}


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def text(path: Path) -> Path:
    path.write_text("a text\n" * 99)
    return path


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_read_is_told_in_one_line_and_leaves_nothing(gguf_file: Write, cache: Path, wrong: str) -> None:
    make, message = WRONG[wrong]
    source = make(gguf_file)
    with pytest.raises(ValueError, match=message) as raised:
        converted(source)
    assert str(raised.value).startswith(f"{source} is no causal language model")
    assert "\n" not in str(raised.value)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_processes_that_convert_at_once_do_so_once(gguf_file: Write, tmp_path: Path) -> None:
    code = f"from cegm.lab.models.conversion import loadable; print(loadable({str(gguf_file())!r}))"
    command = [sys.executable, "-c", code]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert len({out for out, _ in told}) == 1
    assert sum("is made, once" in error for _, error in told) == 1


@pytest.mark.long
@pytest.mark.skipif(installed(SMOLLM2_PACKAGE, ".gguf") is None, reason="make smollm2")
def test_smollm2_is_its_package_to_the_bit() -> None:
    source = gguf_of(SMOLLM2)
    assert source is not None
    folder = Path(loadable(SMOLLM2))
    is_the_file_to_the_bit(folder, source)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    rows = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**rows, max_new_tokens=12, do_sample=False)[0, rows["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(written)
    shutil.rmtree(folder)
