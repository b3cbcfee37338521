"""`/metrics`: what the router counts, in the text format of Prometheus 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cegm.lab.rollout.rollout_state import RolloutState
from cegm.lab.rollout.tallies import Tallies, quantile

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
QUANTILES = (0.5, 0.95, 0.99)
PREFIX = "cegm_rollout"


def exposition(state: RolloutState, tallies: Tallies, counters: Mapping[str, int], gauges: Mapping[str, float]) -> str:
    """The page: tallies by stage, variant and shadow, counters and gauges of the router, and the stage."""
    lines = [*_tallies(tallies)]
    for name, count in counters.items():
        lines += [f"# TYPE {PREFIX}_{name}_total counter", f"{PREFIX}_{name}_total {count}"]
    for name, value in {**gauges, "share": state.share, "waiting": float(state.waiting)}.items():
        lines += [f"# TYPE {PREFIX}_{name} gauge", f"{PREFIX}_{name} {value:g}"]
    lines += [f"# TYPE {PREFIX}_stage gauge", f"{PREFIX}_stage{_labels(stage=state.stage)} 1"]
    return "\n".join(lines) + "\n"


def _tallies(tallies: Tallies) -> Iterator[str]:
    by_labels = {_inside(*key): tally for key, tally in sorted(tallies.items())}
    for name in ("requests", "errors", "refused", "characters"):
        yield f"# TYPE {PREFIX}_{name}_total counter"
        for labels, tally in by_labels.items():
            yield f"{PREFIX}_{name}_total{{{labels}}} {getattr(tally, name)}"
    yield f"# TYPE {PREFIX}_seconds summary"
    for labels, tally in by_labels.items():
        for level in QUANTILES:
            yield f'{PREFIX}_seconds{{{labels},quantile="{level:g}"}} {quantile(tally.latest, level).value!r}'
        yield f"{PREFIX}_seconds_sum{{{labels}}} {tally.seconds!r}"
        yield f"{PREFIX}_seconds_count{{{labels}}} {tally.requests}"


def _inside(stage: str, variant: str, shadow: bool) -> str:
    return _labels(stage=stage, variant=variant, shadow=str(shadow).lower())[1:-1]


def _labels(**values: str) -> str:
    """Labels with what the format wants escaped."""
    escaped = {n: v.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for n, v in values.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
