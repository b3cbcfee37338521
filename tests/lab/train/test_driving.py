"""Which rows drove the updates: a score is the inner product it says it is, and writing it down changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cegm import CEGM
from cegm.lab.train import audit, verification
from cegm.lab.train.driving import MOST_LETTERS, driving_rows
from cegm.lab.train.run import train
from cegm.lab.train.run_config import RunConfig

Make = Callable[..., RunConfig]


def test_score_is_the_product_of_the_row_s_gradient_with_the_entangled_one(model_folder: str) -> None:
    model, tokenizer = (each.from_pretrained(model_folder) for each in (AutoModelForCausalLM, AutoTokenizer))
    optimizer = CEGM(model.train(), lr=1e-3)
    texts = [f"{word} went past the old houses at night and was gone by the morning" for word in ("Anna", "Karl", "He")]
    rows = datasets.Dataset.from_list(
        [{"input_ids": tokenizer(text)["input_ids"][:40], "row": 7 + index} for index, text in enumerate(texts)]
    )
    ids = torch.tensor([rows[0]["input_ids"]])
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found = driving_rows(model, optimizer, rows, tokenizer, 3)
    assert [row.score for row in found] == sorted((row.score for row in found), reverse=True)
    assert found[0].row == 7  # the row that alone was trained on
    for entry in found:
        model.zero_grad()
        ids = torch.tensor([rows[entry.row - 7]["input_ids"]])
        model.eval()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        wanted = sum(
            float((a.parameter.grad * optimizer.state[a.parameter]["momentum"]).sum()) for a in optimizer.matrices()
        )
        assert entry.loss == pytest.approx(float(loss.detach()), rel=1e-4)
        assert entry.score == pytest.approx(wanted, rel=1e-3, abs=1e-7)
        assert entry.driving[0].score >= entry.driving[1].score
        assert len(entry.text) <= MOST_LETTERS


def test_a_run_that_explains_ends_as_one_that_does_not_and_the_chain_has_what_was_said(
    run_config: Make, tmp_path: Path
) -> None:
    said: dict[str, Any] = {"operator": "Team A", "data_source": "made up", "data_licence": "CC0-1.0"}
    plain = train(run_config(method="cegm", output_dir=str(tmp_path / "plain")))
    told = train(run_config(method="cegm", explain_rows=4, **said))
    assert told.final_hash == plain.final_hash
    events, _ = audit.read(Path(told.output_dir) / "audit.jsonl")
    assert {name: events[0][name] for name in said} == said
    assert "explanation.json" in events[-1]["files"]
    explanation = json.loads((Path(told.output_dir) / "explanation.json").read_text())
    assert explanation["step"] == 6
    assert len(explanation["explained"]) == 4
    assert {finding.state for finding in verification.verify(Path(told.output_dir))} == {"whole"}
    (Path(told.output_dir) / "explanation.json").write_text("{}")
    damaged = [finding.part for finding in verification.verify(Path(told.output_dir)) if finding.state == "damaged"]
    assert damaged == ["explanation.json"]
    events, _ = audit.read(Path(plain.output_dir) / "audit.jsonl")
    assert {events[0][name] for name in said} == {None}


def test_methods_without_an_entangled_gradient_are_refused(run_config: Make) -> None:
    with pytest.raises(ValueError, match="explain_rows=2 wants method cegm"):
        run_config(method="adamw", explain_rows=2)
