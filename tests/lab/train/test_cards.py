"""Cards through the command line and in a run: own text, home text, a file, resumption, refusals."""

import pytest

for extra in ("trl", "peft", "msgspec"):
    pytest.importorskip(extra)

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from cegm.context.card import ContextCard  # noqa: E402
from cegm.lab.cli import main  # noqa: E402
from cegm.lab.train import cards  # noqa: E402
from cegm.lab.train.home_text import own_rows  # noqa: E402
from cegm.lab.train.model import load_model, load_tokenizer  # noqa: E402
from cegm.lab.train.run_config import RunConfig  # noqa: E402
from cegm.lab.train.trainer import build  # noqa: E402

FEW = ["--tokens", "512", "--length", "32"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small model that has read a little of the world."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    quick = ["--max_steps", "30", "--max_length", "32", "--eval_steps", "0", "--eval_rows", "2", "--progress", "false"]
    assert main(["train", "--output_dir", str(folder), *quick]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def small_card(trained, tmp_path_factory):
    """A card of a few tokens that the model writes itself."""
    path = tmp_path_factory.mktemp("card") / "card.safetensors"
    assert main(["card", str(trained), *FEW, "--output", str(path)]) == 0
    return path


def train(model, folder, *flags):
    quick = ["--max_steps", "4", "--max_length", "32", "--eval_steps", "0", "--eval_rows", "2", "--progress", "false"]
    quick += ["--per_device_train_batch_size", "2", "--seed", "1"]
    return main(["train", "--model_name_or_path", str(model), "--output_dir", str(folder), *quick, *flags])


def test_a_model_writes_rows_that_its_seed_decides(trained):
    run = RunConfig(model_name_or_path=str(trained), max_length=2)
    tokenizer = load_tokenizer(run)
    model = load_model(run, tokenizer)
    state = torch.random.get_rng_state()
    rows = own_rows(model, tokenizer, 20, 24, seed=3)
    assert rows.shape == (20, 24)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(rows, own_rows(model, tokenizer, 20, 24, seed=3))
    assert not torch.equal(rows, own_rows(model, tokenizer, 20, 24, seed=4))
    assert len({tuple(row.tolist()) for row in rows}) == 20


def test_the_command_makes_cards_of_own_and_of_home_text_that_add_up(trained, tmp_path, capsys):
    home = tmp_path / "home.txt"
    home.write_text("The river runs past the old mill and the mill stands still. " * 400)
    own, both = tmp_path / "own.safetensors", tmp_path / "both.safetensors"
    assert main(["card", str(trained), *FEW, "--output", str(own)]) == 0
    assert "512 tokens of self-generated" in capsys.readouterr().out
    assert main(["card", str(trained), *FEW, "--text", f"own,{home}", "--output", str(both)]) == 0
    first, second = ContextCard.load(own), ContextCard.load(both)
    assert [entry["text"] for entry in second.homes] == ["self-generated", "home.txt"]
    assert first.contexts.keys() == second.contexts.keys()


@pytest.mark.parametrize("flags", [[], ["--lora_r", "2"]], ids=["all weights", "adapters"])
def test_a_run_retains_keeps_its_card_and_goes_on_to_the_bit(trained, tmp_path, flags):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    card = tmp_path / "card.safetensors"
    assert main(["card", str(trained), *FEW, "--output", str(card)]) == 0
    flags = [*flags, "--retain", str(card), "--preset", "finetune", "--save_steps", "2"]
    assert train(trained, whole, *flags) == 0
    assert (whole / "card.safetensors").exists()
    card.unlink()  # the run has its own
    resumed = ["--resume_from_checkpoint", str(whole / "checkpoints/step-2"), "--output_dir", str(halves)]
    halves.mkdir()
    (halves / "card.safetensors").write_bytes((whole / "card.safetensors").read_bytes())
    assert train(trained, halves, *flags, *resumed) == 0
    for path in (whole / "model").glob("*.safetensors"):
        mine, theirs = load_file(path), load_file(halves / "model" / path.name)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    "flags",
    [
        ["--method", "ewc", "--penalty", "1e4"],
        ["--method", "adamw", "--lora_r", "2", "--lora_init", "home_null", "--retain", "CARD"],
        ["--preset", "finetune", "--retain", "CARD", "--retain_pull", "30"],
        ["--method", "adamw", "--replay", "0.5"],
    ],
    ids=["elastic", "adapters in the null space", "pulled", "replayed"],
)
def test_what_is_kept_against_forgetting_goes_on_to_the_bit(trained, small_card, tmp_path, monkeypatch, flags):
    flags = [str(small_card) if flag == "CARD" else flag for flag in flags]
    monkeypatch.setattr(cards, "LENGTH", 32)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(trained, whole, *flags, "--save_steps", "2") == 0
    resumed = ["--resume_from_checkpoint", str(whole / "checkpoints/step-2"), "--output_dir", str(halves)]
    assert train(trained, halves, *flags, "--save_steps", "2", *resumed) == 0
    for path in (whole / "model").glob("*.safetensors"):
        mine, theirs = load_file(path), load_file(halves / "model" / path.name)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_adapters_of_any_method_begin_away_from_home_contexts(trained, small_card):
    run = {
        "model_name_or_path": str(trained),
        "method": "muon",
        "lora_r": 2,
        "max_length": 32,
        "retain": str(small_card),
    }
    energies = {}
    for begins in ("random", "home_null"):
        config = RunConfig(**{**run, "lora_init": "home_null"})
        model = load_model(config, load_tokenizer(config))
        build(config, model, ContextCard.load(small_card) if begins == "home_null" else None)
        name = "base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight"
        entry = ContextCard.load(small_card).contexts["model.layers.0.mlp.up_proj.weight"]
        energies[begins] = float(entry.energy(dict(model.named_parameters())[name].detach()))
    assert energies["home_null"] < 0.3 * energies["random"]


def test_elastic_weight_consolidation_holds_to_what_the_model_writes(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cards, "LENGTH", 32)
    moved = {}
    before = load_file(trained / "model.safetensors")
    for penalty in ("0", "1e6"):
        run = tmp_path / penalty
        assert train(trained, run, "--method", "ewc", "--penalty", penalty, "--learning_rate", "1e-3") == 0
        assert "Fisher diagonal of 512 tokens of self-generated" in capsys.readouterr().err
        after = load_file(run / "model/model.safetensors")
        moved[penalty] = sum(float((after[name] - before[name]).square().sum()) for name in before)
    assert moved["1e6"] < 0.5 * moved["0"]


def test_own_text_is_made_on_the_way_and_changes_what_is_learned(trained, tmp_path, capsys):
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    assert train(trained, plain, "--preset", "finetune") == 0
    assert train(trained, kept, "--preset", "finetune", "--retain", "own") == 0
    assert "context card of 16,384 tokens of self-generated" in capsys.readouterr().err
    name = "model.layers.0.mlp.up_proj.weight"
    before = load_file(trained / "model.safetensors")[name]
    entry = ContextCard.load(kept / "card.safetensors").contexts[name]
    shares = [float(entry.energy(load_file(run / "model/model.safetensors")[name] - before)) for run in (plain, kept)]
    assert shares[1] < 0.5 * shares[0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["train", "--retain", "own"], "random weights"),
        (["train", "--retain", "own", "--method", "adamw", "--model_name_or_path", "MODEL"], "adamw has no contexts"),
        (["train", "--method", "ewc", "--retain", "x.safetensors", "--model_name_or_path", "MODEL"], "is a card"),
        (["train", "--lora_init", "home_null", "--lora_r", "2", "--model_name_or_path", "MODEL"], "wants lora_r"),
        (["train", "--retain_pull", "1", "--model_name_or_path", "MODEL"], "give retain as well"),
        (["train", "--replay", "0.5"], "random weights"),
        (["train", "--replay", "1", "--model_name_or_path", "MODEL"], "replay=1"),
        (["train", "--replay", "0.5", "--replay_data", "nowhere.txt", "--model_name_or_path", "MODEL"], "nowhere.txt"),
        (["train", "--retain", "none.safetensors", "--model_name_or_path", "MODEL"], "none.safetensors"),
        (["card", "tiny"], "random weights"),
        (["card"], "MODEL"),
        (["card", "MODEL", "--share", "2"], "share=2"),
        (["card", "MODEL", "--output", "card.bin"], "card.bin"),
        (["card", "MODEL", "--text", "nowhere.txt"], "nowhere.txt"),
        (["card", "MODEL", "--tokens", "8", "--length", "8"], "8 tokens are too few"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(trained, tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    assert main([str(trained) if flag == "MODEL" else flag for flag in flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error
    assert not list(tmp_path.rglob("*.safetensors"))
