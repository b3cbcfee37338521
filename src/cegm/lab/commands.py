"""What each command takes, and what it does with it."""

from __future__ import annotations

import argparse
import pkgutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cegm.options import OPTIONS
from cegm.ranges import Option

if TYPE_CHECKING:
    from cegm.lab.chat import ChatConfig
    from cegm.lab.compare.ablation import AblationConfig
    from cegm.lab.compare.compare_config import CompareConfig
    from cegm.lab.compare.tuning import TuneConfig
    from cegm.lab.forecast.plan_config import PlanConfig
    from cegm.lab.tasks.evaluation import EvaluateConfig
    from cegm.lab.train.card_options import CardConfig
    from cegm.lab.train.interpolate_options import InterpolateConfig
    from cegm.lab.train.run_config import RunConfig
    from cegm.lab.watch.watch_config import WatchConfig

SOME_RUNS_FAILED = 1


def train(config: RunConfig) -> int:
    """Trains one model, or says what that would be."""
    if config.dry_run:
        from cegm.lab.forecast.dry_run import describe

        print(describe(config))
        return 0
    begun = time.perf_counter()
    from cegm.lab.train.prepare import is_main_process
    from cegm.lab.train.run import train

    libraries = time.perf_counter() - begun
    summary = train(config)
    if is_main_process():
        print(
            f"{config.method}: validation loss {summary.loss:.4f}, {summary.bits_per_byte:.4f} bits per byte "
            f"after {summary.steps} steps ({summary.tokens:,} tokens, {summary.seconds:.0f} s). "
            f"Run folder: {config.output_dir}"
        )
        print(told_in_parts(time.perf_counter() - begun, {"libraries": libraries, **summary.spent}))
    return 0


def told_in_parts(wall: float, spent: Mapping[str, float]) -> str:
    """Where the seconds of a command went; together with the rest they are those on the wall."""
    parts = {**spent, "the rest": wall - sum(spent.values())}
    shown = ", ".join(f"{what} {seconds:.0f}" for what, seconds in parts.items() if seconds >= 0.5)
    return f"{wall:.0f} s on the wall: {shown}"


def compare(config: CompareConfig) -> int:
    """Runs the comparison, draws its page, prints its table, and tells whether all runs finished."""
    from cegm.lab import report
    from cegm.lab.compare.comparison import all_finished, compare

    folder = compare(config)
    page = report.write(folder)
    print(report.table(folder))
    print(f"report: {page}")
    return 0 if all_finished(folder) else SOME_RUNS_FAILED


def ablate(config: AblationConfig) -> int:
    """Runs the comparison that an ablation is."""
    return compare(config.comparison)


def tune(config: TuneConfig) -> int:
    """Searches, and prints what was found."""
    from cegm.lab.compare.trials import tune

    path = tune(config)
    print(path.read_text(encoding="utf-8") + f"use it with: cegm compare --tuned {path}")
    return 0


def plan(config: PlanConfig) -> int:
    """Prints what the run would take."""
    from cegm.lab.forecast.forecast import forecast
    from cegm.lab.forecast.table import table

    print(table(forecast(config)))
    return 0


def evaluate(config: EvaluateConfig) -> int:
    """Examines the model; an examination without a single item has failed."""
    from cegm.lab.tasks.evaluation import evaluate, table

    outcomes, folder = evaluate(config)
    print(table(outcomes))
    print(f"items: {folder / 'items.parquet'}")
    return 0 if any(outcome.records for _, outcome in outcomes) else SOME_RUNS_FAILED


def card(config: CardConfig) -> int:
    """Makes a context card, and says what is in it."""
    from cegm.lab.train.cards import described, write_context_card
    from cegm.lab.train.prepare import quieten

    quieten()
    made, path = write_context_card(config)
    print(f"context card: {path} ({path.stat().st_size / 2**20:.1f} MiB): {described(made)}")
    return 0


def interpolate(config: InterpolateConfig) -> int:
    """Writes a model between before and after training."""
    from cegm.lab.train.interpolate import write_interpolated
    from cegm.lab.train.prepare import quieten

    quieten()
    print(f"model with {config.share:.0%} of its training: {write_interpolated(config)}")
    return 0


