"""The terminal's view: four answers, alarms, curves as bars of text, layers in a line each, and the runs of a comparison. From 60 columns on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from statistics import median

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cegm.lab.compare.progress import A_LINE
from cegm.lab.streams import printable
from cegm.lab.watch.answers import Standing, differences, signed, standing
from cegm.lab.watch.layer_lines import QUANTITIES
from cegm.lab.watch.watched import BESIDE, Watched
from cegm.lab.watch.watched_run import WatchedRun

EVERY = 1.0
"""Seconds between two looks."""

BARS = "▁▂▃▄▅▆▇█"
LABEL, NUMBER = 15, 11
"""Characters of a curve's name and of its last value."""

TONES = {"good": "green", "bad": "red", "": ""}
OVER = ("finished", "failed", "stopped")
QUESTIONS = {"healthy": "healthy?", "better": "better?", "done": "done?", "cost": "cost?"}


def show(watched: Watched, price: float) -> None:
    """Draws until everything has ended or the user stops it; where the output is no terminal, a line a minute."""
    console = Console()
    if not console.is_terminal:
        _tell(watched, price, console)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not is_over(watched):
            live.update(frame(watched, price, console.width), refresh=True)
            time.sleep(EVERY)
            watched.look()
    console.print(frame(watched, price, console.width))


def _tell(watched: Watched, price: float, console: Console) -> None:
    while True:
        console.print(sentence(watched, price), markup=False, highlight=False, soft_wrap=True)
        if is_over(watched):
            return
        time.sleep(A_LINE)
        watched.look()


def is_over(watched: Watched) -> bool:
    """Whether nothing more is to be expected."""
    return all(run.state in OVER for run in watched.runs.values() if run.id != BESIDE) and bool(watched.runs)


def frame(watched: Watched, price: float, width: int) -> RenderableType:
    """All of it, the most wanted first: what does not fit the height is cut off at the end."""
    first = watched.shown_first()
    if not first:
        return Text(f"{printable(watched.name)}: no run has been planned yet")
    run = watched.runs[first]
    run.lines.look()
    pair = watched.pair_of(run)
    if pair is not None:
        pair.lines.look()
    found = standing(run, pair, price)
    parts: list[RenderableType] = [_head(watched, found, width), _answers(found)]
    parts += [Text(f"! {printable(each.words)}", style="red") for each in found.alarms[1:]]
    parts += [Text(""), *_curves(run, pair, width), *_layers(run)]
    if len(watched.runs) > 1:
        parts += [Text(""), _runs(watched, price)]
    return Group(*parts)


def sentence(watched: Watched, price: float) -> str:
    """Everything in a line."""
    first = watched.shown_first()
    if not first:
        return f"{printable(watched.name)}: no run has been planned yet"
    found = standing(watched.runs[first], watched.pair_of(watched.runs[first]), price)
    over = sum(run.state in OVER for run in watched.runs.values())
    counts = f" ({over} of {len(watched.runs)} runs ended)" if len(watched.runs) > 1 else ""
    answers = [found.healthy, found.better, found.done, found.cost]
    found.better.value += f" than {found.pair_title}" if found.better.tone else ""
    told = "; ".join([*(each.value for each in answers), *(each.words for each in found.alarms)])
    steps = f" of {found.steps:,}" if found.steps else ""
    return printable(f"{time.strftime('%H:%M:%S')} {found.title}{counts} step {found.step:,}{steps}: {told}")


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The last values as bars, one each, or the mean of neighbours where there are more than fit; a gap where there is none."""
    size = max(1, -(-len(values) // width))
    groups = [[v for v in values[at : at + size] if v is not None] for at in range(0, len(values), size)]
    means = [sum(group) / len(group) if group else None for group in groups]
    known = [mean for mean in means if mean is not None]
    if not known:
        return ""
    low, reach = min(known), (max(known) - min(known)) or 1.0
    return "".join(" " if mean is None else BARS[round((mean - low) / reach * (len(BARS) - 1))] for mean in means)


def _head(watched: Watched, found: Standing, width: int) -> Text:
    verdict = watched.verdict()
    left = f"{printable(watched.name)}: {printable(found.title)}" + (f", pilot {printable(verdict)}" if verdict else "")
    right = found.state
    room = max(10, width - len(right) - 2)
    left = left if len(left) <= room else left[: room - 1] + "…"
    return Text.assemble((left.ljust(room + 1), "bold"), (right, "bold"))


def _answers(found: Standing) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=9, no_wrap=True)
    table.add_column(ratio=1)
    for name, question in QUESTIONS.items():
        answer = getattr(found, name)
        words = Text.assemble(
            (printable(answer.value), f"bold {TONES[answer.tone]}".strip()), "  ", printable(answer.detail)
        )
        table.add_row(Text(question, style="dim"), words)
    return table


def _curves(run: WatchedRun, pair: WatchedRun | None, width: int) -> Iterable[Text]:
    train, room = run.train, max(10, width - LABEL - NUMBER - 2)
    rows: list[tuple[str, list[float | None], str]] = [("loss", [each.loss for each in train], ".4f")]
    if pair is not None:
        here = train[-1].step if train else 0
        rows.append(("baseline's", [each.loss for each in pair.train if each.step <= here], ".4f"))
        rows.append(("difference", [each for _, each in differences(run, pair)], "+.4f"))
    rows += [
        ("validation", [each.bits_per_byte for each in run.validations], ".4f"),
        ("rate, matrices", [each.lr_matrix for each in train], ".2e"),
        ("rate, others", [each.lr_adamw for each in train], ".2e"),
        ("passes, ms", [_milliseconds(each.forward_backward_seconds) for each in train], ",.1f"),
        ("update, ms", [_milliseconds(each.optimizer_seconds) for each in train], ",.1f"),
        ("gradient norm", [each.gradient_norm for each in train], ".3g"),
        ("clip factor", [each.clip_factor for each in train], ".3g"),
    ]
    for name, values, form in rows:
        known = [value for value in values if value is not None]
        if known:
            shown = signed(known[-1]) if form.startswith("+") else f"{known[-1]:{form}}"
            yield Text.assemble((name.ljust(LABEL), "dim"), shown.rjust(NUMBER), "  ", sparkline(values, room))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _layers(run: WatchedRun) -> Iterable[Text]:
    """Smallest, middle and largest number over all layers of the last line that has them."""
    layers = run.layers.last().values()
    if layers:
        yield Text(f"\n{len(layers)} layers, smallest / middle / largest", style="dim")
    for key, name in QUANTITIES.items():
        known = [value for own in layers if (value := own.get(key)) is not None]
        if known:
            yield Text(f"{name:<42}{min(known):>10.3g}{median(known):>10.3g}{max(known):>10.3g}")


def _runs(watched: Watched, price: float) -> Table:
    """Those that are under way first."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("run", no_wrap=True, overflow="ellipsis", max_width=30)
    table.add_column("state", no_wrap=True)
    for name in ("step", "of", "bits/byte", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    found = [standing(run, watched.pair_of(run), price) for run in watched.runs.values()]
    for each in sorted(found, key=lambda each: each.state != "running"):
        value = "" if each.bits_per_byte is None else f"{each.bits_per_byte:.4f}"
        difference = "" if each.difference is None else signed(each.difference)
        steps = "" if each.steps is None else f"{each.steps:,}"
        state = each.state if not each.alarms or each.alarms[0].grave else f"{each.state} !"
        table.add_row(Text(printable(each.title)), state, f"{each.step:,}", steps, value, difference)
    return table
