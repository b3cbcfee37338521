"""How long an examination will take, how many items fit into some minutes, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cegm.lab.tasks.axis import Axis
from cegm.lab.tasks.effort import Pace, Work, rehearsed
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import Source

FEW, MORE = 16, 32
"""Items per level of two rehearsals that tell of larger numbers: whole contexts of retention, so that none is a rounded part."""

FEWER = (24, 16, 12, 8, 6, 4, 3, 2, 1)
"""Items per level that are tried where `MORE` take too long."""

A_LINE = 60.0
"""Seconds between two lines where there is no terminal."""


class Timetable:
    """Seconds of each axis by the number of items per level, for one examinee at its pace."""

    def __init__(self, examinee: Examinee, axes: Sequence[Axis], source: Source, seed: int, pace: Pace) -> None:
        self.axes, self.pace = axes, pace
        self._works = cache(lambda items: rehearsed(examinee, axes, source, items, seed))

    def seconds(self, items: int) -> list[float]:
        """Of each axis; beyond `MORE` items along a straight line, which sets that have no more items stay below."""
        last = [self.pace.seconds(work) for work in self._works(min(items, MORE))]
        if items <= MORE:
            return last
        first, steps = (self.pace.seconds(work) for work in self._works(FEW)), (items - MORE) / (MORE - FEW)
        return [high + steps * max(high - low, 0.0) for low, high in zip(first, last, strict=True)]

    def items_within(self, minutes: float, most: int) -> int:
        """How many items per level take so many minutes at most, `most` at most.

        Raises:
            ValueError: Not even one does.
        """
        limit = 60 * minutes
        least, all_ = sum(self.seconds(min(most, MORE))), sum(self.seconds(most))
        if all_ <= limit:
            return most
        if least <= limit:
            return int(MORE + (most - MORE) * (limit - least) / (all_ - least))
        for items in FEWER:
            if items < most and sum(self.seconds(items)) <= limit:
                return items
        raise ValueError(
            f"minutes={minutes:g} is too short, even one item per level takes {self.told(1)}; name fewer axes or shorter lengths"
        )

    def told(self, items: int) -> str:
        """How long it takes, and the axes that take most of it."""
        seconds = self.seconds(items)
        longest = sorted(zip(seconds, self.axes, strict=True), key=lambda each: -each[0])
        named = [f"{axis.name} {_time(each)}" for each, axis in longest if each >= sum(seconds) / 10]
        return f"about {_time(sum(seconds))}" + (f" ({', '.join(named)})" if len(seconds) > 1 and named else "")


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


class Watch:
    """A bar over the time that the axes are expected to take; a line a minute where standard error is no terminal.

    Args:
        axes: What will be measured, in this order.
        seconds: How long each is expected to take.
        pace: That of the examinee, by which the work that it tells of is time that has passed as expected.
    """

    def __init__(self, axes: Sequence[Axis], seconds: Sequence[float], pace: Pace) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.percentage:>3.0f} %"))
        left = TextColumn("{task.fields[left]}")
        self._progress = Progress(*columns, TimeElapsedColumn(), left, console=Console(stderr=True))
        self._titles, self._seconds, self._pace = [axis.title for axis in axes], seconds, pace
        self._task = self._progress.add_task("starting", total=sum(seconds) or None, left="")
        self._number, self._of_axis, self._of_all = 0, 0.0, 0.0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Watch:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._said = time.monotonic()

    def axis(self, title: str, number: int) -> None:
        """Axis `number`, from 0, begins; those before it are over."""
        self._number, self._of_axis = number, 0.0
        self._show(title)

    def done(self, work: Work) -> None:
        """Some work of this axis is done."""
        seconds = self._pace.seconds(work)
        self._of_axis, self._of_all = self._of_axis + seconds, self._of_all + seconds
        self._show(self._titles[self._number])
        if not self._progress.console.is_terminal and time.monotonic() - self._said >= A_LINE:
            task = self._progress.tasks[0]
            self.say(f"{task.percentage:.0f} %, {task.description}, {task.fields['left']}")

    def finish(self) -> None:
        """All axes are over."""
        self.axis("done", len(self._titles))

    def _show(self, title: str) -> None:
        """Axes take their whole time, whatever was told of them; what is left takes as much longer than expected as what is done did."""
        over = sum(self._seconds[: self._number])
        at = over + min(self._of_axis, sum(self._seconds[self._number : self._number + 1]))
        slower = (time.monotonic() - self._began) / self._of_all if self._of_all else 1.0
        left = f"about {_time(slower * (sum(self._seconds) - at))} left"
        self._progress.update(self._task, description=title, completed=at, left=left)
