"""Builds wheel and sdist, installs them on every supported Python and torch, and trains three steps on each: `make matrix`.

    python benchmarks/matrix.py --output benchmarks/results/release --gigabytes 0.5

`matrix.csv` gets a line per combination. Only the core is installed, so torch is all that comes with it; the line without
torch says that the package installs, compiles and tells its version. What this machine lacks, or what would bring more
than was allowed, is written down as not tried, with the reason, so that somebody else can try it.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "benchmarks/core_alone.py"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
TORCHES = ("2.10.0", "2.13.0")
NOTHING = "none"

BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
ANNOUNCED = re.compile(r"Downloading \S*?([^/\s]+) \(([\d.]+) ([kMG]?B)\)")
"""What pip says before it fetches a file."""


class NotTriedError(Exception):
    """Why a combination cannot be tried here, in one line."""


@dataclass
class Row:
    """One combination, as `matrix.csv` has it."""

    python: str
    torch: str
    package: str
    result: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0
    reason: str = ""


@dataclass
class Allowance:
    """Bytes that may still be fetched."""

    left: float
    spent: float = 0.0

    def take(self, line: str) -> None:
        """Counts what pip announces.

        Raises:
            NotTriedError: It is more than is left.
        """
        found = ANNOUNCED.search(line)
        if not found:
            return
        size = float(found[2]) * BYTES[found[3]]
        if size > self.left:
            raise NotTriedError(
                f"needs {size / 1e9:.1f} GB for {found[1].partition('-')[0]} alone, {self.left / 1e9:.1f} allowed"
            )
        self.left -= size
        self.spent += size


def interpreter(version: str) -> str:
    """A Python of a version: on the path, or among those of pyenv.

    Raises:
        NotTriedError: There is none.
    """
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python{version}"), *sorted(map(str, home.glob(f"versions/{version}.*/bin/python")))]
    for each in found:
        if each and not subprocess.run([each, "-c", ""], capture_output=True, check=False).returncode:
            return each
    raise NotTriedError(f"there is no Python {version}")


def told(words: str) -> str:
    """The last line of what a command said, without folders and addresses of this machine."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if "ERROR" in line or "Error" in line), lines[-1] if lines else "")
    return re.sub(r"(?:\w+:/)?(?<![\w.])/[^\s'\"]+", "...", last)[:200]


def run(command: list[str], allowance: Allowance | None = None) -> str:
    """What a command prints; downloads that it announces are counted, and it ends where they are too many.

    Raises:
        NotTriedError: It would fetch more than is allowed.
        RuntimeError: It failed; in one line.
    """
    quiet = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", env=quiet)
    assert process.stdout is not None
    words = []
    try:
        for line in process.stdout:
            words.append(line)
            if allowance:
                allowance.take(line)
    finally:
        if process.poll() is None and sys.exc_info()[0]:
            process.kill()
        process.wait()
    if process.returncode:
        raise RuntimeError(told("".join(words)))
    return "".join(words)


def tried(row: Row, package: Path, allowance: Allowance, folder: Path) -> Row:
    """The row, filled: the package in a fresh environment with this Python and torch, and what it did there."""
    begun, fetched = time.perf_counter(), allowance.spent
    try:
        python = str(folder / "bin/python")
        run([interpreter(row.python), "-m", "venv", str(folder)])
        row.python = run([python, "-c", "import platform; print(platform.python_version())"]).strip()
        install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
        if row.torch != NOTHING:
            run([*install, f"torch=={row.torch}"], allowance)
            row.torch = run([python, "-c", "import torch; print(torch.__version__)"]).split()[-1]
        run([*install, *(["--no-deps"] if row.torch == NOTHING else []), str(package)], allowance)
        run(
            [
                python,
                "-I",
                "-c",
                "import cegm, compileall, sys; sys.exit(not compileall.compile_dir(cegm.__path__[0], quiet=1))",
            ]
        )
        run([str(folder / "bin/cegm"), "--version"])
        if row.torch != NOTHING:
            run([python, "-I", str(PROGRAM)])
        row.result = "passed"
    except NotTriedError as error:
        row.result, row.reason = "not tried here", str(error)
    except RuntimeError as error:
        row.result, row.reason = "failed", str(error)
    row.seconds, row.megabytes = round(time.perf_counter() - begun, 1), round((allowance.spent - fetched) / 1e6, 1)
    return row


def planned() -> list[Row]:
    """Every combination; the source distribution on the newest Python without torch, and on one with it."""
    rows = [Row(python, torch, "wheel") for python in PYTHONS for torch in (NOTHING, *TORCHES)]
    return [*rows, Row(PYTHONS[-1], NOTHING, "sdist"), Row("3.11", TORCHES[-1], "sdist")]


def built(folder: Path) -> dict[str, Path]:
    """Wheel and source distribution of the code as it is."""
    run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)])
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of matrix.csv")
    parser.add_argument("--gigabytes", type=float, default=0.5, help="that may be fetched in all")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    allowance, rows = Allowance(arguments.gigabytes * 1e9), []
    with tempfile.TemporaryDirectory() as place:
        packages = built(Path(place))
        for row in planned():
            environment = Path(place) / "environment"
            rows.append(tried(row, packages[row.package], allowance, environment))
            shutil.rmtree(environment, ignore_errors=True)
            print(
                f"Python {row.python}, torch {row.torch}, {row.package}: {row.result}{row.reason and ': '}{row.reason}",
                flush=True,
            )
    with (arguments.output / "matrix.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    return int(any(row.result == "failed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
