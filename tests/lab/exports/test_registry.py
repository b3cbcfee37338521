"""The mirror in MLflow: files, versions, aliases and tags as the chain says, and what somebody else moved is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cegm.lab.exports import registry
from cegm.lab.rollout.rollout_state import RolloutState

mlflow = pytest.importorskip("mlflow")


def test_a_missing_package_is_named(state: RolloutState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ValueError, match="registry needs a package that is not installed: pip install mlflow-skinny"):
        registry.mirror("http://127.0.0.1:9", "cegm", state)


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store in a folder, and a place to stand in where nothing is left."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield (tmp_path / "store").as_uri()
    assert [*Path().iterdir()] == []


@pytest.fixture
def state(tmp_path: Path) -> RolloutState:
    (tmp_path / "release" / "model").mkdir(parents=True)
    (tmp_path / "release" / "model" / "weights").write_text("1")
    return RolloutState(
        stage="shadow", release=str(tmp_path / "release"), manifest="ab" * 32, approver="Sato", end="ef"
    )


def client(uri: str) -> Any:
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def aliases(uri: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in client(uri).get_registered_model("cegm").aliases.items()}


def test_a_release_becomes_a_version_with_its_files_once(uri: str, state: RolloutState, tmp_path: Path) -> None:
    assert registry.mirror(uri, "cegm", state) == []
    assert registry.mirror(uri, "cegm", replace(state, stage="canary 5", end="00")) == []
    (version,) = client(uri).search_model_versions("name = 'cegm'")
    tags = {"cegm.manifest": "ab" * 32, "cegm.stage": "canary 5", "cegm.chain_end": "00", "cegm.approver": "Sato"}
    assert version.tags == tags
    copy = client(uri).download_artifacts(version.run_id, "release", str(tmp_path))
    assert (Path(copy) / "model" / "weights").read_text() == "1"


def test_aliases_follow_the_stage(uri: str, state: RolloutState) -> None:
    for stage, expected in (
        ("shadow", {"challenger": "1"}), ("canary 50", {"challenger": "1"}), ("all", {"champion": "1"}), ("back", {}),
    ):  # fmt: skip
        assert registry.mirror(uri, "cegm", replace(state, stage=stage)) == []
        assert aliases(uri) == expected


def test_the_champion_of_before_stays_until_the_next_one_serves_all(uri: str, state: RolloutState) -> None:
    registry.mirror(uri, "cegm", replace(state, stage="all"))
    following = replace(state, manifest="cd" * 32)
    registry.mirror(uri, "cegm", replace(following, stage="canary 5"))
    assert aliases(uri) == {"champion": "1", "challenger": "2"}
    registry.mirror(uri, "cegm", replace(following, stage="all"))
    assert aliases(uri) == {"champion": "2"}


def test_an_alias_that_somebody_moved_is_told_and_put_back(uri: str, state: RolloutState) -> None:
    registry.mirror(uri, "cegm", replace(state, stage="all"))
    registry.mirror(uri, "cegm", replace(state, manifest="cd" * 32, stage="canary 5"))
    client(uri).set_registered_model_alias("cegm", "champion", "2")
    (told,) = registry.mirror(uri, "cegm", replace(state, manifest="cd" * 32, stage="canary 5"))
    assert told.startswith("registry: champion is version 2 of cegm, but 1 by the chain")
    assert aliases(uri) == {"champion": "1", "challenger": "2"}
    client(uri).delete_registered_model_alias("cegm", "challenger")
    (told,) = registry.mirror(uri, "cegm", replace(state, manifest="cd" * 32, stage="canary 5"))
    assert "challenger is version nobody" in told


def test_a_registry_that_refuses_is_told_in_one_line(state: RolloutState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ValueError, match=r"registry=http://127\.0\.0\.1:9 refused"):
        registry.mirror("http://127.0.0.1:9", "cegm", state)
