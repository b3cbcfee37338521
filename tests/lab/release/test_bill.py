"""The bill of materials is one by the official schema, and its card says what the records say."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cegm.durable import sha256


@pytest.fixture(scope="module")
def text(template: Path) -> str:
    return (template / "evidence" / "bom.cdx.json").read_text(encoding="utf-8")


def test_the_official_schema_takes_it_offline_and_looks_at_the_card(text: str) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    changed = json.loads(text)
    changed["metadata"]["component"]["modelCard"]["opinion"] = "good"
    assert validator.validate_str(json.dumps(changed)) is not None
    del changed["metadata"]["component"]["modelCard"]["opinion"]
    changed["metadata"]["component"]["modelCard"]["modelParameters"]["approach"]["type"] = "magic"
    assert validator.validate_str(json.dumps(changed)) is not None


def test_a_validator_of_another_library_agrees_on_the_model_card(text: str) -> None:
    folder = resources.files("cyclonedx.schema").joinpath("_res")
    schema = json.loads(folder.joinpath("bom-1.6.SNAPSHOT.schema.json").read_text(encoding="utf-8"))
    card = {"definitions": schema["definitions"], "$ref": "#/definitions/modelCard"}
    jsonschema.Draft7Validator(card).validate(json.loads(text)["metadata"]["component"]["modelCard"])


def test_it_names_what_the_model_is_made_of(text: str, template: Path) -> None:
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["bom-ref"]: part for part in bill["components"]}
    for name in ("model/model.safetensors", "model/config.json"):
        assert parts[name]["hashes"] == [{"alg": "SHA-256", "content": sha256(template / name)}]
    assert parts["software/torch"]["purl"] == "pkg:pypi/torch@2.13.0"
    assert parts["data"]["licenses"] == [{"license": {"name": "CC0-1.0"}}]
    assert {"name": "cegm:source", "value": "made up"} in parts["data"]["properties"]
    model = bill["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["manufacturer"] == {"name": "Team A"}
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics[-1]["confidenceInterval"] == {"lowerBound": "-0.5", "upperBound": "-0.125"}
    assert model["modelCard"]["modelParameters"]["datasets"] == [{"ref": "data"}]
