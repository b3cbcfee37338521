"""A model between before and after a run, through the command line; adapters too."""

import pytest

for extra in ("trl", "peft", "msgspec"):
    pytest.importorskip(extra)

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from cegm.lab.cli import main  # noqa: E402
from cegm.lab.train.model import load_trained  # noqa: E402

QUICK = ["--max_steps", "2", "--max_length", "32", "--eval_steps", "0", "--eval_rows", "2", "--progress", "false"]


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before") / "run"
    assert main(["train", "--output_dir", str(folder), *QUICK]) == 0
    return folder / "model"


@pytest.mark.parametrize("flags", [[], ["--lora_r", "2"]], ids=["all weights", "adapters"])
def test_half_of_a_run_is_a_model_on_the_line_between(before, tmp_path, flags):
    run, half = tmp_path / "run", tmp_path / "half"
    start = ["train", "--model_name_or_path", str(before), "--learning_rate", "0.01", "--output_dir", str(run)]
    assert main([*start, *QUICK, *flags]) == 0
    assert main(["interpolate", str(run / "model"), "--share", "0.5", "--output", str(half)]) == 0
    first, last, found = (load_trained(str(path), False)[0].state_dict() for path in (before, run / "model", half))
    assert not all(torch.equal(first[name], last[name]) for name in last)
    for name, weight in found.items():
        torch.testing.assert_close(weight, (first[name] + last[name]) / 2, rtol=1e-5, atol=1e-7)
    assert load_file(half / "model.safetensors")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "MODEL"),
        (["BEFORE", "--share", "2"], "share=2"),
        (["BEFORE", "--output", "OUT"], "exists already"),
        (["COPY"], "give --before"),
    ],
)
def test_what_cannot_work_is_one_line(before, tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "copy").symlink_to(before)
    places = {"BEFORE": str(before), "OUT": str(tmp_path / "out"), "COPY": str(tmp_path / "copy")}
    assert main(["interpolate", *(places.get(flag, flag) for flag in flags)]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
