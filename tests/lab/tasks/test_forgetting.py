"""Forgetting beside the model before: none of itself, some of another, and what is left out is told."""

import copy
import json
import warnings
import zipfile
from dataclasses import replace

import pytest
import torch

pytest.importorskip("trl")

from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.forgetting import AXIS, OWN, write_before
from cegm.lab.tasks.items import NotMeasured
from cegm.lab.train.cards import make
from cegm.lab.train.home_text import own_rows
from cegm.lab.train.model import byte_tokenizer, load_trained
from cegm.lab.train.run_config import RunConfig

ITEMS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A model, a general corpus and two public sets, the third of which is missing."""
    root, tokenizer = tmp_path_factory.mktemp("forgetting"), byte_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    set_seed(0)
    settings = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **special)
    LlamaForCausalLM(settings).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    (root / "general.txt").write_text("\n".join(f"the river carries boat {n} past the old houses" for n in range(400)))
    (root / "sets" / "lambada").mkdir(parents=True)
    rows = [json.dumps({"text": f"she said that it was number {n} of the boats"}) for n in range(5)]
    (root / "sets" / "lambada" / "lambada_test.jsonl").write_text("\n".join(rows) + "\n")
    (root / "sets" / "blimp").mkdir()
    pairs = [
        {"UID": "p", "pairID": str(n), "sentence_good": f"it is {n}", "sentence_bad": f"is it {n}"} for n in range(5)
    ]
    with zipfile.ZipFile(root / "sets" / "blimp" / "BLiMP.zip", "w") as archive:
        archive.writestr("data/p.jsonl", "\n".join(map(json.dumps, pairs)) + "\n")
    return root


@pytest.fixture
def look(root, tmp_path):
    """Writes `before.json`, with or without sets and general text."""

    def write(source="world", general=True, inputs=None):
        path, run = tmp_path / "before.json", RunConfig(model_name_or_path=str(root / "model"), max_length=32)
        places = {"general": str(root / "general.txt")} if general else {}
        write_before(path, run, places, source, ITEMS, 0, inputs or {"model": "one"})
        return path

    return write


def examined(root, path, source="world", change=0.0, card=None):
    model, tokenizer = load_trained(str(root / "model"), False)
    with torch.no_grad():
        for place, weight in enumerate(model.parameters()):
            weight += change * torch.randn(weight.shape, generator=torch.Generator().manual_seed(place))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        records = replace(AXIS, before=path, card=card).examine(Examinee(model, tokenizer), source, ITEMS, 0)
    return records, [str(each.message) for each in caught]


def test_a_model_that_was_not_changed_has_forgotten_nothing_at_all(root, look):
    path = look(str(root / "sets"))
    records, _ = examined(root, path, str(root / "sets"))
    assert {record.subset for record in records} == {OWN, "general", "lambada", "blimp"}
    assert all(record.score == pytest.approx(0, abs=1e-6) for record in records)
    assert {len([r for r in records if r.subset == subset]) for subset in (OWN, "general", "lambada", "blimp")} == {
        ITEMS
    }


def test_forgetting_is_what_the_two_models_say_themselves(root, look):
    path = look()
    records, told = examined(root, path, change=0.05)
    before, rows = load_trained(str(root / "model"), False)[0].eval(), json.loads(path.read_text())
    after = copy.deepcopy(before)
    with torch.no_grad():
        for place, weight in enumerate(after.parameters()):
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(place))
        own, general = torch.tensor(rows["own"]), torch.tensor(rows["general"]["general"]["rows"])
        old, new = (torch.distributions.Categorical(logits=m(own).logits[:, :-1]) for m in (before, after))
        divergence = torch.distributions.kl_divergence(old, new).mean(1)
        losses = [[float(m(row[None], labels=row[None]).loss) for row in general] for m in (before, after)]
    assert [r.score for r in records if r.subset == OWN] == pytest.approx(divergence.tolist(), rel=1e-4)
    assert min(divergence) > 0
    rises = [now - then for then, now in zip(*losses, strict=True)]
    assert [r.score for r in records if r.subset == "general"] == pytest.approx(rises, abs=1e-5)
    assert told == ["accuracy lost on LAMBADA, Winograd schemas and BLiMP is left out without their folder (axes_data)"]


def test_accuracy_lost_is_one_where_only_the_model_before_was_right(root, look):
    path, source = look(str(root / "sets")), str(root / "sets")
    content = json.loads(path.read_text())
    content["scores"]["blimp"] = dict.fromkeys(content["scores"]["blimp"], 1.0)
    right = {r.item: r.continuous > 0 for r in examined(root, path, source)[0] if r.subset == "blimp"}
    path.write_text(json.dumps(content))
    records, told = examined(root, path, source)
    assert {r.item: r.score for r in records if r.subset == "blimp"} == {
        item: float(not is_right) for item, is_right in right.items()
    }
    assert any("wsc was not measured" in text for text in told)


def test_what_the_model_wrote_is_seeded_kept_and_no_text_that_a_run_could_make_its_card_of(root, look):
    path = look()
    content = path.read_text()
    model, tokenizer = load_trained(str(root / "model"), False)
    rows = json.loads(content)["own"]
    for seed in (0, 1, 2**31):
        assert own_rows(model, tokenizer, ITEMS, len(rows[0]), seed).tolist() != rows
    path.write_text(content.replace('"own": [[', '"own":  [['))
    kept = path.read_text()
    assert look().read_text() == kept, "nothing is written twice"
    assert json.loads(look(inputs={"model": "other"}).read_text())["own"] == rows, "its seed decides it"


def test_a_card_that_has_seen_a_corpus_is_told(root, look, tmp_path):
    model, tokenizer = load_trained(str(root / "model"), False)
    for text, seen in ((str(root / "general.txt"), True), ("own", False)):
        card = make(model, tokenizer, text, tokens=64).save(tmp_path / "card.safetensors")
        _, told = examined(root, look(), card=card)
        assert ("the card of this run has seen general" in told) == seen


def test_without_a_model_before_nothing_is_measured_and_one_line_says_why():
    with pytest.raises(NotMeasured, match=r"beside the model before, which only cegm compare knows$"):
        AXIS.examine(None, "world", ITEMS, 0)


def test_general_text_that_is_none_is_refused(root, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}."}) + "\n" for n in range(20)))
    run = RunConfig(model_name_or_path=str(root / "model"), max_length=32)
    with pytest.raises(ValueError, match="holds completion rows; give plain text"):
        write_before(tmp_path / "before.json", run, {"rows": str(rows)}, "world", ITEMS, 0, {})
    assert not (tmp_path / "before.json").exists()
