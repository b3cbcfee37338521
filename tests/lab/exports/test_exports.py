"""A roll-out for other machinery: files that have the form which KServe, Argo and compose ask for, and say what the chain says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cegm.lab.exports.export_config import ExportConfig
from cegm.lab.exports.exporting import export
from cegm.lab.exports.manifests import FILES
from cegm.lab.rollout import exposition, rollout_state
from cegm.lab.rollout.rollout_state import RolloutFolder

Decide = Callable[..., None]


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Schema of an object with these fields and no others."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


TEXT, LABELS = {"type": "string", "minLength": 1}, {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = closed(
    {"name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63}}, {"annotations": LABELS}
)
MODEL = closed({"modelFormat": closed({"name": TEXT}), "storageUri": TEXT}, {"args": {"type": "array", "items": TEXT}})
SCHEMAS = {
    "inference_service.yaml": closed(
        {
            "apiVersion": {"const": "serving.kserve.io/v1beta1"}, "kind": {"const": "InferenceService"}, "metadata": METADATA,
            "spec": closed({"predictor": closed(
                {"canaryTrafficPercent": {"type": "integer", "minimum": 0, "maximum": 100}, "model": MODEL}
            )}),
        }
    ),
    "analysis_template.yaml": closed(
        {
            "apiVersion": {"const": "argoproj.io/v1alpha1"}, "kind": {"const": "AnalysisTemplate"}, "metadata": METADATA,
            "spec": closed({"metrics": {"type": "array", "minItems": 1, "items": closed(
                {"name": TEXT, "provider": closed({"prometheus": closed({"address": TEXT, "query": TEXT})})},
                {"interval": {"type": "string", "pattern": "^[0-9]+[smh]$"}, "count": {"type": "integer"},
                 "failureLimit": {"type": "integer"}, "inconclusiveLimit": {"type": "integer"},
                 "successCondition": TEXT, "failureCondition": TEXT},
            )}}),
        }
    ),
}  # fmt: skip
"""The fields of the two interfaces that are used, as their documentation has them; neither schema can be had offline."""


@pytest.fixture
def decide(tmp_path: Path) -> Decide:
    """Writes decisions into the chain of a roll-out, the first of them an approval."""

    def record(event: str, **facts: Any) -> None:
        rollout_state.record(RolloutFolder(tmp_path / "rollout"), event, **facts)

    release = tmp_path / "release"
    (release / "model").mkdir(parents=True)
    (release / "model" / "weights").write_text("1")
    facts = {"release": str(release), "manifest": "ab" * 32, "approver": 'Sato "the <first>"', "approver_key": "cd"}
    record("approve", stage="approved", **facts)
    return record


def exported(tmp_path: Path, **options: Any) -> dict[str, Any]:
    assert export(ExportConfig(rollout=str(tmp_path / "rollout"), **options)) == 0
    return {name: yaml.safe_load((tmp_path / "rollout" / "exports" / name).read_text()) for name in FILES}


@pytest.mark.parametrize("name", SCHEMAS)
def test_files_have_the_form_of_the_interface(name: str, tmp_path: Path, decide: Decide) -> None:
    decide("stage", stage="canary 25")
    jsonschema.validate(exported(tmp_path)[name], SCHEMAS[name])


@pytest.mark.parametrize(
    ("stage", "percent"), [("shadow", 0), ("canary 5", 5), ("canary 50", 50), ("all", 100), ("back", 0)]
)
def test_the_share_is_that_of_the_stage_in_the_chain(stage: str, percent: int, tmp_path: Path, decide: Decide) -> None:
    decide("back" if stage == "back" else "stage", stage=stage)
    service = exported(tmp_path)["inference_service.yaml"]
    assert service["spec"]["predictor"]["canaryTrafficPercent"] == percent
    assert service["metadata"]["annotations"]["cegm/manifest-sha256"] == "ab" * 32
    assert service["metadata"]["annotations"]["cegm/approver"] == 'Sato "the <first>"'


def test_what_is_neither_success_nor_failure_waits_for_a_person(tmp_path: Path, decide: Decide) -> None:
    for metric in exported(tmp_path)["analysis_template.yaml"]["spec"]["metrics"]:
        success, failure = (metric[each] for each in ("successCondition", "failureCondition"))
        assert success.startswith("result[0] <= ")
        assert float(failure.removeprefix("result[0] > ")) > float(success.removeprefix("result[0] <= "))
        assert metric["inconclusiveLimit"] > 0


def test_queries_ask_for_numbers_that_the_router_shows(tmp_path: Path, decide: Decide) -> None:
    queries = "".join(
        each["provider"]["prometheus"]["query"]
        for each in exported(tmp_path)["analysis_template.yaml"]["spec"]["metrics"]
    )
    code = Path(exposition.__file__).read_text()
    assert all(
        name in queries for name in ("cegm_rollout_errors_total", "cegm_rollout_requests_total", "cegm_rollout_seconds")
    )
    assert 'PREFIX = "cegm_rollout"' in code


def test_only_the_router_can_be_reached_and_only_from_this_machine(tmp_path: Path, decide: Decide) -> None:
    services = exported(tmp_path)["compose.yaml"]["services"]
    assert {name for name, each in services.items() if "ports" in each} == {"router"}
    assert services["router"]["ports"] == ["127.0.0.1:8000:8000"]
    assert services["challenger"]["volumes"][0]["source"] == f"{tmp_path / 'release'}/model"
    assert set(services["router"]["depends_on"]) == {"champion", "challenger"}


@pytest.mark.parametrize("name", ["Cegm", "a_b", "-a", "a" * 64, ""])
def test_a_name_that_kubernetes_refuses_is_refused_before(name: str) -> None:
    with pytest.raises(ValueError, match="no name in Kubernetes"):
        ExportConfig(rollout="x", name=name)


def test_a_folder_without_a_roll_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no roll-out"):
        export(ExportConfig(rollout=str(tmp_path)))
    with pytest.raises(ValueError, match="which roll-out"):
        ExportConfig()
