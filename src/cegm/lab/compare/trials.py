"""`cegm tune` from configuration to the file of settings that a comparison reads.

Optuna proposes points (a Gaussian process per method) and stores trials; the runs are those of a comparison, so an
interrupted search goes on where it stopped. No trial is pruned: what counts is the end of a whole schedule.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import optuna
import yaml
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from cegm.durable import sole_writer, write_whole
from cegm.lab.baselines.space import KNOBS, Space
from cegm.lab.compare.comparison import require_possible
from cegm.lab.compare.execute import execute, launching
from cegm.lab.compare.launch import Launcher
from cegm.lab.compare.plan import PlannedRun
from cegm.lab.compare.progress import Bars
from cegm.lab.compare.tuning import TuneConfig, settings

TUNED = "tuned.yaml"
TRIALS = "trials.json"

STARTUP = 4
"""Trials of a method that are drawn blindly, so that the Gaussian process has something to go by."""

FAILED = "failed"
"""Mark of a trial of which a run failed."""

PENALTY = 0.1
"""How far a failed trial is told to be above the worst one, nats per token."""


def tune(config: TuneConfig) -> Path:
    """Searches with every method, widens ranges where the best trial lies at an edge, and writes what was found.

    `trials.json` holds every trial, `tuned.yaml`, whose path is returned, the best settings of each method, for `cegm compare
    --tuned`. Both are written again after each batch of trials. ValueError for what would make every run of a method fail.
    """
    folder = Path(config.output_dir)
    require_possible(config.runs)
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder), launching(config.launcher, config.processes) as launcher:
        _tune(config, folder, launcher)
    return folder / TUNED


def _tune(config: TuneConfig, folder: Path, launcher: Launcher) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = _opened(config.storage, folder.resolve() / "optuna.db")
    searches = [_Search(config, method, space, storage) for method, space in config.spaces.items()]
    goal = config.trials
    with Bars([]) as bars:
        for extension in range(config.extensions + 1):
            _search(config, folder, launcher, searches, goal, bars)
            if extension == config.extensions or not [search for search in searches if search.at_edge()]:
                break
            for search in searches:
                search.widen()
            goal += math.ceil(config.trials / 3)
    write_found(folder, config, searches)


def _opened(url: str, own: Path) -> optuna.storages.RDBStorage:
    """Raises ValueError for a database of trials that is damaged or cannot be reached."""
    try:
        return optuna.storages.RDBStorage(url or f"sqlite:///{own}")
    except SQLAlchemyError as error:
        what, remedy = ("--storage", "give another URL") if url else (own, "delete it to search again")
        raise ValueError(f"{what} cannot be used ({str(error).splitlines()[0]}); {remedy}") from None


def _search(
    config: TuneConfig, folder: Path, launcher: Launcher, searches: list[_Search], goal: int, bars: Bars
) -> None:
    """Brings every method to `goal` trials."""
    while any(search.count() < goal for search in searches):
        abreast = max(1, launcher.slots() // (len(searches) * len(config.runs.seed_list)))
        asked = [(s, s.ask()) for s in searches for _ in range(min(abreast, goal - s.count()))]
        planned = [s.planned(trial) for s, trial in asked]
        runs = [run for group in planned for run in group]
        bars.expect(runs)
        results = execute(folder, runs, launcher, bars.watch)
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
        self._round = 0
        self._open()
        if not self._study.trials:
            self._study.enqueue_trial(space.start)

    def _open(self) -> None:
        name = f"{self._name} round {self._round}"
        self._study = optuna.create_study(study_name=name, storage=self._storage, load_if_exists=True)
        # A sampler that starts again would draw its first points again; its seed moves on with the trials.
        seed = 1000 * self._round + len(self._study.trials)
        self._study.sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
        running = self._study.get_trials(states=(TrialState.RUNNING,))
        self._left_open = [Trial(self._study, frozen._trial_id) for frozen in running]

    def ask(self) -> Trial:
        """The next point; first those that an interrupted search left open."""
        return self._left_open.pop(0) if self._left_open else self._study.ask(self._distributions())

    def planned(self, trial: Trial) -> list[PlannedRun]:
        """Its runs, one per seed."""
        return self.config.planned(self.method, trial.params)

    def tell(self, trial: Trial, results: list[dict[str, Any]]) -> None:
        """The mean final loss over the seeds; a trial with a failed run counts, and is told as worse than all others.

        Optuna's own failed state would hide the point from the sampler, which would propose it again and again.
        """
        if all(result["status"] == "finished" for result in results):
            self._study.tell(trial, fmean(result["final_loss"] for result in results))
        else:
            trial.set_user_attr(FAILED, True)
            known = [value for old in self.ended() if (value := old.value) is not None]
            self._study.tell(trial, max(known, default=0.0) + PENALTY)

    def count(self) -> int:
        """Trials that have ended."""
        return len(self.ended())

    def ended(self) -> list[FrozenTrial]:
        """Trials that have ended, in order."""
        return self._study.get_trials(states=(TrialState.COMPLETE,))

    def best(self) -> FrozenTrial | None:
        """The trial with the lowest loss; None while all have failed."""
        finished = [trial for trial in self.ended() if not trial.user_attrs.get(FAILED)]
        return min(finished, key=lambda trial: cast(float, trial.value), default=None)

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
        have, ranges = [trial.params for trial in self.ended()], self._distributions()
        for old in earlier:
            if old.params not in have:
                copy = create_trial(value=old.value, params=old.params, distributions=ranges, user_attrs=old.user_attrs)
                self._study.add_trial(copy)

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {name: FloatDistribution(*self.space.ranges[name], log=True) for name in KNOBS}


def write_found(folder: Path, config: TuneConfig, searches: list[_Search]) -> None:
    """`trials.json` and `tuned.yaml` of a search folder, each in one move."""
    records = [
        {
            "method": search.method,
            "trial": trial.number,
            "status": "failed" if trial.user_attrs.get(FAILED) else "finished",
            "loss": None if trial.user_attrs.get(FAILED) else trial.value,
            **settings(search.method, trial.params),
        }
        for search in searches
        for trial in search.ended()
    ]
    found = {"seeds": config.runs.seed_list, "ranges": {s.method: s.space.ranges for s in searches}, "trials": records}
    write_whole(folder / TRIALS, json.dumps(found, indent=1))
    best = {
        s.method: {**s.space.fixed, **settings(s.method, b.params)} for s in searches if (b := s.best()) is not None
    }
    header = [f"# Best settings of each method; {TRIALS} has all trials. Compare with the same other options."]
    header += [f"# {s.method}: the best trial lies at an edge of its range." for s in searches if s.at_edge()]
    content = yaml.safe_dump(
        {"seeds": config.runs.seed_list, "settings": best}, sort_keys=False, default_flow_style=None
    )
    write_whole(folder / TUNED, "\n".join(header) + "\n" + content)
