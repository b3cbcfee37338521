"""One run that is watched: who it is, how far it is, and whether it is still going."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from cegm.lab.baselines import METHODS
from cegm.lab.records import Begun, Final, Result, Validation
from cegm.lab.strict import json_object, read_text, yaml_value
from cegm.lab.train.run_config import DEFAULT_STEPS
from cegm.lab.watch.chain_events import ChainEvents
from cegm.lab.watch.follower import Follower, TrainLine
from cegm.lab.watch.layer_lines import LayerLines

State = Literal["waiting", "running", "examined", "finished", "stopped", "failed"]
ENDINGS = ("non_finite", "stopped")
"""Events with which a run ends without having finished; it may be resumed."""


class _Described(msgspec.Struct):
    """Of `config.yaml`, what is shown."""

    config: dict[str, Any] = {}
    tokens: dict[str, int] = {}


class WatchedRun:
    """One run, as its folder tells it; what a plan has told of it is known before.

    Args:
        identity: By which it is asked for.
        folder: Where it lies, or will lie.
        arm: The method, or in an ablation the change.
        method: The method.
        seed: Of weights and batches.
        role: As in the plan.
        config: Fields of its `RunConfig`.

    Attributes:
        pair: Id of the run that it is held against; empty for none.
        result: How it ended, of a comparison.
        lines: Its `metrics.jsonl`.
        layers: What that says of layers.
        events: Its audit log.
    """

    def __init__(
        self,
        identity: str,
        folder: Path,
        arm: str = "",
        method: str = "",
        seed: int | None = None,
        role: str = "main",
        config: dict[str, Any] | None = None,
    ) -> None:
        self.id, self.folder, self.arm, self.method, self.seed, self.role = identity, folder, arm, method, seed, role
        self.config = config or {}
        self.pair = ""
        self.result: Result | None = None
        self.lines = Follower(folder / "metrics.jsonl")
        self.layers = LayerLines(self.lines)
        self.events = ChainEvents(folder / "audit.jsonl")
        self._planned = config is not None
        self._train_tokens = 0
        self._seen: dict[str, tuple[int, int]] = {}

    def look(self) -> None:
        """Reads what has changed; of a run that has a result no lines, which somebody has to ask for."""
        if self._has_changed("config.yaml"):
            self._describe()
        if self._planned and self._has_changed("result.json"):
            with suppress(OSError, ValueError):
                self.result = msgspec.convert(json_object(self.folder / "result.json", nan_is_null=True), Result)
        if self.is_open:
            self.lines.look()
            self.events.look()

    @property
    def title(self) -> str:
        """Arm and seed, as people write them."""
        arm = METHODS[self.arm].title if self.arm in METHODS else self.arm or self.folder.name
        rate = self.config.get("learning_rate")
        told = f" at {rate:g}" if self.role == "front" and isinstance(rate, int | float) else ""
        seed = "" if self.seed is None else f" seed {self.seed}"
        return f"{arm}{told}{seed}{', equal seconds' * (self.role == 'equal_seconds')}"

    @property
    def train(self) -> list[TrainLine]:
        """Its lines for steps."""
        return [each.record for each in self.lines.lines if isinstance(each.record, TrainLine)]

    @property
    def validations(self) -> list[Validation]:
        """Its lines for validations."""
        return [each.record for each in self.lines.lines if isinstance(each.record, Validation)]

    @property
    def final(self) -> Final | None:
        """Its last line, if it got there."""
        last = self.lines.lines[-1].record if self.lines.lines else None
        return last if isinstance(last, Final) else None

    @property
    def is_open(self) -> bool:
        """Whether more may come of it than its result tells."""
        return self.result is None or self.result.status != "finished"

    @property
    def state(self) -> State:
        """How it stands by what it has written; one that was killed has not written that."""
        if not self.is_open:
            return "finished"
        if self.final is not None:
            return "examined" if self._planned else "finished"
        if self.result is not None and self._seen["result.json"][1] >= self.lines.modified:
            return "failed"  # else it is tried again
        last = self.events.events[-1].get("event") if self.events.events else None
        if last in ENDINGS:
            return "stopped"
        return "running" if self.lines.lines or self.events.events else "waiting"

    @property
    def steps(self) -> int | None:
        """Steps that it takes in all: of epochs about, by its tokens; None where nothing tells."""
        limit, epochs = self.config.get("max_steps"), self.config.get("num_train_epochs")
        if isinstance(limit, int):
            return limit
        if not isinstance(epochs, int | float):
            return DEFAULT_STEPS if self.config else None
        last = next((each.record for each in reversed(self.lines.lines) if isinstance(each.record, TrainLine)), None)
        if last is None or not last.tokens or not last.step:
            return None
        return max(last.step, round(epochs * self._train_tokens * last.step / last.tokens))

    def _describe(self) -> None:
        path = self.folder / "config.yaml"
        with suppress(OSError, ValueError):
            described = msgspec.convert(yaml_value(read_text(path), str(path)), _Described)
            self._train_tokens = described.tokens.get("train", 0)
            if not self._planned:
                self.config = described.config
                begun = msgspec.convert(described.config, Begun)
                self.arm, self.method, self.seed = begun.method, begun.method, begun.seed

    def _has_changed(self, name: str) -> bool:
        with suppress(OSError):
            state = (self.folder / name).stat()
            seen = (state.st_size, state.st_mtime_ns)
            if self._seen.get(name) != seen:
                self._seen[name] = seen
                return True
        return False
