"""What runs do when something breaks: the same faults in `cegm train` and in a plain transformers Trainer with the same model and rows.

    python benchmarks/reliability.py --output benchmarks/results/reliability/faults.jsonl --table docs/reliability.md

Every fault goes into a run of twelve steps with a checkpoint every three. A run that dies or stops is resumed, without the fault, as
its users would; then its final weights are compared, to the bit, with those of the run that nobody disturbed. A run that ends with
other weights and had no word about it is silently wrong. Nothing in the table is written by hand. The full disk is a small
tmpfs, which needs root.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import faults
from cegm.lab.train import audit, checkpoints
from faults import ALONE, SAVE, SIDES, Way, outcome

Line = dict[str, Any]
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
BOTH: Way = (2, "ddp")
SHARDS: Way = (2, "fsdp")
KILLS = 20
LONGEST = 0.4
"""Seconds between the beginning of a step and a kill: some fall into the step, some into the next one or a checkpoint."""


class Drill:
    """One side under all faults."""

    def __init__(self, side: str, place: Path, seed: int) -> None:
        self.side, self.place, self.draw = side, place, random.Random(seed)
        self.lines: list[Line] = []
        ways = [ALONE, BOTH, SHARDS] if side == "cegm" else [ALONE, BOTH]
        self.undisturbed = {way: outcome(side, place, undisturbed(place, way), way=way) for way in ways}

    def weights(self, way: Way) -> str:
        return str(main(self.undisturbed[way])["weights"])

    def within(
        self,
        name: str,
        target: str,
        fault: Line,
        way: Way = ALONE,
        mend: Callable[[], Any] = list,
        folder: Path | None = None,
    ) -> None:
        """A run with a fault in it; if it dies or stops, `mend`, then a resumption."""
        folder = self.place / "run" if folder is None else folder
        first = outcome(self.side, self.place, folder, fault=fault, way=way)
        if main(first).get("ended") and fault["kind"] != "kill":
            self.note(name, target, first=first, last=first, folder=folder, way=way)
        else:
            mend()
            self.resumed(name, target, folder, first, way)

    def resumed(self, name: str, target: str, folder: Path, first: Line, way: Way = ALONE) -> None:
        """Resumes what a fault left behind, or starts again where there is no checkpoint yet."""
        done, there = steps_done(self.side, folder), checkpoint_steps(self.side, folder)
        whole = newest_whole(self.side, folder)
        if not there:
            shutil.rmtree(folder, ignore_errors=True)
        last = outcome(self.side, self.place, folder, resume=bool(there), way=way)
        begun = resumed_at(self.side, folder, there) if main(last).get("ended") else None
        self.note(
            name,
            target,
            first=first,
            last=last,
            folder=folder,
            way=way,
            done=done,
            newest_whole=whole,
            resumed_at=begun,
        )

    def note(self, name: str, target: str, first: Line, last: Line, folder: Path, way: Way, **facts: Any) -> None:
        ended = bool(main(last).get("ended"))
        begun, done = facts.get("resumed_at"), facts.get("done")
        said = (
            [part.get("error") for part in parts(first) if part.get("error")]
            or main(first).get("warned")
            or notes(self.side, folder)
        )
        said = said or [part.get("error") for part in parts(last) if part.get("error")]
        line = {
            "fault": name, "target": target, "side": self.side, "ranks": way[0], "sharding": way[1], **facts, "ended": ended,
            "same": ended and main(last)["weights"] == self.weights(way), "finite": main(last).get("finite"),
            "said": [str(text).replace(f"{self.place}/", "") for text in said[:1]],
            "lost": None if begun is None or done is None else max(0, done - begun),
            "hanging": any(part["hanging"] for part in (*parts(first), *parts(last))), "status": [part["status"] for part in parts(first)],
        }  # fmt: skip
        self.lines.append(line)
        print(json.dumps(line), flush=True)
        shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------------ faults

    def all(self) -> None:
        for number in range(KILLS):
            step, seconds = self.draw.randint(1, faults.STEPS), self.draw.uniform(0.0, LONGEST)
            self.within("killed at a random moment", f"{number}", {"kind": "kill", "step": step, "seconds": seconds})
        for kind, name in (
            ("data", "NaN in the data"),
            ("gradient", "NaN in a gradient"),
            ("context", "NaN in a context"),
        ):
            if kind != "context" or self.side == "cegm":
                self.within(name, "step 7", {"kind": kind, "step": 7})
        for way, name in ((BOTH, "one of two ranks"), (SHARDS, "one of two ranks with shards")):
            if way in self.undisturbed:
                at = {"step": 8, "rank": 1}
                self.within(f"{name} killed", "rank 1, step 8", {"kind": "die", **at}, way)
                self.within(f"NaN in a gradient of {name}", "rank 1, step 8", {"kind": "gradient", **at}, way)
        seconds = float(self.undisturbed[ALONE]["seconds"])
        self.within("clock jumps back a day", "midway", {"kind": "clock", "seconds": 0.6 * seconds})
        self.disk()
        self.files()

    def files(self) -> None:
        """Every file of the newest checkpoint, cut, flipped and missing."""
        source = self.place / "source"
        first = outcome(self.side, self.place, source, fault={"kind": "die", "step": 11})
        newest = newest_checkpoint(self.side, source).relative_to(source)
        for path in sorted(each for each in (source / newest).rglob("*") if each.is_file()):
            for how in ("cut", "flipped", "missing"):
                folder = self.place / "run"
                shutil.copytree(source, folder)
                damage(folder / path.relative_to(source), how, self.draw)
                self.resumed(f"file of the newest checkpoint {how}", path.name, folder, first)

    def disk(self) -> None:
        """A file system that is full in the middle of a run, and large enough for its resumption."""
        needed = sum(path.stat().st_size for path in undisturbed(self.place, ALONE).rglob("*") if path.is_file())
        disk = self.place / "disk"
        disk.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={int(0.6 * needed) // 4096 * 4}k", "tmpfs", disk], check=True
        )
        try:
            larger = ["mount", "-o", f"remount,size={needed * 4 // 1024}k", str(disk)]
            self.within(
                "disk full",
                "tmpfs",
                {"kind": "none"},
                mend=lambda: subprocess.run(larger, check=True),
                folder=disk / "run",
            )
        finally:
            subprocess.run(["umount", disk], check=True)


def undisturbed(place: Path, way: Way) -> Path:
    """Folder of the run that nobody disturbed."""
    return place / f"whole-{way[0]}-{way[1]}"


def damage(path: Path, how: str, draw: random.Random) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        at = draw.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :])


# ---------------------------------------------------------------------- what is there


def parts(found: Line) -> list[Line]:
    return list(found.get("ranks", [found]))


def main(found: Line) -> Line:
    """What the process that writes said."""
    return parts(found)[0]


def place_of_checkpoints(side: str, folder: Path) -> tuple[Path, str]:
    return (folder / "checkpoints", "step-") if side == "cegm" else (folder, "checkpoint-")


def checkpoint_steps(side: str, folder: Path) -> list[int]:
    where, prefix = place_of_checkpoints(side, folder)
    return sorted(
        int(path.name.removeprefix(prefix)) for path in where.glob(f"{prefix}*") if path.name[len(prefix) :].isdecimal()
    )


def newest_checkpoint(side: str, folder: Path) -> Path:
    where, prefix = place_of_checkpoints(side, folder)
    return where / f"{prefix}{checkpoint_steps(side, folder)[-1]}"


def newest_whole(side: str, folder: Path) -> int | None:
    """Step of the newest checkpoint that is whole; the plain Trainer has no way to know."""
    if side != "cegm":
        return None
    found, _ = checkpoints.newest(folder / "checkpoints", checkpoints.verify)
    return None if found is None else int(found.name.removeprefix(checkpoints.PREFIX))


def steps_done(side: str, folder: Path) -> int:
    """The last step that was noted before the run ended."""
    log = folder / ("metrics.jsonl" if side == "cegm" else "steps.txt")
    done = 0
    for text in log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []:
        done = max(done, json.loads(text).get("step") or 0 if side == "cegm" else int(text))
    return done


def resumed_at(side: str, folder: Path, there: list[int]) -> int:
    """The step that a run really went on from; 0 for one that started again."""
    if side != "cegm":
        return there[-1] if there else 0
    resumes = [event for event in audit.read(folder / "audit.jsonl")[0] if event["event"] == "resume"]
    return int(resumes[-1]["step"]) if resumes else 0


def notes(side: str, folder: Path) -> list[str]:
    """What a resumption said aloud."""
    log = folder / "audit.jsonl"
    return [note for event in (audit.read(log)[0] if log.exists() else []) for note in event.get("notes", [])]


# ---------------------------------------------------------------------- the table


def happened(lines: list[Line]) -> str:
    """One cell: how many ended how."""
    kinds = {
        "as undisturbed, to the bit": lambda one: one["same"],
        "stopped with an error and did not go on": lambda one: not one["ended"] and not one["hanging"],
        "**hung**": lambda one: one["hanging"],
        "other weights, and said so": lambda one: one["ended"] and not one["same"] and one["said"],
        "**silently wrong**": silently_wrong,
    }
    count = {kind: sum(bool(holds(one)) for one in lines) for kind, holds in kinds.items()}
    return "; ".join(f"{number} of {len(lines)} {kind}" for kind, number in count.items() if number) or "not tried"


def silently_wrong(line: Line) -> bool:
    return bool(line["ended"] and not line["same"] and not line["said"])


def lost(lines: list[Line]) -> str:
    """Steps taken again by those that ended right; a run that did not has lost more than steps."""
    numbers = sorted(one["lost"] or 0 for one in lines if one["same"])
    if not numbers:
        return "not told"
    if not numbers[-1]:
        return "nothing"
    spread = f"{numbers[0]} to {numbers[-1]}" if numbers[0] < numbers[-1] else str(numbers[-1])
    return f"{spread} {'step' if spread == '1' else 'steps'}"


def table(lines: list[Line]) -> str:
    """Markdown: a row per fault."""
    rows = ["| fault | `cegm train` | lost | transformers Trainer | lost |", "|---|---|---|---|---|"]
    for fault in dict.fromkeys(line["fault"] for line in lines):
        cells = []
        for side in SIDES:
            own = [line for line in lines if (line["fault"], line["side"]) == (fault, side)]
            cells += [happened(own), lost(own) if own else ""]
        rows.append(f"| {fault} | {' | '.join(cells)} |")
    return "\n".join(rows)


def put_table(page: Path, lines: list[Line]) -> None:
    """Replaces what stands between the markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table(lines)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--table", type=Path, help="page whose table is replaced")
    arguments = parser.parse_args()
    lines = []
    for side in SIDES:
        with tempfile.TemporaryDirectory() as place:
            faults.write_parts(Path(place))
            drill = Drill(side, Path(place), arguments.seed)
            drill.all()
            lines += drill.lines
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    settings = {"steps": faults.STEPS, "save_steps": SAVE, "kills": KILLS, "seed": arguments.seed, "versions": versions}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("".join(json.dumps(line) + "\n" for line in [settings, *lines]), encoding="utf-8")
    if arguments.table:
        put_table(arguments.table, lines)
    print(table(lines))


if __name__ == "__main__":
    run()
