"""A comparison of fronts from the command line to the page: every rate of every method, once, and read at equal new loss."""

import json

import pytest

for extra in ("trl", "altair", "statsmodels"):
    pytest.importorskip(extra)

from transformers import LlamaConfig, LlamaForCausalLM, set_seed  # noqa: E402

from cegm.durable import write_whole  # noqa: E402
from cegm.lab import report  # noqa: E402
from cegm.lab.cli import main  # noqa: E402
from cegm.lab.compare import launch, worker  # noqa: E402
from cegm.lab.train.model import byte_tokenizer  # noqa: E402


class Here:
    """A run in this process, so that nothing is imported again for each."""

    def __init__(self, folder, planned):
        run_folder = folder / "runs" / planned.name
        run_folder.mkdir(parents=True)
        (run_folder / "log.txt").touch()
        write_whole(run_folder / "result.json", json.dumps(worker.execute(run_folder, planned)))

    def poll(self):
        return 0

    def close(self):
        pass


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    root, tokenizer = tmp_path_factory.mktemp("fronts"), byte_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    set_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **special)
    ).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    for name, words in (("new", "a cold wind came down"), ("home", "the miller opened it")):
        (root / f"{name}.txt").write_text("\n".join(f"{words} and {n}." for n in range(300)), encoding="utf-8")
    arguments = ["compare", "--front", "--methods", "adamw,cegm", "--model_name_or_path", str(root / "model")]
    arguments += ["--data", str(root / "new.txt"), "--general", str(root / "home.txt"), "--axes", "none"]
    arguments += [
        "--rates",
        "1e-3,3e-3,1e-2",
        "--seeds",
        "1",
        "--max_steps",
        "6",
        "--max_length",
        "32",
        "--warmup_steps",
        "1",
    ]
    arguments += [
        "--cegm.preset",
        "finetune",
        "--cegm.retain",
        str(root / "home.txt"),
        "--eval_steps",
        "0",
        "--eval_rows",
        "4",
    ]
    arguments += ["--logging_steps", "0", "--items", "4", "--output_dir", str(root / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch.LocalLauncher, "start", lambda _, folder, planned: Here(folder, planned))
        assert main(arguments) == 0
    return root / "out", arguments


def test_every_rate_of_every_method_is_an_ending_with_what_it_forgot(comparison):
    folder, _ = comparison
    found = json.loads((folder / "front.json").read_text())
    assert found["rates"] == {"cegm": [0.001, 0.003, 0.01], "adamw": [0.001, 0.003, 0.01]}
    assert len(found["endings"]) == 6
    assert all(set(end["forgotten"]) == {"own text", "home"} for end in found["endings"])
    for method in ("adamw", "cegm"):
        own = [end for end in sorted(found["endings"], key=lambda end: end["rate"]) if end["method"] == method]
        assert [end["new"] for end in own] == sorted((end["new"] for end in own), reverse=True)
        assert 0 < own[0]["forgotten"]["own text"] < own[-1]["forgotten"]["own text"]
    assert found["before"]["0"] > max(end["new"] for end in found["endings"])


def test_what_the_card_has_seen_is_told_apart(comparison):
    folder, _ = comparison
    measures = {one["name"]: one["seen"] for one in json.loads((folder / "front.json").read_text())["measures"]}
    assert measures == {"own text": [], "home": ["cegm"]}
    assert "home (in the card of CEGM)" in report.table(folder)
    assert "the card of this run has seen home" in (folder / "report.html").read_text(encoding="utf-8")


def test_page_and_terminal_say_the_same_in_one_order(comparison):
    folder, _ = comparison
    page, table = (folder / "report.html").read_text(encoding="utf-8"), report.table(folder)
    assert "Forgotten: the model&#39;s own text" in page
    assert "Forgotten at equal new loss, beside AdamW" in page
    assert table.startswith("method  learning rate  new loss, nats  own text, nats  home, nats")
    assert len(page.encode()) < 1_200_000


def test_giving_it_again_runs_and_writes_nothing_anew(comparison, monkeypatch):
    folder, arguments = comparison
    monkeypatch.setattr(launch.LocalLauncher, "start", lambda *_: pytest.fail("a finished run was started"))
    before = {name: (folder / name).read_bytes() for name in ("before.json", "front.json", "plan.jsonl")}
    assert main(arguments) == 0
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_the_same_folder_without_a_front_keeps_none(comparison, tmp_path, monkeypatch):
    """A page must not show fronts of another plan."""
    folder, arguments = comparison
    started = []

    def start(_, place, planned):
        started.append(planned.role)
        raise ValueError("enough seen")

    monkeypatch.setattr(launch.LocalLauncher, "start", start)
    content = (folder / "front.json").read_bytes(), (folder / "plan.jsonl").read_bytes()
    try:
        assert main([*arguments, "--rates", "1e-3,3e-3,2e-2"]) == 2
        assert started == ["front"]  # the other rates are there
        assert not (folder / "front.json").exists()
    finally:
        (folder / "front.json").write_bytes(content[0])
        (folder / "plan.jsonl").write_bytes(content[1])
