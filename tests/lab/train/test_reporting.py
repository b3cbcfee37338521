"""What trackers hear of a run: all of `metrics.jsonl` under stable names, and that none of them ends a run."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET, convert

from cegm.lab.records import Final, Metrics, Train, Validation
from cegm.lab.strict import json_lines
from cegm.lab.train.metric_names import LAYER, NAMES, PREFIXES, scalars
from cegm.lab.train.run import train
from cegm.lab.train.run_config import RunConfig

Make = Callable[..., RunConfig]
NO_NUMBERS = {"step", "layers", "batch_hash", "initial_hash", "final_hash"}

WRITER = """
import json, pathlib

class SummaryWriter:
    def __init__(self, log_dir):
        self.file = pathlib.Path(log_dir) / "events"
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def add_text(self, *words): pass
    def flush(self): pass
    def close(self): pass

    def add_scalar(self, name, value, step):
        if FAILS and step >= 2:
            raise ConnectionError("the quota\\nis used up")
        with self.file.open("a") as file:
            file.write(json.dumps([name, value, step]) + "\\n")
"""


@pytest.fixture
def tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Installs a tracker that writes down what it hears, or fails from step 2 on."""
    package = tmp_path / "site" / "tensorboardX"
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    yield lambda fails: void((package / "__init__.py").write_text(f"FAILS = {fails}\n{WRITER}", encoding="utf-8"))
    sys.modules.pop("tensorboardX", None)


def void(_: Any) -> None:
    pass


def lines(path: Path) -> list[Metrics]:
    return [convert(values, Metrics) for _, values in json_lines(path / "metrics.jsonl")]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Train, Validation, Final])
def test_every_number_of_a_line_has_a_name_a_unit_and_a_meaning(kind: type[Any]) -> None:
    fields = {f"{PREFIXES[kind]}{name}" for name in kind.__struct_fields__ if name not in NO_NUMBERS}
    assert fields <= NAMES.keys()
    if PREFIXES[kind]:
        assert fields == {name for name in NAMES if name.startswith(PREFIXES[kind])}
    assert all(each.meaning for each in NAMES.values())


def test_no_name_is_made_up() -> None:
    fields = {f"{prefix}{name}" for kind, prefix in PREFIXES.items() for name in kind.__struct_fields__}
    assert {name for name in NAMES if not name.startswith("layers/")} <= fields


def test_numbers_that_are_none_or_not_finite_are_left_out() -> None:
    record = Train(step=3, tokens=9, loss=float("nan"), lr_matrix=None, refreshed=True, layers=UNSET, batch_hash="abc")
    heard = scalars(record)
    assert {name: value for name, value in heard.items() if name in ("loss", "lr_matrix", "batch_hash")} == {}
    assert (heard["tokens"], heard["refreshed"]) == (9.0, 1.0)
    assert "step" not in heard


@pytest.mark.parametrize("method", ["adamw", "cegm"])
def test_a_tracker_hears_every_number_of_every_line_at_its_step(
    method: str, run_config: Make, tmp_path: Path, tensorboard: Callable[[bool], None]
) -> None:
    tensorboard(False)
    train(run_config(method=method, report_to="tensorboard", max_steps=3, logging_steps=1, eval_steps=2))
    events = (tmp_path / "run" / "tensorboard" / "events").read_text(encoding="utf-8").splitlines()
    heard = {(name, step): value for name, value, step in map(json.loads, events)}
    written = lines(tmp_path / "run")
    expected = {}
    for record in written:
        step = record.steps if isinstance(record, Final) else record.step
        for name, value in scalars(record).items():
            shown = f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
            expected[shown, step] = value
    assert heard == expected
    names = {name for record in written for name in scalars(record)}
    assert {_general(name) for name in names} <= NAMES.keys()
    assert any(name.startswith("layers/") for name in names)


def _general(name: str) -> str:
    """The name with any layer's in place of this one's."""
    if not name.startswith("layers/"):
        return name
    return "/".join(["layers", LAYER, name.rsplit("/", 1)[1]])


def test_mlflow_gets_one_run_with_the_names_of_the_page(
    run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    train(run_config(report_to="mlflow", max_steps=2, logging_steps=1))
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    heard = run.data.metrics
    assert {_general(name) for name in heard} <= NAMES.keys()
    (final,) = (record for record in lines(tmp_path / "run") if isinstance(record, Final))
    assert heard["final_loss"] == pytest.approx(final.loss)
    assert run.info.status == "FINISHED"


def test_a_tracker_that_fails_later_is_told_once_and_the_run_ends_well(
    run_config: Make, tmp_path: Path, tensorboard: Callable[[bool], None]
) -> None:
    tensorboard(True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        summary = train(run_config(report_to="tensorboard", max_steps=4, logging_steps=1))
    told = [str(each.message) for each in caught if "report_to" in str(each.message)]
    assert told == [
        "report_to 'tensorboard' failed and hears no more of this run, which goes on (ConnectionError: the quota is used up); "
        "metrics.jsonl has all of it"
    ]
    assert summary.steps == 4
    assert [record.step for record in lines(tmp_path / "run") if isinstance(record, Train)] == [1, 2, 3, 4]
