"""Damaged public sets and a model that reads too little, through the command: one line tells each, and the rest is measured."""

import json

import pandas as pd
import pytest
import torch

pytest.importorskip("transformers")

import models
from cegm.lab.cli import main
from cegm.lab.train.model import byte_tokenizer, word_tokenizer

POSITIONS = 600


@pytest.fixture
def reader(tmp_path):
    """Saves a model of 600 positions with this tokenizer and returns its folder."""

    def saved(tokenizer):
        torch.manual_seed(0)
        model = models.llama(vocabulary=len(tokenizer))
        model.config.max_position_embeddings = POSITIONS
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return saved


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def story(tab, statements=2):
    """A story of bAbI with two questions, in the given separator."""
    told = [f"{number} Mary went to the kitchen." for number in range(1, statements + 1)]
    return (
        "\n".join(
            [
                *told,
                f"{statements + 1} John went to the garden.",
                f"{statements + 2} Where is Mary? {tab}kitchen{tab}1",
                f"{statements + 3} Where is John? {tab}garden{tab}{statements + 1}",
            ]
        )
        + "\n"
    )


def reading(label):
    rewrite = {"premise": "It is a bat that flies.", "hypothesis": "It flies."}
    return [{**rewrite, **label}, {"premise": "It is a club.", "hypothesis": "It flies.", "label": "neutral"}]


def ambient(*labels):
    rows = [
        {"id": number, "premise": "It is a bat.", "hypothesis": "It flies.", "disambiguations": reading(label)}
        for number, label in enumerate(labels)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


BABI = "babi/tasks_1-20_v1-2/en/"


@pytest.fixture
def damaged(tmp_path):
    """A folder of public sets of which little is as it should be."""
    folder = tmp_path / "sets"
    write(folder, f"{BABI}qa1_one_test.txt", story("|") * 2 + story("|", statements=30))  # bars for tabs, one long
    write(folder, f"{BABI}qa2_two_test.txt", story("\t")[:-4])  # cut off within a line
    write(folder, f"{BABI}qa3_three_test.txt", story("\t").encode() + b"\xff\xfe")  # no text
    write(folder, "bbh/bbh/logical_deduction_three_objects.json", b"\xff{}")
    write(folder, "noise_en/nlpaug/res/word/spelling/spelling_en.txt", b"there\xff their\n")
    write(folder, "ambient/AmbiEnt/test.jsonl", ambient({"label": "entailment"}, {}))  # no label in line 2
    write(folder, "ambient/AmbiEnt/dev.jsonl", ambient({"label": "entailment"}))
    write(folder, "sci_scitldr/SciTLDR-Data/SciTLDR-A/test.jsonl", '{"paper_id": "p", "title": "A ti')
    return folder


def examined(model, out, *arguments):
    """Exit code, what became of each axis, and the axes that have items."""
    code = main(["evaluate", model, "--items", "8", "--output_dir", str(out), *arguments])
    states = json.loads((out / "evaluation.json").read_text())["axes"]
    return code, states, pd.read_parquet(out / "items.parquet")


def test_what_is_damaged_is_told_in_a_line_and_the_rest_is_measured(reader, damaged, tmp_path, capsys):
    axes = "ambiguity,consistency,efficiency,drift,noise,coherence"
    code, states, items = examined(reader(byte_tokenizer()), tmp_path / "out", "--data", str(damaged), "--axes", axes)
    shown = capsys.readouterr().out
    assert code == 0
    lost = {name for name, state in states.items() if state["reason"]}
    assert lost == {"ambiguity", "consistency", "drift", "noise", "coherence"}
    assert all(f"\n{name}: not measured: " in shown for name in lost)
    assert [*items["item"].sort_values()] == ["qa1-1-4", "qa1-1-5", "qa1-2-4", "qa1-2-5"], "short, and bars for tabs"
    assert set(items["axis"]) == {"efficiency"}

    told = " ".join([state["reason"] + " ".join(state["warnings"]) for state in states.values()])
    for damage in (
        "wsc was not measured: " + str(damaged / "wsc_xwinograd_en"),
        "three_objects.json is no UTF-8 text (byte 0)",
        "spelling_en.txt is no UTF-8 text (byte 5)",
        f"qa2 was not measured: {damaged}/{BABI}qa2_two_test.txt, line 5: the file ends within a line; fetch the file again",
        f"qa3 was not measured: {damaged}/{BABI}qa3_three_test.txt is no UTF-8 text (byte 138); fetch the file again",
        "test.jsonl, line 2: disambiguations without premise, hypothesis or label; fetch the file again",
        "test.jsonl, line 1: no JSON",
        "2 of 6 questions are longer than the model's 600 positions",
        "tokens but the model reads 600; use a model with a longer context",
    ):
        assert damage in told, damage
        assert damage in shown, damage


def test_levels_beyond_the_context_of_a_model_are_told_and_the_others_measured(reader, tmp_path, capsys):
    code, states, items = examined(reader(word_tokenizer()), tmp_path / "out", "--axes", "retention,steps")
    assert code == 0
    assert set(items[items["axis"] == "retention"]["level"]) == {512}
    assert "not measured at 1024, 2048, 4096, 8192" in states["retention"]["warnings"][0]
    assert states["retention"]["warnings"][0] in capsys.readouterr().out
    assert "steps" in set(items["axis"])
