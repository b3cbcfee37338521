"""The command line: `cegm train | compare | evaluate | ablate | tune | plan | report | verify`.

Parses, calls, and turns every user error into one line and exit code 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import threading
import typing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from cegm import __version__
from cegm.lab import streams

USER_ERROR = 2
SOME_RUNS_FAILED = 1
SOME_DAMAGED = 1


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        """Raises ValueError; `main` prints it."""
        raise ValueError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Words of the command line; None: those of the process.

    Returns:
        0 when done, 1 when a comparison has failed runs or a run folder is damaged, 2 when the user has to change something.
    """
    with _stopped_by_term(), streams.readable():
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        code = _dispatch(arguments)
        print(end="", flush=True)  # here, where a full disk behind it ends in one line
        return code
    except (ValueError, OSError, ImportError) as error:
        return _report(error)
    except RuntimeError as error:
        from cegm.lab.train.health import NonFiniteError

        if not isinstance(error, NonFiniteError):
            raise
        return _report(error)
    except KeyboardInterrupt:
        return _report(KeyboardInterrupt("stopped by the user"), 130)


@contextmanager
def _stopped_by_term() -> Iterator[None]:
    """Lets SIGTERM end a command as Ctrl-C does, so that nobody leaves processes behind or a file half written.

    Python hears signals in the main thread alone. A command in another one leaves them to the program that it is a part of.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if former is None else former)


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _report(error: BaseException, code: int = USER_ERROR) -> int:
    print(f"cegm: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _dispatch(arguments: list[str]) -> int:
    parser = Parser(prog="cegm", description="Context-entangled gradients for language models.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"cegm {__version__}")
    if arguments[:1] == ["--version"]:
        parser.parse_args(arguments[:1])  # before rooms are opened whose libraries may be missing
    commands = parser.add_subparsers(dest="command", metavar="command", required=True, parser_class=Parser)
    _add_train(commands)
    _add_compare(commands)
    _add_evaluate(commands)
    _add_ablate(commands)
    _add_tune(commands)
    _add_plan(commands)
    _add_report(commands)
    _add_verify(commands)
    known, unknown = parser.parse_known_args(_with_underscores(arguments))
    if unknown:
        _refuse(unknown[0])
    result: int = known.run(known)
    return result


def _with_underscores(arguments: list[str]) -> list[str]:
    """Lets `--max-steps` mean `--max_steps`."""
    flags = [(word.split("=", 1), word) for word in arguments]
    return [
        "=".join([parts[0].replace("-", "_").replace("__", "--", 1), *parts[1:]]) if word.startswith("--") else word
        for parts, word in flags
    ]


def _refuse(word: str) -> NoReturn:
    from cegm.lab.train.config import field_types, nearest_option

    flag = word.split("=", 1)[0]
    name = flag.lstrip("-")
    hint = "it is one of cegm train" if name in field_types() else nearest_option(name)
    raise ValueError(f"unknown option {flag!r}; {hint}")


# ---------------------------------------------------------------------- train


def _add_train(commands: Any) -> None:
    parser = commands.add_parser("train", help="train one model with one optimizer", allow_abbrev=False)
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


# ---------------------------------------------------------------------- compare, ablate, tune, plan, evaluate


def _add_planned(
    commands: Any, name: str, purpose: str, kind: type[Any], run: Any, omit: Sequence[str], of: str = ""
) -> Any:
    """A command with fields of its own, then those of a run that all its runs share."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=purpose, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help=f"YAML file with the names below{of}; flags win")
    _add_fields(parser.add_argument_group(name), kind)
    _add_run_flags(parser, omit)
    parser.set_defaults(run=run)
    return parser


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


def _add_compare(commands: Any) -> None:
    from cegm.lab.baselines import METHODS
    from cegm.lab.compare.config import OWNED_BY_COMPARE, CompareConfig
    from cegm.lab.train.config import OPTIMIZER_OPTIONS, field_types

    purpose = "train with every method on the same seeds and say which is better"
    parser = _add_planned(commands, "compare", purpose, CompareConfig, _compare, OWNED_BY_COMPARE)
    kinds = {**field_types(), **{name: kind for name, (kind, _) in OPTIMIZER_OPTIONS.items()}}
    own = {name: kind for name, kind in kinds.items() if name not in OWNED_BY_COMPARE}
    purpose = "any run or optimizer option for one method only, such as --cegm.heads 4 or --muon.learning_rate 0.02"
    _add_own(parser, purpose, METHODS, own)


def _compare(known: argparse.Namespace) -> int:
    from cegm.lab.compare.config import from_values

    config = from_values(_given(known))
    from cegm.lab.compare.comparison import compare

    return _show(compare(config))


def _add_ablate(commands: Any) -> None:
    from cegm.lab.compare.ablation import AblationConfig
    from cegm.lab.compare.config import OWNED_BY_COMPARE

    purpose = "change one part of the method at a time and say which part matters"
    _add_planned(commands, "ablate", purpose, AblationConfig, _ablate, OWNED_BY_COMPARE)


def _ablate(known: argparse.Namespace) -> int:
    from cegm.lab.compare.ablation import AblationConfig
    from cegm.lab.compare.config import from_names

    config = from_names(AblationConfig, _given(known)).comparison
    from cegm.lab.compare.comparison import compare

    return _show(compare(config))


def _add_tune(commands: Any) -> None:
    from cegm.lab.compare.config import OWNED_BY_COMPARE
    from cegm.lab.compare.tuning import TuneConfig

    purpose = "search learning rate, weight decay and momentum with equal trials for every method"
    _add_planned(commands, "tune", purpose, TuneConfig, _tune, OWNED_BY_COMPARE)


def _tune(known: argparse.Namespace) -> int:
    from cegm.lab.compare.config import from_names
    from cegm.lab.compare.tuning import TuneConfig

    config = from_names(TuneConfig, _given(known))
    from cegm.lab.compare.trials import tune

    path = tune(config)
    print(path.read_text(encoding="utf-8") + f"use it with: cegm compare --tuned {path}")
    return 0


def _add_plan(commands: Any) -> None:
    from cegm.lab.plan.config import ASKED, PLANNED, PlanConfig
    from cegm.lab.train.config import OPTIMIZER_OPTIONS, field_types

    purpose = "say what a run would take on a machine: memory, time, communication, money"
    omit = [name for name in field_types() if name not in ASKED]
    parser = _add_planned(commands, "plan", purpose, PlanConfig, _plan, omit, ", or of a run")
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


def _add_evaluate(commands: Any) -> None:
    from cegm.lab.tasks.evaluation import EvaluateConfig

    parser = commands.add_parser("evaluate", help="examine a model on the axes of the paper", allow_abbrev=False)
    parser.add_argument(
        "model_name_or_path", metavar="MODEL", help="local folder or hub name of a causal language model"
    )
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


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report", help="draw the page of a comparison, an ablation or a run again from its folder", allow_abbrev=False
    )
    parser.add_argument("folder", help="comparison, ablation or run folder")
    parser.set_defaults(run=_redraw)


def _redraw(known: argparse.Namespace) -> int:
    from cegm.lab import report

    print(f"report: {report.write(Path(known.folder))}")
    return 0


# ---------------------------------------------------------------------- verify


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify", help="say whether a run folder, or every run of a comparison, is what was written", allow_abbrev=False
    )
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


if __name__ == "__main__":
    sys.exit(main())
