"""What each command takes, and what it does with it."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

SOME_RUNS_FAILED = 1
SOME_DAMAGED = 1


def _declare_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file with the names below; flags win")
    _add_run_flags(parser)
    parser.set_defaults(run=_train)


def _add_run_flags(parser: argparse.ArgumentParser, omit: Sequence[str] = ()) -> None:
    from cegm.lab.train.config import OPTIMIZER_OPTIONS, RunConfig, field_types

    kinds = {name: kind for name, kind in field_types().items() if name not in omit}
    group = parser.add_argument_group("run")
    for field in dataclasses.fields(RunConfig):
        if field.name in kinds:
            shown = "" if field.default in (None, "") else f" [{field.default}]"
            _add_flag(group, field.name, kinds[field.name], field.metadata["help"] + shown)
    group = parser.add_argument_group("optimizer (default: the method's own)")
    for name, (kind, meaning) in OPTIMIZER_OPTIONS.items():
        _add_flag(group, name, kind, meaning)


def _add_flag(group: Any, name: str, kind: Any, meaning: str) -> None:
    """A flag whose text is converted later, together with values from YAML; a bare boolean flag means true."""
    optional: dict[str, Any] = {"nargs": "?", "const": "true"} if kind is bool else {}
    kinds = [part for part in typing.get_args(kind) or [kind] if part is not type(None)]
    metavar = getattr(kinds[0], "__name__", "value").upper()
    group.add_argument(
        f"--{name}", metavar=metavar, default=argparse.SUPPRESS, help=meaning.replace("%", "%%"), **optional
    )


def _train(known: argparse.Namespace) -> int:
    from cegm.lab.train.config import from_mapping, read_yaml

    flags = {name: value for name, value in vars(known).items() if name not in ("command", "run", "config")}
    values = read_yaml(known.config) if known.config else {}
    if known.config:
        from_mapping(values, known.config)  # so that a mistake in the file is said to be there
    config = from_mapping({**values, **flags}, "command line")
    if config.dry_run:
        from cegm.lab.train.dry_run import describe

        print(describe(config))
        return 0
    from cegm.lab.train.prepare import is_main_process
    from cegm.lab.train.run import train

    summary = train(config)
    if not is_main_process():
        return 0
    print(
        f"{config.method}: validation loss {summary.loss:.4f}, {summary.bits_per_byte:.4f} bits per byte "
        f"after {summary.steps} steps ({summary.tokens:,} tokens, {summary.seconds:.0f} s). "
        f"Run folder: {summary.output_dir}"
    )
    return 0


def _add_planned(
    parser: argparse.ArgumentParser, name: str, kind: type[Any], run: Any, omit: Sequence[str], of: str = ""
) -> None:
    """Fields of a command's own, then those of a run that all its runs share."""
    parser.add_argument("--config", metavar="FILE", help=f"YAML file with the names below{of}; flags win")
    _add_fields(parser.add_argument_group(name), kind)
    _add_run_flags(parser, omit)
    parser.set_defaults(run=run)


def _add_fields(group: Any, kind: type[Any], omit: str = "") -> None:
    for field in dataclasses.fields(kind):
        if field.metadata and field.name != omit:
            _add_flag(group, field.name, type(field.default), f"{field.metadata['help']} [{field.default}]")


def _add_own(parser: argparse.ArgumentParser, purpose: str, methods: Iterable[str], kinds: dict[str, Any]) -> None:
    """`--METHOD.NAME` for every method and name."""
    group = parser.add_argument_group("one method", purpose)
    for method in methods:
        for name, kind in kinds.items():
            _add_flag(group, f"{method}.{name}", kind, argparse.SUPPRESS)


def _declare_compare(parser: argparse.ArgumentParser) -> None:
    from cegm.lab.baselines import METHODS
    from cegm.lab.compare.config import OWNED_BY_COMPARE, CompareConfig
    from cegm.lab.train.config import OPTIMIZER_OPTIONS, field_types

    _add_planned(parser, "compare", CompareConfig, _compare, OWNED_BY_COMPARE)
    kinds = {**field_types(), **{name: kind for name, (kind, _) in OPTIMIZER_OPTIONS.items()}}
    own = {name: kind for name, kind in kinds.items() if name not in OWNED_BY_COMPARE}
    purpose = "any run or optimizer option for one method only, such as --cegm.heads 4 or --muon.learning_rate 0.02"
    _add_own(parser, purpose, METHODS, own)


def _compare(known: argparse.Namespace) -> int:
    from cegm.lab.compare.config import from_values

    config = from_values(_given(known))
    from cegm.lab.compare.comparison import compare

    return _show(compare(config))


def _declare_ablate(parser: argparse.ArgumentParser) -> None:
    from cegm.lab.compare.ablation import AblationConfig
    from cegm.lab.compare.config import OWNED_BY_COMPARE

    _add_planned(parser, "ablate", AblationConfig, _ablate, OWNED_BY_COMPARE)


