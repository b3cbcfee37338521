"""Processes that only pretend to train: they start at once, and die as often as a test wants."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cegm.lab.compare.launch import LOG, LocalProcess

PRETEND = """
import json, pathlib, sys
folder, line, failures = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
tried = folder / "tries"
count = int(tried.read_text()) + 1 if tried.exists() else 1
tried.write_text(str(count))
print("try", count, flush=True)
(folder / "metrics.jsonl").write_text('{"kind": "train", "step": 7}\\n')
(folder / "checkpoints").mkdir(exist_ok=True)
if count <= failures:
    sys.exit("the disk is full")
(folder / "model").mkdir(exist_ok=True)
(folder / "model" / "weights").write_bytes(bytes(range(256)) * 10)
(folder / "empty").touch()
(folder / "result.json").write_text(json.dumps({"id": line["id"], "status": "finished", "tries": count}))
(folder / "checkpoints").rmdir()
"""

SLEEP = "import time; time.sleep(60)"


class PretendedProcess(LocalProcess):
    """Ends without a result `failures` times, and leaves a checkpoint then; after that it finishes."""

    script = PRETEND

    def __init__(
        self, run_folder: Path, line: dict[str, Any], directory: Path | None = None, *, failures: int = 0
    ) -> None:
        run_folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-S", "-c", self.script, str(run_folder), json.dumps(line), str(failures)]
        with (run_folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=directory)


class Sleeper(PretendedProcess):
    """Does not end by itself."""

    script = SLEEP


class DiesOnce(PretendedProcess):
    """Ends without a result the first time."""

    def __init__(self, run_folder: Path, line: dict[str, Any], directory: Path | None = None) -> None:
        super().__init__(run_folder, line, directory, failures=1)
