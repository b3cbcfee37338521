"""As much of Ray as `cegm.lab.compare.cluster` uses, in this process: calls happen at once, machines can be lost."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """Anything that goes wrong in the cluster."""


class RayTaskError(RayError):
    """What a method of an actor raised."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"remote: {cause}")
        self.cause = cause


class ActorDiedError(RayError):
    """The worker of an actor is gone."""


class Actor:
    """An actor; `lose` does to it what a lost machine does."""

    def __init__(self, held: Any, queued: bool) -> None:
        self.held, self.queued, self.lost, self.calls = held, queued, False, []

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self._call(name, arguments))

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Callable[[], Any]:
        self.calls.append(name)
        if self.lost or self.queued:
            return self._dead
        try:
            value = getattr(self.held, name)(*arguments)
        except Exception as error:
            failure = RayTaskError(error)
            return lambda: self._raise(failure)
        return lambda: self._dead() if self.lost else value

    def lose(self) -> None:
        """Its machine is gone, and its run with it."""
        self.lost = True
        self.held._process._process.kill()

    def _dead(self) -> Any:
        raise ActorDiedError("the machine is gone")

    @staticmethod
    def _raise(error: BaseException) -> Any:
        raise error


class FakeRay:
    """Stands for the module; every actor that was made is in `actors`."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, queued: bool = False, **resources: float) -> None:
        self.resources = {"CPU": 2.0, **resources}
        self.queued = queued
        self.actors: list[Actor] = []
        self.options: list[dict[str, Any]] = []
        self.killed: list[Actor] = []
        self.ended = 0

    def remote(self, kind: Callable[[], Any]) -> Any:
        """An actor class."""

        def make() -> Actor:
            self.actors.append(Actor(kind(), self.queued))
            return self.actors[-1]

        def options(**given: Any) -> Any:
            self.options.append(given)
            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def wait(self, answers: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        """Everything is there, unless no machine has room."""
        return ([], answers) if self.queued else (answers, [])

    def get(self, answer: Callable[[], Any], timeout: float | None = None) -> Any:
        """The answer, or what went wrong."""
        return answer()

    def kill(self, actor: Actor) -> None:
        """The end of an actor."""
        self.killed.append(actor)

    def cluster_resources(self) -> dict[str, float]:
        """What all machines have."""
        return self.resources

    def shutdown(self) -> None:
        """The end of the connection."""
        self.ended += 1
