"""One real comparison from the command line to the page, and what a repetition of it does."""

import json
from pathlib import Path

import pandas as pd
import pytest

for extra in ("trl", "altair", "statsmodels"):
    pytest.importorskip(extra)

from cegm.lab import report  # noqa: E402
from cegm.lab.cli import main  # noqa: E402
from cegm.lab.compare import comparison as module  # noqa: E402
from cegm.lab.compare.compare_config import CompareConfig, from_names  # noqa: E402
from cegm.lab.compare.comparison import write_results  # noqa: E402
from cegm.lab.compare.plan import read_plan  # noqa: E402
from cegm.lab.report.runs import MEASURED, read  # noqa: E402

SENTENCES = [
    "the miller opened the door",
    "a cold wind came down the hill",
    "nobody spoke of the harvest again",
    "she counted the coins twice",
]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    root = tmp_path_factory.mktemp("comparison")
    text = root / "book.txt"
    text.write_text("\n".join(f"{SENTENCES[i % 4]} and {SENTENCES[i % 3]}, {i}." for i in range(400)), encoding="utf-8")
    arguments = [
        "compare",
        "--data",
        str(text),
        "--output_dir",
        str(root / "out"),
        "--seeds",
        "2",
        "--methods",
        "muon,cegm",
    ]
    arguments += ["--max_steps", "4", "--max_length", "32", "--per_device_train_batch_size", "2", "--eval_rows", "4"]
    arguments += ["--eval_steps", "2", "--logging_steps", "1", "--axes", "none", "--equal_seconds", "false"]
    assert main(arguments) == 0
    return root / "out", arguments


def test_every_planned_run_has_a_row_and_seeds_are_paired(comparison):
    folder, _ = comparison
    plan = [json.loads(line) for line in (folder / "plan.jsonl").read_text().splitlines()]
    rows = pd.read_parquet(folder / "results.parquet")
    assert sorted(rows["id"]) == sorted(line["id"] for line in plan)
    assert list(rows["status"]) == ["finished"] * 4
    for _, pair in rows.groupby("seed"):
        assert pair["initial_hash"].nunique() == 1
        assert pair["batch_hash"].nunique() == 1
        assert pair["final_hash"].nunique() == 2
    assert rows["initial_hash"].nunique() == rows["batch_hash"].nunique() == 2


def test_verdict_and_page_are_there(comparison):
    folder, _ = comparison
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 1_200_000


def test_equal_seconds_that_were_switched_off_are_filled_in_nowhere(comparison):
    folder, _ = comparison
    assert set(pd.read_parquet(folder / "results.parquet")["role"]) == {"main"}
    verdict = json.loads((folder / "verdict.json").read_text())
    measure = next(one for one in verdict["measures"] if one["name"] == "equal_seconds")
    assert measure["methods"] == {}
    assert [pair["effect"] for pair in measure["pairs"]] == [None]
    head, *rows = (line.split("  ") for line in report.table(folder).splitlines()[:3])
    place = [cell.strip() for cell in head if cell].index("bits/byte, equal s")
    assert {[cell.strip() for cell in row if cell][place] for row in rows} == {"\N{EN DASH}"}
    section = (folder / "report.html").read_text(encoding="utf-8").split('id="seconds"')[1].split("</section>")[0]
    assert "Not measured in this comparison." in section


def test_two_seeds_show_themselves_in_place_of_an_interval(comparison):
    folder, _ = comparison
    verdict = json.loads((folder / "verdict.json").read_text())
    pairs = [pair for measure in verdict["measures"] for pair in measure["pairs"] if pair["effect"] is not None]
    assert pairs
    assert all(pair["interval"] is None and len(pair["points"]) == 2 for pair in pairs)
    text = report.table(folder)
    assert "by seed" in text
    assert "95 % interval " not in text.replace("a 95 % interval excludes", "")


def test_tables_reach_the_disk_whole_or_not_at_all(comparison, tmp_path, monkeypatch):
    folder, _ = comparison
    runs = read_plan(folder)
    results = {run.id: json.loads((folder / "runs" / run.name / "result.json").read_text()) for run in runs}
    for name in ("results.parquet", "items.parquet"):
        (tmp_path / name).write_bytes(b"as it was")

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("cegm.durable.os.fsync", full)
        write_results(tmp_path, runs, results)
    assert (tmp_path / "results.parquet").read_bytes() == b"as it was"
    write_results(tmp_path, runs, results)
    assert len(pd.read_parquet(tmp_path / "results.parquet")) == 4
    assert not list(tmp_path.glob("*.partial"))


def test_damaged_items_of_a_finished_run_are_named_with_the_remedy(comparison, tmp_path):
    folder, _ = comparison
    (run, *_) = read_plan(folder)
    result = json.loads((folder / "runs" / run.name / "result.json").read_text())
    items = tmp_path / "runs" / run.name / "items.jsonl"
    items.parent.mkdir(parents=True)
    items.write_text('{"axis": "steps", "score": 1.0}\n{"axis": "ste')
    with pytest.raises(ValueError, match=r"items\.jsonl line 2 is not JSON.*; delete .* to run it again") as error:
        write_results(tmp_path, [run], {run.id: result})
    assert "\n" not in str(error.value)


