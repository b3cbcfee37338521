"""One real comparison from the command line to the page, and what a repetition of it does."""

import json

import pandas as pd
import pytest

for extra in ("trl", "altair", "statsmodels"):
    pytest.importorskip(extra)

from cegm.cli import main  # noqa: E402

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
    assert len(page.encode()) < 1_500_000


def test_repeating_it_runs_nothing(comparison, monkeypatch):
    folder, arguments = comparison

    def refuse(*_):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr("cegm.compare.launch.LocalLauncher.start", refuse)
    before = (folder / "results.parquet").read_bytes()
    assert main(arguments) == 0
    assert (folder / "results.parquet").read_bytes() == before


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
        (["--max_length", "9000"], "beyond the 8192 positions"),
    ],
)
def test_what_would_fail_in_every_run_is_one_line_before_anything_is_written(arguments, message, tmp_path, capsys):
    assert main(["compare", "--output_dir", str(tmp_path / "a" / "b"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
