"""Writes what the committed logs, options and names of scalars say into README.md and pages of docs: `make results`.

    python benchmarks/results_page.py

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`. A number of a sentence has its name behind it, as
in `1.06<!-- step.ratio -->`; a page shows no comments. Logs are read and nothing else, so whoever has the repository has
every number's origin; a test compares the pages with them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import kernel_table
import lora_table
import monitor_table
import part_tables
import peer_tables
import retention_front
from cegm.lab.train import metric_names
from cegm.momentum import AGES, running_means
from cegm.options import OPTIONS
from logs import MINUS, estimate, markdown, pair, verdict

ROOT = Path(__file__).parents[1]
RESULTS = (ROOT / "README.md", ROOT / "docs/results.md")
PAGES = (
    *RESULTS,
    *(ROOT / "docs" / name for name in ("method.md", "finetuning.md", "metrics.md", "retention.md", "runbook.md")),
)
TABLE = re.compile(r"<!-- (?P<name>\w+): begin -->\n(?P<made>.*?)<!-- (?P=name): end -->", re.DOTALL)
NAME = r"<!-- (?P<name>[\w.]+) -->"
NUMBER = re.compile(rf"(?P<made>(?:≤ )?[+{MINUS}]?\d[\d.,]*(?:\s\[[^\]]*\])?){NAME}")


def made_tables() -> dict[str, str]:
    """Every table by the name that its markers have."""
    small, large, axes = peer_tables.small_runs(), peer_tables.large_runs(), verdict("axes")
    return {
        "summary": summary(),
        "peers_small": peer_tables.peers(small),
        "verdicts": peer_tables.verdicts(),
        "peers_large": peer_tables.peers(large),
        "lengths": peer_tables.lengths(large),
        "rates": peer_tables.rates(),
        "axes": part_tables.axis_table(axes),
        "axes_power": part_tables.pair_table(verdict("axes_power"), ("cegm", "normuon")),
        "beyond_loss": part_tables.beyond_loss(),
        "step": part_tables.step(),
        "growth": part_tables.growth_table(),
        "texts": peer_tables.texts(),
        "controls": part_tables.controls(),
        "coefficient": part_tables.coefficient(),
        "options": options(),
        "kernels": kernels(),
        "momentum_kernels": kernel_table.momentum_kernels(),
        "lora": lora_table.adapters(),
        "retention": retention_front.retention(),
        "metrics": metrics(),
        "replays_quiet": monitor_table.quiet(),
        "replays_changed": monitor_table.changed(),
    }


def made_numbers() -> dict[str, str]:
    """Every number of a sentence by the name that stands behind it."""
    groups = {
        "tuning": peer_tables.tuning_numbers(),
        "axes": part_tables.axis_numbers(),
        "step": part_tables.step_numbers(),
        "ablation": part_tables.ablation_numbers(),
    }
    return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}


def summary() -> str:
    """The five rows of README."""
    runs = peer_tables.large_runs()
    losses = peer_tables.longest(runs)
    reader = pair(verdict("axes")["measures"]["bits_per_byte"], "cegm", "muon")
    rows = [
        ["final loss on novels, 0.8 M weights, nats per byte", "AdamW", peer_tables.loss_difference(losses, "adamw")],
        ["the same", "NorMuon, the strongest peer", peer_tables.loss_difference(losses, "normuon")],
        ["steps to AdamW's final loss", "NorMuon", f"{peer_tables.steps_ratio(runs, 'normuon')} times"],
        ["loss on the generated world, bits per byte", "Muon", estimate(reader["effect"], reader["interval"])],
        ["time of a training step", "Muon", f"{part_tables.step_numbers()['ratio']} times"],
    ]
    return markdown(["measured", "CEGM against", "effect [95 % interval]"], rows)


def options() -> str:
    """Every option of `CEGM`, as docs/method.md shows it."""
    rows = []
    for name, option in OPTIONS.items():
        presets = [
            f"`{option.presets[preset]}`" if preset in option.presets else ""
            for preset in ("paper", "lite", "finetune")
        ]
        rows.append([f"`{name}`", f"`{option.default}`", option.range, *presets, option.meaning])
    return markdown(["option", "default", "range", "`paper`", "`lite`", "`finetune`", "meaning"], rows)


def metrics() -> str:
    """Every scalar that trackers hear, as docs/metrics.md shows it."""
    rows = [[f"`{name}`", each.unit, each.meaning] for name, each in metric_names.NAMES.items()]
    return markdown(["name", "unit", "meaning"], rows)


def kernels() -> str:
    """Every kernel of line 7 with what follows from its ages and weights, at the first step and after the period."""
    rows = []
    for kernel, ages in AGES.items():
        group = {"momentum_kernel": kernel, "entanglement": 0.1, "coefficient_period": 1}
        weights = [[mean.weight for mean in running_means({**group, "steps": steps})] for steps in (0, 1)]
        mean_ages = [sum(w * a for w, a in zip(each, ages, strict=True)) for each in weights]
        noises = [noise(ages, each) for each in weights]
        rows.append(
            [
                f"`{kernel}`",
                ", ".join(f"{Fraction(age).limit_denominator(9)}" for age in ages),
                " to ".join(dict.fromkeys(", ".join(f"{w:.2f}".lstrip("0") for w in each) for each in weights)),
                " to ".join(dict.fromkeys(f"{age:.2f}" for age in mean_ages)),
                " to ".join(dict.fromkeys(f"{each:.2f}" for each in noises)),
                f"{4 * len(ages)}",
            ]
        )
    head = [
        "`momentum_kernel`",
        "ages over `A`",
        "weights",
        "mean age over `A`",
        "noise over that of `ema`",
        "bytes per weight",
    ]
    return markdown(head, rows)


def noise(ages: Sequence[float], weights: Sequence[float]) -> float:
    """How much independent noise a sum of running means lets through, over one of age 1; where ages are long."""
    pairs = itertools.product(zip(ages, weights, strict=True), repeat=2)
    return 2.0 * sum(w * v / (a + b) for (a, w), (b, v) in pairs)


def renewed(page: str, tables: dict[str, str], numbers: dict[str, str]) -> str:
    """The page with every marked table and number as the logs have it.

    Raises:
        ValueError: If a marker names what nobody makes, or stands behind no number.
    """
    page = TABLE.sub(lambda found: marked(found["name"], known(tables, found["name"])), page)
    page = NUMBER.sub(lambda found: f"{known(numbers, found['name'])}<!-- {found['name']} -->", page)
    bare = set(re.findall(NAME, NUMBER.sub("", page)))
    if bare:
        raise ValueError(f"<!-- {min(bare)} --> stands behind no number; write one before it")
    return page


def marked(name: str, table: str) -> str:
    """A table between its markers."""
    return f"<!-- {name}: begin -->\n{table}\n<!-- {name}: end -->"


def known(made: dict[str, str], name: str) -> str:
    """What was made under a name."""
    if name not in made:
        raise ValueError(f"nothing makes {name!r}; there are {', '.join(sorted(made))}")
    return made[name]


def main() -> None:
    tables, numbers = made_tables(), made_numbers()
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        new = renewed(text, tables, numbers)
        path.write_text(new, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {'renewed' if new != text else 'as it was'}")


if __name__ == "__main__":
    main()