def _ablate(known: argparse.Namespace) -> int:
    from cegm.lab.compare.ablation import AblationConfig
    from cegm.lab.compare.config import from_names

    config = from_names(AblationConfig, _given(known)).comparison
    from cegm.lab.compare.comparison import compare

    return _show(compare(config))


def _declare_tune(parser: argparse.ArgumentParser) -> None:
    from cegm.lab.compare.config import OWNED_BY_COMPARE
    from cegm.lab.compare.tuning import TuneConfig

    _add_planned(parser, "tune", TuneConfig, _tune, OWNED_BY_COMPARE)


def _tune(known: argparse.Namespace) -> int:
    from cegm.lab.compare.config import from_names
    from cegm.lab.compare.tuning import TuneConfig

    config = from_names(TuneConfig, _given(known))
    from cegm.lab.compare.trials import tune

    path = tune(config)
    print(path.read_text(encoding="utf-8") + f"use it with: cegm compare --tuned {path}")
    return 0


def _declare_plan(parser: argparse.ArgumentParser) -> None:
    from cegm.lab.plan.config import ASKED, PLANNED, PlanConfig
    from cegm.lab.train.config import OPTIMIZER_OPTIONS, field_types

    omit = [name for name in field_types() if name not in ASKED]
    _add_planned(parser, "plan", PlanConfig, _plan, omit, ", or of a run")
    purpose = "any optimizer option for one method only, such as --cegm.preset lite"
    _add_own(parser, purpose, PLANNED, {name: kind for name, (kind, _) in OPTIMIZER_OPTIONS.items()})


def _plan(known: argparse.Namespace) -> int:
    from cegm.lab.compare.config import from_names
    from cegm.lab.plan.config import PlanConfig

    config = from_names(PlanConfig, _given(known))
    from cegm.lab.plan.estimate import plan
    from cegm.lab.plan.table import table

    print(table(plan(config)))
    return 0


def _declare_evaluate(parser: argparse.ArgumentParser) -> None:
    from cegm.lab.tasks.evaluation import EvaluateConfig

    parser.add_argument("model_name_or_path", metavar="MODEL", help="local folder, GGUF file or hub name, or smollm2")
    _add_fields(parser, EvaluateConfig, omit="model_name_or_path")
    parser.set_defaults(run=_evaluate)


def _evaluate(known: argparse.Namespace) -> int:
    from cegm.lab.compare.config import split
    from cegm.lab.tasks.evaluation import EvaluateConfig, evaluate, table

    values, _ = split(EvaluateConfig, {n: v for n, v in vars(known).items() if n not in ("command", "run")})
    outcomes, folder = evaluate(EvaluateConfig(**values))
    print(table(outcomes))
    print(f"items: {folder / 'items.parquet'}")
    return 0 if any(outcome.records for _, outcome in outcomes) else SOME_RUNS_FAILED


def _given(known: argparse.Namespace) -> dict[str, Any]:
    """What the user set: the file's values, over them the flags."""
    from cegm.lab.train.config import read_yaml

    flags = {name: value for name, value in vars(known).items() if name not in ("command", "run", "config")}
    return {**(read_yaml(known.config) if known.config else {}), **flags}


def _show(folder: Path) -> int:
    """Draws the page of a folder of runs, prints its table, and tells whether all runs finished."""
    from cegm.lab import report
    from cegm.lab.compare.comparison import all_finished

    page = report.write(folder)
    print(report.table(folder))
    print(f"report: {page}")
    return 0 if all_finished(folder) else SOME_RUNS_FAILED


def _declare_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="comparison, ablation or run folder")
    parser.set_defaults(run=_redraw)


def _redraw(known: argparse.Namespace) -> int:
    from cegm.lab import report

    print(f"report: {report.write(Path(known.folder))}")
    return 0


def _declare_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="run folder, comparison, ablation or search")
    parser.set_defaults(run=_verify)


def _verify(known: argparse.Namespace) -> int:
    from cegm.lab.train import verification

    folder = Path(known.folder)
    damaged = 0
    for run in verification.runs(folder):
        findings = verification.verify(run)
        damaged += sum(finding.state == "damaged" for finding in findings)
        print(f"{run}\n{verification.table(findings)}\n")
    print(f"{folder}: {f'{damaged} damaged' if damaged else 'nothing is damaged'}")
    return SOME_DAMAGED if damaged else 0


DECLARATIONS: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "train": _declare_train,
    "compare": _declare_compare,
    "evaluate": _declare_evaluate,
    "ablate": _declare_ablate,
    "tune": _declare_tune,
    "plan": _declare_plan,
    "report": _declare_report,
    "verify": _declare_verify,
}
"""By name of the command: gives its parser the flags, and what to run as `run`."""
