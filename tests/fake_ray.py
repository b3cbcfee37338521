"""As much of Ray as `cegm.lab.compare.cluster` uses, in this process: a task runs when it is first looked at, unless it waits or is lost."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """Anything that goes wrong in the cluster."""


class RayTaskError(RayError):
    """What a task raised."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"remote: {cause}")
        self.cause = cause


class NodeDiedError(RayError):
    """The machines of a task were lost as often as it may be repeated."""


class Task:
    """A function and what it was given."""

    def __init__(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.work, self.arguments = work, pickle.loads(pickle.dumps(arguments))
        self.outcome: Any = None

    def run(self) -> Any:
        """The task, once."""
        if self.outcome is None:
            try:
                self.outcome = self.work(*self.arguments)
            except Exception as error:
                self.outcome = RayTaskError(error)
        return self.outcome


class FakeRay:
    """Stands for the module; every task that was made is in `tasks`."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, queued: bool = False, lost: int = 0, **resources: float) -> None:
        self.resources = {"CPU": 2.0, **resources}
        self.queued, self.lost = queued, lost
        self.tasks: list[Task] = []
        self.options: list[dict[str, Any]] = []
        self.cancelled: list[Task] = []
        self.ended = 0

    def remote(self, work: Callable[..., Any]) -> Any:
        """What makes tasks of a function."""

        def make(*arguments: Any) -> Task:
            self.tasks.append(Task(work, arguments))
            if self.lost:
                self.lost -= 1
                self.tasks[-1].outcome = NodeDiedError("the machine is gone")
            return self.tasks[-1]

        def options(**given: Any) -> Any:
            self.options.append(given)
            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def wait(self, tasks: list[Task], timeout: float) -> tuple[list[Task], list[Task]]:
        """Everything is there, unless no machine has room."""
        return ([], tasks) if self.queued else (tasks, [])

    def get(self, task: Task, timeout: float | None = None) -> Any:
        """What the task returned; raises what went wrong."""
        outcome = RayError("cancelled") if self.queued else task.run()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def cancel(self, task: Task, force: bool = False) -> None:
        """The end of a task."""
        self.cancelled.append(task)

    def cluster_resources(self) -> dict[str, float]:
        """What all machines have."""
        return self.resources

    def shutdown(self) -> None:
        """The end of the connection."""
        self.ended += 1
