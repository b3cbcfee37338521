"""The tables of docs/runbook.md, from the log of replayed traffic."""

from __future__ import annotations

from logs import load, markdown

LOG = "monitor/replay.json"


def quiet() -> str:
    """False alarms of quiet traffic against the promise."""
    rows = []
    for each in load(LOG)["quiet"]:
        mean = f"{each['mean_to_alarm']:,.0f}" if each["alarms"] else f"more than {each['requests']:,}"
        rows.append(
            [f"{each['promise']:,.0f}", str(each["replays"]), f"{each['requests']:,}", str(each["alarms"]), mean]
        )
    return markdown(["promised", "replays", "requests", "alarms, all false", "mean number of requests to one"], rows)


def changed() -> str:
    """Delays behind changes."""
    rows = []
    for name, each in load(LOG)["changed"].items():
        found, first = each["found"], sorted(each["first"].items(), key=lambda item: -item[1])
        delays = [f"{each[key]:,.0f}" if found else "" for key in ("median_delay", "delay_90")]
        rows.append(
            [name, f"{found} of {each['replays']}", *delays, ", ".join(f"{what} {count}" for what, count in first)]
        )
    return markdown(["what changes", "found", "requests, median", "90 %", "first alarm by"], rows)
