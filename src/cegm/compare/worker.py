"""One run of a comparison in a process of its own: train, measure, write `result.json`.

Run as `python -m cegm.compare.worker RUN_FOLDER PLAN_LINE`, where PLAN_LINE is a line of `plan.jsonl`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from cegm.compare.config import LENGTHS
from cegm.compare.plan import PlannedRun, write_whole
from cegm.train.config import WORLD, RunConfig


def execute(folder: Path, planned: PlannedRun) -> dict[str, Any]:
    """Trains and measures one run; the folder of a broken earlier attempt is replaced.

    Returns:
        What goes into `result.json`.
    """
    from cegm.train.run import train

    for name in ("config.yaml", "metrics.jsonl", "audit.jsonl", "model", "checkpoints", "items.jsonl"):
        leftover = folder / name
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    summary = train(RunConfig(**{**planned.config, "output_dir": str(folder)}))
    items = measure_retention(folder, planned) if planned.evaluation["retention"] else []
    with (folder / "items.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(item) + "\n" for item in items)
    facts = asdict(summary)
    return {
        "id": planned.id,
        "method": planned.method,
        "seed": planned.seed,
        "role": planned.role,
        "status": "finished",
        "error": None,
        "final_loss": facts.pop("loss"),
        "trained_length": planned.config["max_length"],
        "retention": by_length(items),
        **{name: value for name, value in facts.items() if name != "output_dir"},
    }


def measure_retention(folder: Path, planned: PlannedRun) -> list[dict[str, Any]]:
    """Retention items of the saved model, at every length that its positions and the held-out text reach; perhaps none."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cegm.tasks import retention
    from cegm.train.data import load_corpus

    config = RunConfig(**{**planned.config, "output_dir": str(folder)})
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    held_out: Any = WORLD if config.data == WORLD else load_corpus(config).validation
    lengths = [n for n in LENGTHS if n <= model.config.max_position_embeddings]
    reason = f"the model has {model.config.max_position_embeddings} positions"
    while lengths:
        try:
            # One set of questions for all runs: the seed of a run decides its training, never its examination.
            records = retention.evaluate(
                model, tokenizer, data=held_out, lengths=lengths, items_per_length=planned.evaluation["items"], seed=0
            )
            return [asdict(record) for record in records]
        except ValueError as error:  # held-out text too short for the longest context: a shorter one may do
            reason = str(error)
            lengths.pop()
    print(f"context retention was not measured: {reason}")
    return []


def by_length(items: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean accuracy, continuous score and chance at each length."""
    levels: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        levels[item["level"]].append(item)
    return {
        str(level): {
            "accuracy": mean(item["score"] for item in members),
            "score": mean(item["continuous"] for item in members),
            "chance": mean(item["chance"] for item in members),
            "items": len(members),
        }
        for level, members in sorted(levels.items())
    }


def main() -> None:
    """Entry point of the process; a user error ends it with one line and exit code 2."""
    folder, line = Path(sys.argv[1]), json.loads(sys.argv[2])
    planned = PlannedRun(**{name: value for name, value in line.items() if name != "id"})
    try:
        result = execute(folder, planned)
    except (ValueError, OSError, RuntimeError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    write_whole(folder / "result.json", json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
