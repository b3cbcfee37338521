"""Runs the tests as other machines would: with other numbers of threads and other instruction sets, and says what differs.

    python benchmarks/machines.py --output benchmarks/results/suite
    python benchmarks/machines.py --output /tmp/part --threads 1 --instructions avx2 -- tests/mapping tests/context

An instruction set changes the order in which torch, MKL, oneDNN and numpy add, and so the last bits of everything. Each run
also has a seed for hashes, a time zone and a locale of its own, and every second one begins with the last test, which must make no
difference either; hypothesis draws the same examples in all. `machines.csv` gets a line per run; `margins.csv` says of each
comparison within a tolerance how much of it was used at worst, and where. A tolerance that is nearly used up is one that hangs
on the machine.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Row = dict[str, Any]
Place = tuple[str, str]

INSTRUCTIONS = {
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",  # what MKL does on processors it does not know
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "avx512": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "OPENBLAS_CORETYPE": "SkylakeX",
    },
    "own": {},
}
"""What torch, MKL, oneDNN and numpy may use, from what every processor has to whatever this one has."""

SURROUNDINGS = (("UTC", "C.UTF-8"), ("Asia/Kathmandu", "POSIX"), ("America/St_Johns", "C"))
"""Time zones, two of them off the full hour, and locales."""

COLUMNS = (
    "threads", "instructions", "hash_seed", "time_zone", "locale", "order", "passed", "skipped", "failed", "seconds", "failures",
    "processor", "torch",
)  # fmt: skip

LEAST = 0.05
"""Shares of a tolerance below this are left out of the table."""


def within_reach() -> list[str]:
    """The instruction sets that this processor has."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability().lower())"
    level = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    ).stdout.strip()
    names = list(INSTRUCTIONS)
    return [*names[: names.index(level) + 1], "own"]


def environment(threads: int, instructions: str, number: int) -> dict[str, str]:
    """What one machine differs in; the number picks what must make no difference."""
    zone, locale = SURROUNDINGS[number % len(SURROUNDINGS)]
    return {
        **INSTRUCTIONS[instructions],
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",  # threads that outnumber the cores would keep each other from working
        "PYTHONHASHSEED": str(number),
        "TZ": zone,
        "LC_ALL": locale,
        "CEGM_TEST_BACKWARDS": "1" * (number % 2),
    }


def run(threads: int, instructions: str, number: int, arguments: list[str]) -> tuple[Row, dict[Place, float]]:
    """One run of pytest as a line of the table, and the largest used share of a tolerance by file and function."""
    machine = environment(threads, instructions, number)
    with tempfile.TemporaryDirectory() as folder:
        written, begun = Path(folder) / "results.xml", time.perf_counter()
        watched = {"CEGM_TEST_MARGINS": folder}
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={written}", *arguments]
        code = subprocess.run(command, env={**os.environ, **machine, **watched}, check=False).returncode
        seconds = time.perf_counter() - begun
        suite = ElementTree.parse(written).getroot()[0] if written.exists() else ElementTree.Element("testsuite")
        margins = read_margins(Path(folder))
    failures = [
        f"{case.get('classname')}::{case.get('name')}" for case in suite if {c.tag for c in case} & {"failure", "error"}
    ]
    if code and not failures:
        failures = [f"pytest ended with code {code}"]
    skipped = int(suite.get("skipped", 0))
    return {
        "threads": threads,
        "instructions": instructions,
        "hash_seed": number,
        "time_zone": machine["TZ"],
        "locale": machine["LC_ALL"],
        "order": "backwards" if machine["CEGM_TEST_BACKWARDS"] else "forwards",
        "passed": max(0, int(suite.get("tests", 0)) - len(failures) - skipped),
        "skipped": skipped,
        "failed": len(failures),
        "seconds": round(seconds),
        "failures": " ".join(failures),
        "processor": processor(),
        "torch": metadata.version("torch"),
    }, margins


def read_margins(folder: Path) -> dict[Place, float]:
    """The largest shares over all processes of a run."""
    margins: dict[Place, float] = {}
    for path in folder.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            for name, function, share in csv.reader(file):
                margins[name, function] = max(margins.get((name, function), 0.0), float(share))
    return margins


def processor() -> str:
    """What the processor calls itself."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def write(path: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for machines.csv and margins.csv")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--instructions", nargs="+", choices=INSTRUCTIONS, default=None)
    parser.add_argument("tests", nargs="*", help="what pytest is given, after --; the whole suite without")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    worst: dict[Place, Row] = {}
    combinations = itertools.product(options.threads, options.instructions or within_reach())
    for number, (threads, instructions) in enumerate(combinations):
        row, margins = run(threads, instructions, number, options.tests)
        rows.append(row)
        for (file, function), share in margins.items():
            if share >= max(LEAST, worst.get((file, function), {"share": 0.0})["share"]):
                where = {"threads": threads, "instructions": instructions}
                worst[file, function] = {"file": file, "function": function, "share": round(share, 3), **where}
        write(options.output / "machines.csv", COLUMNS, rows)
        ordered = sorted(worst.values(), key=lambda line: -line["share"])
        write(options.output / "margins.csv", ("file", "function", "share", "threads", "instructions"), ordered)
        print({name: row[name] for name in ("threads", "instructions", "passed", "failed", "seconds")}, flush=True)
    return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
