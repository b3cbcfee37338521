"""`cegm train --sharding fsdp`: the run of one process, files of one process, and an end together when one of them goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("trl")

import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

import train_ranks
from cegm.lab.cli import main
from cegm.lab.train.model import byte_tokenizer
from cegm.lab.train.sharded import shard
from train_ranks import close, command, final, logged, weights

SHARDED = ["--sharding", "fsdp"]


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fused projections that are stored upright, tied embeddings, and a block that transformers' own plan does not name."""
    folder, tokenizer = tmp_path_factory.mktemp("gpt2") / "model", byte_tokenizer()
    ids = dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.eos_token_id)
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=64,
            n_embd=18,
            n_layer=2,
            n_head=3,
            resid_pdrop=0,
            attn_pdrop=0,
            embd_pdrop=0,
            **ids,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "rng_state" not in path.name}


def same_layers(found: Path, expected: Path) -> None:
    """What the lines of a run say of each layer, against the last ones of another."""
    lines = logged(found, "layers")
    for one, other in zip(lines, logged(expected, "layers")[-len(lines) :], strict=True):
        assert one.keys() == other.keys()
        for name, numbers in one.items():
            unknown = {key for key, number in other[name].items() if number is None}
            assert {key for key, number in numbers.items() if number is None} == unknown
            known = {key: number for key, number in other[name].items() if key not in unknown}
            assert {key: numbers[key] for key in known} == pytest.approx(known, rel=2e-3, abs=1e-6), name


def test_shards_make_the_run_of_one_process_and_its_files(gpt2_folder, text_file, tmp_path, port):
    alone, both, again, rest = (tmp_path / name for name in ("alone", "both", "again", "rest"))
    saving = ["--save_steps", "2", "--eval_steps", "2", "--gradient_accumulation_steps", "2"]
    in_shards = [*command(gpt2_folder, text_file, both, rows=1), *saving, *SHARDED]
    ended = train_ranks.together(in_shards, tmp_path, port)
    assert [code for code, _ in ended] == [0, 0], ended
    assert main(["verify", str(both)]) == 0

    assert main([*command(gpt2_folder, text_file, alone, rows=4), "--save_steps", "2", "--eval_steps", "2"]) == 0
    assert logged(both, "loss") == pytest.approx(logged(alone, "loss"), rel=1e-5)
    assert logged(both, "gradient_norm") == pytest.approx(logged(alone, "gradient_norm"), rel=1e-4)
    assert logged(both, "tokens") == logged(alone, "tokens")
    same_layers(both, alone)
    assert files(both) == files(alone)
    assert weights(both).keys() == weights(alone).keys()  # tied ones once
    assert close(weights(both), weights(alone))
    for name in ("initial_hash", "parameters", "steps", "tokens"):
        assert final(both)[name] == final(alone)[name]
    assert final(both)["optimizer_state_bytes"] == pytest.approx(final(alone)["optimizer_state_bytes"], rel=1e-2)
    saved, expected = (
        torch.load(run / "checkpoints" / "step-2" / "optimizer.pt", weights_only=True) for run in (both, alone)
    )
    sizes = [(run / "checkpoints" / "step-2" / "optimizer.pt").stat().st_size for run in (both, alone)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-2)
    assert saved["param_groups"] == expected["param_groups"]
    assert {n: s.keys() for n, s in saved["state"].items()} == {n: s.keys() for n, s in expected["state"].items()}

    resuming = ["--resume_from_checkpoint", str(both / "checkpoints" / "step-2")]
    assert main([*command(gpt2_folder, text_file, rest, rows=4), *resuming]) == 0
    assert close(weights(rest), weights(alone))
    in_shards = [*command(gpt2_folder, text_file, again, rows=1), *saving, *SHARDED, *resuming]
    ended = train_ranks.together(in_shards, tmp_path, port)
    assert [code for code, _ in ended] == [0, 0], ended
    assert final(again)["final_hash"] == final(both)["final_hash"]


OTHERS = {
    "adamw": ["--max_grad_norm", "0.001"],  # so small that every gradient is looked at for what it starves
    "newton_muon": [],
    "schedule_free": ["--lr_scheduler_type", "constant"],
}


@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_in_shards_go_on_from_the_checkpoint_of_one_process(
    model_folder, text_file, tmp_path, port, method
):
    alone, both = tmp_path / "alone", tmp_path / "both"
    given = ["--method", method, "--save_steps", "2", *OTHERS[method]]

    def of(folder: Path, rows: int) -> list[str]:
        words = command(model_folder, text_file, folder, rows)
        for name in ("--precision", "--refresh_every") if method != "newton_muon" else ():
            at = words.index(name)
            del words[at : at + 2]
        return [*words, *given]

    assert main(of(alone, 4)) == 0
    resuming = ["--resume_from_checkpoint", str(alone / "checkpoints" / "step-2"), *SHARDED]
    ended = train_ranks.together([*of(both, 2), *resuming], tmp_path, port)
    assert [code for code, _ in ended] == [0, 0], ended
    assert close(weights(both), weights(alone))
    if method != "schedule_free":  # which tells nothing of its layers
        same_layers(both, alone)


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_bad_gradient_of_one_process_is_no_update_of_any_shard(model_folder, text_file, tmp_path, port, policy):
    folder = tmp_path / "both"
    words = [*command(model_folder, text_file, folder, rows=2), *SHARDED, "--on_nonfinite", policy, "--save_steps", "1"]
    ended = train_ranks.together(words, tmp_path, port, bad_step=3)
    if policy == "stop":
        assert [code for code, _ in ended] == [2, 2], ended
        assert all("non-finite gradient of " in said and "at step 3" in said for _, said in ended), ended
        assert ended[0] == ended[1]
        assert len(logged(folder, "loss")) == 2
        return
    assert [code for code, _ in ended] == [0, 0], ended
    before, after, end = (
        load_file(folder / "checkpoints" / f"step-{step}" / "model.safetensors") for step in (2, 3, 4)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(weight.isfinite().all() for weight in end.values())
    assert not torch.equal(end["lm_head.weight"], after["lm_head.weight"])
    assert final(folder)["skipped_steps"] == 1


def test_one_process_has_nothing_to_share(model_folder, text_file, tmp_path, capsys):
    assert main([*command(model_folder, text_file, tmp_path / "run", rows=2), *SHARDED]) == 2
    assert "needs several processes: torchrun" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_is_of_one_process(model_folder, text_file, tmp_path, capsys):
    assert main([*command(model_folder, text_file, tmp_path / "run", rows=2), *SHARDED, "--dry_run"]) == 2
    assert "ask cegm plan --sharding fsdp" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--lora_r", "4"], ["--beta", "0.1"]])
def test_what_needs_whole_weights_is_refused(model_folder, text_file, tmp_path, capsys, given):
    assert main([*command(model_folder, text_file, tmp_path / "run", rows=2), *SHARDED, *given]) == 2
    assert "sharding=fsdp goes with neither lora_r nor beta" in capsys.readouterr().err


def test_a_model_that_does_not_name_its_blocks_is_refused(monkeypatch):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=8, n_embd=6, n_layer=1, n_head=1))
    monkeypatch.setattr(model, "_no_split_modules", None)
    with pytest.raises(ValueError, match="GPT2LMHeadModel does not say what its blocks are"):
        shard(model)
