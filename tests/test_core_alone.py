"""The optimizer by itself: installed where torch is and nothing of the tool's, it trains."""

import re
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]

PROGRAM = ROOT / "benchmarks/core_alone.py"


def needed(name):
    """The distributions that torch needs, as they are installed here."""
    found, waiting = {}, [name]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        try:
            found[one] = metadata.distribution(one)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        for line in found[one].requires or ():
            if "extra ==" not in line:
                waiting.append(re.match(r"[\w.-]+", line).group())
    return found.values()


def test_the_core_alone_trains_where_only_torch_is_installed(tmp_path):
    copy, environment = tmp_path / "copy", tmp_path / "environment"
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(site), str(copy)], check=True, timeout=300)
    for distribution in needed("torch"):
        for top in {path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    done = subprocess.run(
        [python, "-I", "-W", "ignore", PROGRAM], capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    tool = subprocess.run(
        [python, "-I", "-c", "import transformers"], capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert "No module named 'transformers'" in tool.stderr
