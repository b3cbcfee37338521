"""How many items fit into some minutes, and what is said of it while it goes on."""

import pytest

pytest.importorskip("transformers")

from cegm.lab.tasks import timetable
from cegm.lab.tasks.axes import chosen
from cegm.lab.tasks.effort import Pace, Work
from cegm.lab.tasks.timetable import Timetable, Watch

AXES = chosen("noise,steps")


def foretold(monkeypatch, asked=None):
    """10 s for each item of the first axis, 600 s for the other one whatever is asked."""

    def rehearsed(examinee, axes, source, items, seed):
        if asked is not None:
            asked.append(items)
        return [Work(10 * items, 0), Work(0, 600)]

    monkeypatch.setattr(timetable, "rehearsed", rehearsed)
    return Timetable(None, AXES, "world", 0, Pace(1.0, 1.0))


def test_many_items_are_foretold_from_few(monkeypatch):
    asked = []
    table = foretold(monkeypatch, asked)
    assert table.seconds(7) == [70, 600]
    assert table.seconds(128) == pytest.approx([1280, 600])
    assert asked == [7, 32, 16]
    assert table.told(128) == "about 31 min (noise 21 min, steps 10 min)"


@pytest.mark.parametrize(
    ("minutes", "items"), [(40, 128), (1880 / 60, 128), (25, 90), (920.1 / 60, 32), (15, 24), (12, 12), (10.5, 3)]
)
def test_as_many_items_as_fit_are_asked(monkeypatch, minutes, items):
    table = foretold(monkeypatch)
    assert table.items_within(minutes, 128) == items
    assert sum(table.seconds(items)) <= 60 * minutes


def test_no_more_than_the_most_are_asked(monkeypatch):
    assert foretold(monkeypatch).items_within(600, 5) == 5
    assert foretold(monkeypatch).items_within(10.7, 5) == 4


def test_too_few_minutes_are_told_with_what_takes_them(monkeypatch):
    with pytest.raises(ValueError, match=r"minutes=9 is too short.*about 10 min \(steps 10 min\)"):
        foretold(monkeypatch).items_within(9, 128)


def test_where_there_is_no_terminal_a_line_a_minute_tells_how_far_it_is(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(timetable.time, "monotonic", lambda: now[0])
    with Watch(AXES, [100, 300], Pace(1.0, 0.0)) as watch:
        for number, axis in enumerate(AXES):
            watch.axis(axis.title, number)
            for _ in range(10):
                now[0] += 20.0  # twice as long as expected
                watch.done(Work(10, 0))
        watch.finish()
    lines = [line for line in capsys.readouterr().err.splitlines() if "left" in line and "%," in line]
    assert len(lines) == 6
    assert lines[0] == f"8 %, {AXES[0].title}, about 12 min left"
    assert lines[-1].startswith(f"45 %, {AXES[1].title}")
