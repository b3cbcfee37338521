"""What could not be tried is said with its reason, and nothing of the machine is."""

import sys

import pytest

import matrix
from matrix import Allowance, NotTriedError, Row


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("  Downloading torch-2.13.0-cp310-cp310-manylinux_2_28_x86_64.whl (899.7 MB)", 899.7e6),
        ("Downloading https://host/packages/mpmath-1.3.0-py3-none-any.whl (536 kB)", 536e3),
        ("  Downloading a-1.whl (1.5 GB)", 1.5e9),
        ("  Using cached torch-2.13.0.whl (899.7 MB)", 0),
        ("Processing torch-2.13.0.whl", 0),
    ],
)
def test_what_pip_announces_is_counted(line, size):
    allowance = Allowance(2e9)
    allowance.take(line)
    assert (allowance.left, allowance.spent) == (2e9 - size, size)


def test_more_than_is_allowed_is_refused_with_its_size():
    with pytest.raises(NotTriedError, match=r"^needs 0\.9 GB for torch alone, 0\.5 allowed$"):
        Allowance(0.5e9).take("Downloading torch-2.13.0-cp310.whl (899.7 MB)")


def test_a_command_that_would_fetch_too_much_is_ended():
    code = "import time; print('Downloading torch-2.whl (2.0 GB)'); time.sleep(60)"
    with pytest.raises(NotTriedError):
        matrix.run([sys.executable, "-c", code], Allowance(1e9))


def test_a_failure_is_one_line_without_folders_and_addresses():
    words = "start\nERROR: Could not open https://host/simple/x.whl under '/home/me/x': no\nnotice: update pip\n"
    assert matrix.told(words) == "ERROR: Could not open ... under '...': no"
    with pytest.raises(RuntimeError, match=r"^ValueError: no such thing$"):
        matrix.run([sys.executable, "-c", "raise ValueError('no such thing')"])


def test_a_python_that_is_missing_is_not_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix.shutil, "which", lambda name: None)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    row = matrix.tried(Row("3.10", "2.13.0", "wheel"), tmp_path, Allowance(1e9), tmp_path)
    assert (row.result, row.reason) == ("not tried here", "there is no Python 3.10")


def test_every_combination_is_planned_and_the_source_too():
    rows = {(row.python, row.torch, row.package) for row in matrix.planned()}
    assert {(p, t, "wheel") for p in matrix.PYTHONS for t in matrix.TORCHES} <= rows
    assert {package for _, _, package in rows} == {"wheel", "sdist"}