def chat(config: ChatConfig) -> int:
    """Talks until the input ends."""
    from cegm.lab.chat import chat

    chat(config)
    return 0


def report(folder: Path) -> int:
    """Draws the page of a folder again."""
    from cegm.lab import report

    print(f"report: {report.write(folder)}")
    return 0


def watch(config: WatchConfig) -> int:
    """Shows what goes on until it has ended, or a page of it, until the user has seen enough."""
    from cegm.lab.watch.watched import Watched

    watched = Watched(Path(config.path), config.baseline)
    with suppress(KeyboardInterrupt):
        if config.page:
            from cegm.lab.watch.page_server import serve

            serve(watched, config.port, config.price)
        else:
            from cegm.lab.watch.screen import show

            show(watched, config.price)
    return 0


def new_keys(name: str) -> int:
    """Makes a pair of keys."""
    from cegm.lab.release.orders import new_keys

    return new_keys(name)


Work = Callable[[Any], int] | str | Mapping[str, str]
"""What a command does, its home, or its homes by the step that is asked for."""

CONFIGURED: Mapping[str, tuple[str, Work]] = {
    "train": ("cegm.lab.train.run_config:RunConfig", train),
    "compare": ("cegm.lab.compare.compare_config:CompareConfig", compare),
    "evaluate": ("cegm.lab.tasks.evaluation:EvaluateConfig", evaluate),
    "ablate": ("cegm.lab.compare.ablation:AblationConfig", ablate),
    "tune": ("cegm.lab.compare.tuning:TuneConfig", tune),
    "card": ("cegm.lab.train.card_options:CardConfig", card),
    "interpolate": ("cegm.lab.train.interpolate_options:InterpolateConfig", interpolate),
    "chat": ("cegm.lab.chat:ChatConfig", chat),
    "plan": ("cegm.lab.forecast.plan_config:PlanConfig", plan),
    "pilot": (
        "cegm.lab.pilot.pilot_config:PilotConfig",
        {step: f"cegm.lab.pilot.pilot_orders:{step}" for step in ("fix", "run", "page")},
    ),
    "audit": ("cegm.lab.release.audit_config:AuditConfig", "cegm.lab.release.orders:audit"),
    "rollout": (
        "cegm.lab.rollout.rollout_config:RolloutConfig",
        {
            **{step: f"cegm.lab.rollout.rollout_orders:{step}" for step in ("approve", "serve", "status", "back")},
            "label": "cegm.lab.monitor.labelling:label",
        },
    ),
    "monitor": ("cegm.lab.monitor.monitor_config:MonitorConfig", "cegm.lab.monitor.watching:monitor"),
    "export": ("cegm.lab.exports.export_config:ExportConfig", "cegm.lab.exports.exporting:export"),
    "watch": ("cegm.lab.watch.watch_config:WatchConfig", watch),
}
"""By name of the command: home of the dataclass whose fields are its options, and what is done with one."""

OF_A_FOLDER: Mapping[str, tuple[str, Work]] = {
    "report": ("comparison, ablation or run folder", report),
    "verify": ("run folder, comparison, ablation or search", "cegm.lab.train.verification:answer"),
}
"""By name of the command: the folder it takes, and what is done with that."""


