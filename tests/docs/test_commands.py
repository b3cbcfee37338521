"""What README and the pages show works: commands have the options that they are given, lines of Python train."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from cegm import CEGM
from cegm.lab.cli import COMMANDS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks/results").rglob("README.md"))]
COMMAND = re.compile(rf"\bcegm ({'|'.join(COMMANDS)})\b(.*)")
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Every command of a block of shell lines, with its arguments."""
    blocks = [block for page in PAGES for block in re.findall(r"```(?:sh)?\n(.*?)```", page.read_text(), re.DOTALL)]
    found = [COMMAND.search(line) for block in blocks for line in block.splitlines() if not line.startswith("cegm:")]
    return sorted({(each[1], each[2].split(" #")[0].strip()) for each in found if each})


@cache
def options(command: str) -> frozenset[str]:
    shown = subprocess.run(
        [sys.executable, "-m", "cegm.lab.cli", command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    return frozenset(re.findall(r"--\w+", shown))


def test_the_pages_show_commands_at_all() -> None:
    assert len(commands()) > 25


@pytest.mark.parametrize(("command", "arguments"), commands())
def test_a_command_of_a_page_has_options_of_its_command(command: str, arguments: str) -> None:
    given = {word for word in shlex.split(arguments) if word.startswith("--")}
    flags = {word.split("=")[0] for word in given if "." not in word.split("=")[0]}  # not --METHOD.OPTION
    assert flags <= options(command)


def test_three_lines_of_the_readme_train_in_a_loop() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 16))
    names: dict[str, object] = {"model": model}
    exec(BLOCKS[0], names)
    optimizer = names["optimizer"]
    assert isinstance(optimizer, CEGM)
    ids, losses = torch.arange(16), []
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(ids), ids.roll(1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


def test_five_lines_of_the_readme_train_in_a_trainer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    args = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True
    )
    ids = torch.arange(16)
    names = {"model": transformers.LlamaForCausalLM(config), "args": args, "data": [{"input_ids": ids, "labels": ids}]}
    exec(BLOCKS[1], names)
    optimizer = getattr(names["trainer"].optimizer, "optimizer", names["trainer"].optimizer)
    assert isinstance(optimizer, CEGM)
    assert {group["lr"] for group in optimizer.param_groups} == {0.0}  # the schedule has ended
    assert {group["initial_lr"] for group in optimizer.param_groups} == {5e-5}
