"""The command line: every user error is one line on stderr and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    set_seed,
)

import cegm
from cegm.lab.cli import COMMANDS, main
from cegm.lab.commands import CONFIGURED, OF_A_FOLDER, told_in_parts
from cegm.lab.train.model import byte_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=258, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("some words of a small text " * 400)
    return str(path)


@pytest.fixture
def words(model: str, text: str, tmp_path: Path) -> list[str]:
    """A small run that works."""
    flags = {
        "model_name_or_path": model, "data": text, "output_dir": tmp_path / "run", "method": "adamw", "max_length": 32,
        "per_device_train_batch_size": 2, "max_steps": 2, "eval_rows": 2, "threads": 1,
    }  # fmt: skip
    return ["train", *(part for name, value in flags.items() for part in (f"--{name}", str(value)))]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command prints."""
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cegm: error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_run_from_flags(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "after 2 steps (128 tokens" in printed.out
    assert printed.err == ""
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_run_with_the_entanglement_loss(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--beta", ".1", "--kernel", "rbf", "--stop-gradient", "context"]) == 0
    assert capsys.readouterr().err == ""
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["config"]
    assert (config["beta"], config["kernel"], config["stop_gradient"]) == (0.1, "rbf", "context")
    assert main([*words, "--beta", ".1", "--dry_run", "--output_dir", str(tmp_path / "dry")]) == 0


def test_the_seconds_that_a_command_took_are_told_in_parts() -> None:
    told = told_in_parts(74.4, {"libraries": 8.2, "loading": 5.0, "looking at known text": 0.0, "training": 40.6})
    assert told == "74 s on the wall: libraries 8, loading 5, training 41, the rest 21"


def test_flags_win_over_the_file(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("max_steps: 1\nseed: 5\nlearning_rate: 1e-4\naux_betas: [0.8, 0.9]\n")
    assert main([*words, "--config", str(file), "--learning-rate=0.01"]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["config"]
    assert (config["max_steps"], config["seed"], config["learning_rate"]) == (2, 5, 0.01)
    assert config["optimizer_options"] == {"aux_betas": [0.8, 0.9]}


def test_the_written_configuration_can_be_used_again(words: list[str], tmp_path: Path) -> None:
    assert main(words) == 0
    first = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(first["config"]))
    assert main(["train", "--config", str(tmp_path / "again.yaml"), "--output_dir", str(tmp_path / "again")]) == 0
    last = [json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1]) for name in ("run", "again")]
    assert last[0]["final_hash"] == last[1]["final_hash"]


@pytest.mark.parametrize("command", [["compare"], ["report", "runs"]])
def test_an_option_of_another_command_is_told_apart_from_a_slip(command, capsys):
    assert main([*command, "--sharding", "fsdp"]) == 2
    assert "unknown option '--sharding'; it is one of cegm train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning_rte", "1"], "unknown option '--learning_rte'; did you mean 'learning_rate'"),
        (["--gradient-powr=1"], "did you mean 'gradient_power'"),
        (["--lerning_rate=1"], "did you mean 'learning_rate'"),
        (["stray"], "unknown option 'stray'"),
        (["--learning_rate", "-1"], "learning_rate=-1.0 must be at least 0"),
        (["--max_steps", "many"], "max_steps='many' is not of type int"),
        (["--method", "sgd"], "method 'sgd' does not exist"),
        (["--momentum", "0.9"], "adamw has no option 'momentum'"),
        (["--method", "cegm", "--heads", "5"], "heads=5 does not divide"),
        (["--method", "cegm", "--preset", "papr"], "did you mean 'paper'"),
        (["--data", "missing.jsonl"], "data missing.jsonl does not exist"),
        (["--max_length", "65"], "max_length=65 is beyond the 64 positions"),
        (["--lr_scheduler_type", "cosinus"], "cosinus"),
        (["--config", "missing.yaml"], "config file missing.yaml does not exist"),
        (["--resume_from_checkpoint", "latest"], "has no checkpoint to resume from"),
        (["--lora_r", "2", "--lora_target_modules", "nothing"], "lora_target_modules='nothing' does not fit"),
        (
            ["--lora_r", "2", "--model_name_or_path", "tiny"],
            "lora_r=2 wants trained weights under its adapters, and 'tiny' begins at random",
        ),
        (["--output_dir"], "expected one argument"),
        (["--beta", "0.1", "--kernel", "cosin"], "kernel 'cosin' does not exist; did you mean 'cosine'?"),
        (["--beta=-2", "--kernel=dot"], "beta=-2.0 with kernel 'dot' has no minimum; use beta of at least -1"),
    ],
)
def test_mistakes(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert message in refused([*words, *flags], capsys)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def changed_logits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that divides its logits behind the head."""
    folder = tmp_path_factory.mktemp("granite")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = GraniteConfig(vocab_size=258, max_position_embeddings=64, logits_scaling=8.0, **sizes)
    GraniteForCausalLM(settings).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("dry", [[], ["--dry_run"]])
def test_entanglement_loss_on_a_model_whose_logits_are_changed(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], changed_logits: str, dry: list[str]
) -> None:
    flags = ["--model_name_or_path", changed_logits, "--beta", "0.1", *dry]
    assert "GraniteForCausalLM changes its logits behind the head (logits_scaling=8.0)" in refused(
        [*words, *flags], capsys
    )
    assert not (tmp_path / "run").exists()


def test_entanglement_loss_needs_an_output_head(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaForCausalLM, "get_output_embeddings", lambda self: None)
    assert "LlamaForCausalLM has no output head" in refused([*words, "--beta", "0.1"], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "a.txt is empty"),
        ("a.txt", "few", "too little for one row"),
        ("a.jsonl", '{"text": "words"}\n{"txt": "words"}\n', "a.jsonl row 2 has no text"),
        ("a.jsonl", '{"text": NaN}\n', "a.jsonl row 1 has no text"),
    ],
)
def test_bad_data(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    assert message in refused([*words, "--data", str(tmp_path / name)], capsys)
    assert not (tmp_path / "run").exists()


def test_mistake_in_the_file_is_said_to_be_there(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text("max_step: 3\n")
    printed = refused([*words, "--config", str(tmp_path / "run.yaml")], capsys)
    assert "run.yaml: unknown option 'max_step'; did you mean 'max_steps'" in printed


def test_folder_that_cannot_be_written(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refused([*words, "--output_dir", str(tmp_path / "file")], capsys)
    assert "file" in refused([*words, "--output_dir", str(tmp_path / "file" / "below")], capsys)


def test_missing_hub_model(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "is no local folder, and the hub did not give it" in refused(
        [*words, "--model_name_or_path", "no/such"], capsys
    )


def test_dead_model_stops_with_exit_code_2(
    words: list[str], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        broken.model.layers[0].self_attn.q_proj.weight[0, 0] = float("nan")
    broken.save_pretrained(tmp_path / "broken")
    byte_tokenizer().save_pretrained(tmp_path / "broken")
    assert main([*words, "--model_name_or_path", str(tmp_path / "broken")]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("adamw from trained weights: learning rate 2e-05")
    assert printed.err.startswith(
        "cegm: error: non-finite weight model.layers.0.self_attn.q_proj.weight at step 1, rows "
    )
    assert printed.err.count("\n") == 1
    assert '"event": "non_finite"' in (tmp_path / "run" / "audit.jsonl").read_text()


def test_dry_run_prints_and_writes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--method", "cegm", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    for part in (
        "learning_rate: 5.0e-05",
        "aux_lr: 2.0e-05",
        "self_attn.q_proj.weight",
        "2 steps, 128 tokens",
        "weights by Algorithm 1, ",
        "peak",
        "time per step",
    ):
        assert part in printed
    assert not (tmp_path / "run").exists()


def test_the_version_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cegm {cegm.__version__}\n"
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'version = { attr = "cegm.__version__" }' in project
    changes = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## ([\d.]+)", changes, re.MULTILINE)[1] == cegm.__version__


def test_help_names_every_option_without_heavy_imports() -> None:
    code = (
        "import sys\nfrom cegm.lab.cli import main\ntry:\n    main(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'transformers', 'trl', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("--model_name_or_path", "--gradient_power", "--resume_from_checkpoint", "--momentum"):
        assert name in done.stdout


def test_no_command_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no command 'tran'; did you mean" in refused(["tran"], capsys)
    assert "no command 'tran'; did you mean 'train'" in refused(["tran"], capsys)


def test_a_command_runs_in_any_thread(words: list[str]) -> None:
    """Of a notebook or a server, for instance: only the main thread may listen to signals."""
    codes: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: codes.extend([main([*words, "--dry_run"]), main(["tran"])]))
    thread.start()
    thread.join()
    assert codes == [0, 2]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_gives_the_signal_back_to_the_program_around_it() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        assert main(["tran"]) == 2
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_command_ends_by_the_signal_as_by_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cegm.lab.cli._dispatch", lambda _: signal.raise_signal(signal.SIGTERM))
    assert main([]) == 130


def test_a_command_that_is_not_there_is_one_line_with_the_nearest_name(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "cegm: error: there is no command 'trian'; did you mean 'train'?\n"


def test_help_reads_nothing_of_any_command():
    code = (
        "import sys\nfrom cegm.lab.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(any(n in sys.modules for n in ('torch', 'yaml', 'cegm.lab.commands')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_every_command_is_declared_and_explained():
    assert list(COMMANDS) == [*CONFIGURED, *OF_A_FOLDER, "keys"]