def declare(parser: argparse.ArgumentParser, command: str) -> None:
    """Gives the parser of a command its flags, and what to run as `run`."""
    if command in OF_A_FOLDER:
        meaning, work = OF_A_FOLDER[command]
        parser.add_argument("folder", help=meaning)
        parser.set_defaults(run=lambda known: _work(work, known)(Path(known.folder)))
        return
    if command == "keys":
        parser.add_argument("action", choices=["new"], help="makes a pair: NAME.key and NAME.pub")
        parser.add_argument("name", metavar="NAME", help="path of both without their suffixes")
        parser.set_defaults(run=lambda known: new_keys(known.name))
        return
    from cegm.lab.baselines import METHODS
    from cegm.lab.declarations import declared
    from cegm.lab.train.run_config import OPTIMIZER_OPTIONS, RunConfig

    home, work = CONFIGURED[command]
    kind = pkgutil.resolve_name(home)
    own, steps = dict(declared(kind)), tuple(work) if isinstance(work, Mapping) else ()
    if command in ("evaluate", "card", "interpolate", "chat"):
        parser.add_argument("model_name_or_path", metavar="MODEL", help=own.pop("model_name_or_path").meaning)
    elif command in ("monitor", "export"):
        parser.add_argument("rollout", metavar="ROLLOUT", help=own.pop("rollout").meaning)
    elif command == "watch":
        parser.add_argument("path", metavar="PATH", help=own.pop("path").meaning)
    elif command == "audit":
        meaning = "run whose model is released, then what judged it: other runs, a comparison or a pilot"
        parser.add_argument("runs", metavar="RUN", nargs="*", help=meaning)
    elif command == "pilot":
        parser.add_argument("step", choices=steps, help="fix the criteria, run what was fixed, or draw its page again")
        parser.add_argument("config", metavar="FILE", help="YAML file with the names below; flags win")
    elif command == "rollout":
        order = (
            "approve a release or its next stage, serve it, say where it stands, label answers, or return all traffic"
        )
        parser.add_argument("step", choices=steps, help=order)
        meaning = own.pop("release").meaning
        parser.add_argument("release", metavar="RELEASE", nargs="?", default=argparse.SUPPRESS, help=meaning)
        parser.add_argument("--config", metavar="FILE", help="YAML file with the names below; flags win")
    else:
        parser.add_argument("--config", metavar="FILE", help="YAML file with the names below; flags win")
    _add_flags(parser.add_argument_group(command), own)
    shared = {name: each for name, each in declared(RunConfig).items() if name in getattr(kind, "SHARED", ())}
    if shared:
        _add_flags(parser.add_argument_group("every run"), shared)
    if shared or kind is RunConfig:
        of_all = {name: each for name, each in OPTIMIZER_OPTIONS.items() if name not in own}
        _add_flags(parser.add_argument_group("optimizer (default: the method's own)"), of_all)
    if "own" in kind.__dataclass_fields__:
        from cegm.lab.compare.compare_config import RATES

        purpose = "any option of a run or its optimizer for one method only, such as --cegm.heads 4"
        group = parser.add_argument_group("one method", purpose)
        rates = {RATES: own[RATES]} if RATES in own else {}
        for method in METHODS:
            _add_flags(group, {**shared, **OPTIMIZER_OPTIONS, **rates}, f"{method}.")
    parser.set_defaults(run=lambda known: _work(work, known)(_configured(kind, known)))


def _work(work: Work, known: argparse.Namespace) -> Callable[[Any], int]:
    """What a command does, at the step that is asked for."""
    home = work[known.step] if isinstance(work, Mapping) else work
    chosen: Callable[[Any], int] = pkgutil.resolve_name(home) if isinstance(home, str) else home
    return chosen


def _add_flags(group: Any, options: Mapping[str, Option], method: str = "") -> None:
    """Flags whose text is converted later, together with values from YAML; a bare boolean flag means true."""
    for name, each in options.items():
        bare: dict[str, Any] = {"nargs": "?", "const": "true"} if each.plain is bool else {}
        shown = "" if method or each.default in (None, "") or name in OPTIONS else f" [{each.default}]"
        meaning = argparse.SUPPRESS if method else f"{each.help}{shown}".replace("%", "%%")
        metavar = {"tuple": "FLOAT,FLOAT"}.get(each.plain.__name__, each.plain.__name__.upper())
        group.add_argument(f"--{method}{name}", metavar=metavar, default=argparse.SUPPRESS, help=meaning, **bare)


def _configured(kind: type[Any], known: argparse.Namespace) -> Any:
    """The configuration of a command: the file's values, over them the flags."""
    from cegm.lab.declarations import read_yaml
    from cegm.lab.train.run_config import RunConfig, from_mapping

    flags = {name: value for name, value in vars(known).items() if name not in ("command", "run", "config", "step")}
    file = getattr(known, "config", None)
    values = {**(read_yaml(file) if file else {}), **flags}
    if kind is not RunConfig:
        from cegm.lab.compare.compare_config import from_names

        return from_names(kind, values)
    if file:
        from_mapping(read_yaml(file), file)  # so that a mistake in the file is said to be there
    return from_mapping(values, "command line")
