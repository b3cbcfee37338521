"""The command line: one command for each step from training to production; `COMMANDS` names them.

Parses, calls, and turns every user error into one line and exit code 2.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from cegm import __version__
from cegm.lab import streams
from cegm.spelling import nearest

USER_ERROR = 2

COMMANDS = {
    "train": "train one model with one optimizer",
    "compare": "train with every method on the same seeds and say which is better",
    "evaluate": "examine a model on the axes of the paper",
    "ablate": "change one part of the method at a time and say which part matters",
    "tune": "search learning rate, weight decay and momentum with equal trials for every method",
    "card": "note what a model knows, so that fine-tuning forgets less of it",
    "interpolate": "give some of a model's training up for what it knew before",
    "chat": "talk with a model in the terminal",
    "plan": "say what a run would take on a machine: memory, time, communication, money",
    "pilot": "fix what decides, run, and say GO, HOLD or STOP on a page for who decides",
    "audit": "make a release that can be audited, verify or approve one",
    "rollout": "bring a release before users: approve, serve beside the old one, look, take back",
    "monitor": "watch over a roll-out without labels: what has changed, and what to do about it",
    "export": "a roll-out for other machinery: MLflow, KServe, Argo Rollouts, compose",
    "watch": "look at a run, a comparison or a pilot while it goes, in the terminal or on a page",
    "report": "draw the page of a comparison, an ablation or a run again from its folder",
    "verify": "say whether a run folder, or every run of a comparison, is what was written",
    "keys": "make a pair of keys to sign releases with",
}
"""Each with what it is for, in the order of the help."""


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
    commands = parser.add_subparsers(dest="command", metavar="command", required=True, parser_class=Parser)
    chosen = next((word for word in arguments if not word.startswith("-")), "")
    if chosen and chosen not in COMMANDS:
        raise ValueError(f"there is no command {chosen!r}; {nearest(chosen, COMMANDS)}")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, allow_abbrev=False)
        if name == chosen:  # what the others take need not be read
            from cegm.lab.commands import declare

            declare(command, name)
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
    from cegm.lab.declarations import declared
    from cegm.lab.train.run_config import RunConfig, nearest_option

    flag = word.split("=", 1)[0]
    name = flag.lstrip("-")
    hint = "it is one of cegm train" if name in declared(RunConfig) else nearest_option(name)
    raise ValueError(f"unknown option {flag!r}; {hint}")


if __name__ == "__main__":
    sys.exit(main())
