"""Trackers that `report_to` names: which exist, and which are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from cegm.lab.cli import main
from cegm.lab.declarations import read_yaml
from cegm.lab.train import trackers
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.run_config import RunConfig, from_mapping
from cegm.lab.train.trainer import trainer_arguments


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_is_installed", lambda module: False)


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_is_installed", lambda module: True)
    for name in trackers.SETTINGS.values():
        monkeypatch.setenv(name, "set")


def refused(report_to: str) -> str:
    with pytest.raises(ValueError, match="report_to") as raised:
        RunConfig(report_to=report_to)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_every_tracker_of_transformers_is_known_and_none_is_invented() -> None:
    assert set(trackers.PACKAGES) == set(INTEGRATION_TO_CALLBACK)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("report_to", "install"),
    [
        ("wandb", "wandb"), ("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("trackio", "trackio"), ("comet_ml", "comet-ml"),
        ("azure_ml", "azureml-core"), ("flyte", "flytekit"), ("dagshub", "dagshub mlflow"), (" wandb , mlflow", "wandb"),
    ],
)  # fmt: skip
def test_a_missing_package_is_named_as_pip_calls_it(report_to: str, install: str) -> None:
    assert refused(report_to).endswith(f"needs a package that is not installed: pip install {install}")


@pytest.mark.parametrize(
    ("report_to", "message"),
    [
        ("wnadb", "report_to 'wnadb' does not exist; did you mean 'wandb'?"),
        ("WandB", "did you mean 'wandb'?"),
        ("tensorbord", "did you mean 'tensorboard'?"),
        ("non", "did you mean 'none'?"),
        ("qqqq", "use one of none, all, azure_ml,"),
        ("none,wandb", "'none' stands alone"),
        ("tensorboard,all", "'all' stands alone"),
        ("", "names no tracker; use 'none'"),
        (" , ", "names no tracker; use 'none'"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_the_remedy(report_to: str, message: str) -> None:
    assert message in refused(report_to)


def test_a_tracker_that_lives_by_a_setting_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEFLOW_TRAINER_SERVER_URL", raising=False)
    assert "needs the environment variable KUBEFLOW_TRAINER_SERVER_URL" in refused("kubeflow")
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "https://localhost")
    assert trackers.listed("kubeflow") == ["kubeflow"]


def test_a_folder_that_a_tracker_left_behind_is_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "leftover" / "run-1").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert not trackers._is_installed("leftover")
    assert not trackers._is_installed("leftover.core.run")
    assert trackers._is_installed("json.decoder")


@pytest.mark.usefixtures("everything_installed")
def test_several_names_reach_the_trainer_one_by_one(tmp_path: Path) -> None:
    config = RunConfig(report_to="wandb, mlflow,wandb", output_dir=str(tmp_path))
    arguments = trainer_arguments(config, RunFolder.of(config))
    assert arguments.report_to[:2] == ["wandb", "mlflow"]
    assert str(arguments.logging_strategy.value) == "no"  # they hear metrics.jsonl


@pytest.mark.parametrize("report_to", ["none", "all"])
def test_none_and_all_start_whatever_is_installed(
    report_to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = ["trackio"] if report_to == "all" else []
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: installed)
    config = RunConfig(report_to=report_to, output_dir=str(tmp_path))
    assert trainer_arguments(config, RunFolder.of(config)).report_to == installed


@pytest.mark.usefixtures("nothing_installed")
def test_a_file_of_options_is_checked_as_flags_are(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    for text, message in (("[tensorboard, wnadb]", "pip install tensorboard"), ("wnadb", "did you mean 'wandb'?")):
        file.write_text(f"report_to: {text}", encoding="utf-8")
        with pytest.raises(ValueError, match="report_to") as raised:
            from_mapping(read_yaml(str(file)), str(file))
        assert message in str(raised.value)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("command", ["train", "compare", "tune", "ablate"])
def test_every_command_that_trains_refuses_before_it_loads_anything(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, "--data", "not_there.txt", "--report_to", "wandb", "--output_dir", "out"]) == 2
    assert capsys.readouterr().err == (
        "cegm: error: report_to 'wandb' needs a package that is not installed: pip install wandb\n"
    )
    assert list(tmp_path.iterdir()) == []