def test_repeating_it_runs_nothing(comparison, monkeypatch):
    folder, arguments = comparison

    def refuse(*_):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr("cegm.lab.compare.launch.LocalLauncher.start", refuse)
    before = (folder / "results.parquet").read_bytes()
    assert main(arguments) == 0
    assert (folder / "results.parquet").read_bytes() == before


def test_the_same_text_under_another_name_is_the_same_comparison(comparison, monkeypatch, tmp_path):
    folder, arguments = comparison
    monkeypatch.setattr(
        "cegm.lab.compare.launch.LocalLauncher.start", lambda *_: pytest.fail("a finished run was started")
    )
    moved = tmp_path / "moved.TXT"
    moved.write_bytes(Path(arguments[2]).read_bytes())
    before = (folder / "results.parquet").read_bytes()
    assert main([*arguments, "--data", str(moved)]) == 0
    assert (folder / "results.parquet").read_bytes() == before
    assert main(arguments) == 0


@pytest.mark.parametrize("measured", ["overhead.json", "drill.json"])
def test_what_was_measured_beside_other_runs_is_not_shown_and_this_is_told(comparison, capsys, measured):
    folder, arguments = comparison
    content = {name: [] for name in MEASURED[measured]}
    (folder / measured).write_text(json.dumps({**content, "inputs": {"meaning": 0}}))
    try:
        assert main(arguments) == 0
        assert f"{folder / measured} is of another text or model and not shown" in capsys.readouterr().err
        seen = read(folder)
        assert seen.overhead is seen.drill is None
    finally:
        (folder / measured).unlink()


def test_another_text_under_the_same_name_is_another_comparison(comparison, monkeypatch):
    """Nothing of the old one is shown: its runs are started anew."""
    folder, arguments = comparison
    text, before = Path(arguments[2]), {path.name for path in (folder / "runs").iterdir()}
    content, started = text.read_text(), []

    def start(_, place, planned):
        started.append(planned.name)
        raise ValueError("enough seen")

    text.write_text(content.replace("miller", "Miller"))
    try:
        with monkeypatch.context() as patch:
            patch.setattr("cegm.lab.compare.launch.LocalLauncher.start", start)
            assert main(arguments) == 2
        assert not (folder / "verdict.json").exists(), "that of the other text"
    finally:
        text.write_text(content)
        assert main(arguments) == 0  # the first comparison is there again, and nothing had to be trained
    assert started
    assert not set(started) & before
    assert {path.name for path in (folder / "runs").iterdir()} == before


def test_a_run_whose_tries_nobody_counted_is_a_run_like_any_other(comparison):
    """The command was killed after a run had written its result and before it wrote down which try that was."""
    folder, arguments = comparison
    before = pd.read_parquet(folder / "results.parquet")
    first = next(
        path for path in sorted(folder.glob("runs/*/result.json")) if path.parent.name.endswith(before["id"][0])
    )
    result = json.loads(first.read_text())
    assert result.pop("attempts") == 1
    first.write_text(json.dumps(result))
    assert main(arguments) == 0
    after = pd.read_parquet(folder / "results.parquet")
    assert after["attempts"].isna().tolist() == [True, False, False, False]
    pd.testing.assert_frame_equal(after.drop(columns="attempts"), before.drop(columns="attempts"), check_like=True)
    assert after["attempts"].dtype == before["attempts"].dtype


def test_a_lost_run_alone_is_repeated_with_the_same_numbers(comparison):
    folder, arguments = comparison
    before = pd.read_parquet(folder / "results.parquet").set_index("id")
    lost = min((folder / "runs").iterdir())
    (lost / "result.json").unlink()
    assert main(arguments) == 0
    after = pd.read_parquet(folder / "results.parquet").set_index("id")
    assert (after["final_loss"] == before["final_loss"]).all()
    assert (after["final_hash"] == before["final_hash"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nothing.txt"], "nothing.txt does not exist"),
        (["--cegm.scores", "unifrom"], "did you mean 'uniform'"),
        (["--muon.heads", "2"], "muon has no option 'heads'"),
        (["--max_length", "9000", "--max_steps", "1"], "beyond the 8192 positions"),
    ],
)
def test_what_would_fail_in_every_run_is_one_line_before_anything_is_written(arguments, message, tmp_path, capsys):
    assert main(["compare", "--output_dir", str(tmp_path / "a" / "b"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["tiny", "some/model"])
def test_a_comparison_from_trained_weights_says_how_fast_each_method_learns(tmp_path, monkeypatch, capsys, model):
    for name in ("require_possible", "_compare", "write_verdict"):
        monkeypatch.setattr(module, name, lambda *_: None)
    config = from_names(
        CompareConfig, {"model_name_or_path": model, "methods": "adamw,cegm", "output_dir": str(tmp_path / "out")}
    )
    module.compare(config)
    said = [config.run(method, 0).pace for method in ("adamw", "cegm")]
    assert capsys.readouterr().out.splitlines() == ([] if model == "tiny" else said)
