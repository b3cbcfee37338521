"""`cegm tune` from configuration to the file of settings that a comparison reads.

Optuna proposes points (a Gaussian process per method) and stores trials; the runs are those of a comparison, so an
interrupted search goes on where it stopped. No trial is pruned: what counts is the end of a whole schedule.
"""

from __future__ import annotations

import hashlib
import json
import math
import socket
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from cegm.compare.execute import execute
from cegm.compare.plan import PlannedRun
from cegm.compare.progress import Bars
from cegm.compare.run import require_possible
from cegm.compare.tuning import KNOBS, Space, TuneConfig, settings

TUNED = "tuned.yaml"
TRIALS = "trials.json"

STARTUP = 4
"""Trials of a method that are drawn blindly, so that the Gaussian process has something to go by."""

ENDED = (TrialState.COMPLETE, TrialState.FAIL)


def tune(config: TuneConfig) -> Path:
    """Searches with every method, widens ranges where the best trial lies at an edge, and writes what was found.

    `trials.json` holds every trial, `tuned.yaml` the best settings of each method, for `cegm compare --tuned`. Both are
    written again after each batch of trials.

    Returns:
        Path of `tuned.yaml`.

    Raises:
        ValueError: Something that would make every run of a method fail, found before the first starts.
    """
    folder = Path(config.output_dir)
    require_possible(config.runs)
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(config.storage or f"sqlite:///{folder.resolve() / 'optuna.db'}")
    searches = [_Search(config, method, space, storage) for method, space in config.spaces.items()]
    goal = config.trials
    with Bars([]) as bars:
        for extension in range(config.extensions + 1):
            _search(config, folder, searches, goal, bars)
            if extension == config.extensions or not [search for search in searches if search.at_edge()]:
                break
            for search in searches:
                search.widen()
            goal += math.ceil(config.trials / 3)
    return folder / TUNED


def _search(config: TuneConfig, folder: Path, searches: list[_Search], goal: int, bars: Bars) -> None:
    """Brings every method to `goal` trials."""
    while any(search.count() < goal for search in searches):
        abreast = max(1, config.runs.workers // (len(searches) * len(config.runs.seed_list)))
        asked = [(s, s.ask()) for s in searches for _ in range(min(abreast, goal - s.count()))]
        planned = [s.planned(trial) for s, trial in asked]
        runs = list({run.id: run for group in planned for run in group}.values())
        bars.expect(runs)
        results = execute(folder, runs, config.runs.workers, bars.watch)
        for (search, trial), group in zip(asked, planned, strict=True):
            search.tell(trial, [results[run.id] for run in group])
        write_found(folder, config, searches)


class _Search:
    """The trials of one method. Every widening starts a study of its own that takes the earlier trials over."""

    def __init__(self, config: TuneConfig, method: str, space: Space, storage: optuna.storages.RDBStorage) -> None:
        self.config, self.method, self.space, self._storage = config, method, space, storage
        # Only these trials belong together: another text, model or space is another search in the same database.
        runs = " ".join(run.id for run in config.planned(method, space.start))
        self._name = f"{method} {hashlib.sha256(f'{runs} {space}'.encode()).hexdigest()[:12]}"
        self._owner = f"{socket.gethostname()} {Path(config.output_dir).resolve()}"
        self._round = 0
        self._open()
        if not self._study.trials:
            self._study.enqueue_trial(space.start)

    def _open(self) -> None:
        sampler = optuna.samplers.GPSampler(seed=self._round, n_startup_trials=STARTUP)
        name = f"{self._name} round {self._round}"
        self._study = optuna.create_study(study_name=name, storage=self._storage, sampler=sampler, load_if_exists=True)
        open_trials = self._study.get_trials(states=(TrialState.RUNNING,))
        self._left_open = [t for t in open_trials if t.user_attrs.get("owner") == self._owner]

    def ask(self) -> FrozenTrial:
        """The next point; first those that an interrupted search of this folder left open."""
        if self._left_open:
            return self._left_open.pop(0)
        asked = self._study.ask(self._distributions())
        asked.set_user_attr("owner", self._owner)
        return self._study.trials[asked.number]

    def planned(self, trial: FrozenTrial) -> list[PlannedRun]:
        """Its runs, one per seed."""
        return self.config.planned(self.method, trial.params)

    def tell(self, trial: FrozenTrial, results: list[dict[str, Any]]) -> None:
        """The mean final loss over the seeds; a trial with a failed run fails, and counts."""
        if all(result["status"] == "finished" for result in results):
            self._study.tell(trial.number, fmean(result["final_loss"] for result in results))
        else:
            self._study.tell(trial.number, state=TrialState.FAIL)

    def count(self) -> int:
        """Trials that have ended."""
        return len(self.ended())

    def ended(self) -> list[FrozenTrial]:
        """Trials that have ended, in order."""
        return self._study.get_trials(states=ENDED)

    def best(self) -> FrozenTrial | None:
        """The trial with the lowest loss; None while all have failed."""
        complete = [trial for trial in self.ended() if trial.state == TrialState.COMPLETE]
        return min(complete, key=lambda trial: trial.value or 0.0, default=None)

    def at_edge(self) -> bool:
        """Whether the best trial asks for a wider range."""
        return self._wider() != self.space

    def _wider(self) -> Space:
        best = self.best()
        return self.space if best is None else self.space.widened(best.params)

    def widen(self) -> None:
        """Doubles the ranges at whose edge the best trial lies; a method without one only gets more trials."""
        self.space, self._round = self._wider(), self._round + 1
        earlier = self.ended()
        self._open()
        known, ranges = len(self.ended()), self._distributions()
        for old in earlier[known:]:
            copy = create_trial(state=old.state, value=old.value, params=old.params, distributions=ranges)
            self._study.add_trial(copy)

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {name: FloatDistribution(*self.space.ranges[name], log=True) for name in KNOBS}


def write_found(folder: Path, config: TuneConfig, searches: list[_Search]) -> None:
    """`trials.json` and `tuned.yaml` of a search folder, each in one move."""
    records = [
        {
            "method": search.method,
            "trial": trial.number,
            "status": "finished" if trial.state == TrialState.COMPLETE else "failed",
            "loss": trial.value,
            **settings(search.method, trial.params),
        }
        for search in searches
        for trial in search.ended()
    ]
    found = {"seeds": config.runs.seed_list, "ranges": {s.method: s.space.ranges for s in searches}, "trials": records}
    _write(folder / TRIALS, json.dumps(found, indent=1))
    best = {
        s.method: {**s.space.fixed, **settings(s.method, b.params)} for s in searches if (b := s.best()) is not None
    }
    seeds = ", ".join(map(str, config.runs.seed_list))
    header = [f"# Best settings of each method on seeds {seeds}; {TRIALS} has all trials of the search."]
    header += [f"# {s.method}: the best trial lies at an edge of its range." for s in searches if s.at_edge()]
    _write(folder / TUNED, "\n".join(header) + "\n" + yaml.safe_dump(best, sort_keys=False, default_flow_style=None))


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.partial")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
