"""Losses of CEGM and its peers, from the committed logs: tuned, over lengths and learning rates, and on other texts."""

from __future__ import annotations

import numpy as np
import pandas as pd

import plot
import sensitivity
from cegm.lab.report import style
from logs import LOGS, estimate, lines, load, markdown, pair, typeset, verdict

LENGTHS = (150, 200, 300)
PEERS = ("normuon", "muon", "soap", "adamw")


def small_runs() -> pd.DataFrame:
    """Runs of 0.4 million weights on novels, by length."""
    return plot.read(sorted((LOGS / "lengths").glob("novels-*/results.csv")))


def large_runs() -> pd.DataFrame:
    """Runs of 0.8 million weights on novels, by length, with seconds of methods that took turns."""
    return plot.read(sorted((LOGS / "pretrain").glob("[0-9]*.jsonl")))


def longest(runs: pd.DataFrame) -> pd.DataFrame:
    """Final losses after the longest schedule: a row a seed, a column a method."""
    full = runs[runs["budget"] == runs["budget"].max()]
    return full.pivot(index="seed", columns="method", values="loss").sort_index()


def loss_difference(losses: pd.DataFrame, method: str) -> str:
    """CEGM's final loss minus the method's."""
    return typeset(plot.shown(plot.paired_difference(losses["cegm"].tolist(), losses[method].tolist()), "+.3f"))


def peers(runs: pd.DataFrame) -> str:
    """Final losses of tuned methods, best first, and how many of their steps and seconds CEGM needs."""
    losses, needed = longest(runs), plot.needed(runs)
    columns = ["steps", "seconds"] if runs["pace"].notna().all() else ["steps"]
    header = ["method", "final loss", "CEGM minus it", "seeds on which CEGM's is lower"]
    for column in columns:
        header += [f"to AdamW's loss, CEGM's {column} over its", f"to its own loss, {column}"]
    rows = [["**CEGM**", f"**{losses['cegm'].mean():.3f}**", *[""] * (len(header) - 2)]]
    for method in losses.mean().drop("cegm").sort_values().index:
        wins = int((losses["cegm"] < losses[method]).sum())
        row = [style.name(method), f"{losses[method].mean():.3f}", loss_difference(losses, method)]
        row.append(f"{wins} of {len(losses)}")
        for column in columns:
            row += [
                missed(plot.against(needed, column, "cegm", method)),
                missed(plot.overtaking(runs, method, column)),
            ]
        rows.append(row)
    return markdown(header, rows)


def missed(cell: str) -> str:
    """A cell of `plot.py`, with the seeds that missed a loss spelled out."""
    return typeset(
        f"missed on {(seeds := cell.split()[0])} seed{'s' * (seeds != '1')}" if cell.endswith("missed") else cell
    )


def verdicts() -> str:
    """What `cegm compare` itself says at each length: bits per byte of CEGM minus each method's."""
    rows = []
    for steps in LENGTHS:
        found = verdict(f"lengths/novels-{steps}")
        cells = [""] * len(PEERS)
        for index, method in enumerate(PEERS):
            if method in found["methods"]:
                met = pair(found["measures"]["bits_per_byte"], "cegm", method)
                cells[index] = f"{estimate(met['effect'], met['interval'])}, {met['word']}"
        least = min(each["p_holm"] for each in found["measures"]["bits_per_byte"]["pairs"])
        rows.append([str(steps), *cells, f"{least:.3f}"])
    return markdown(["steps", *(f"minus {style.name(method)}" for method in PEERS), "smallest adjusted p"], rows)


def lengths(runs: pd.DataFrame) -> str:
    """Mean final loss after schedules of different lengths."""
    means = runs.groupby(["method", "budget"])["loss"].mean().unstack()
    methods = ["cegm", *(method for method in PEERS if method in means.index)]
    rows = [
        [style.name(method), *("" if np.isnan(loss) else f"{loss:.3f}" for loss in means.loc[method])]
        for method in methods
    ]
    return markdown(["method", *(f"{steps} steps" for steps in means.columns)], rows)


def rate_runs() -> pd.DataFrame:
    """One run per method and learning rate."""
    return sensitivity.read(sorted((LOGS / "pretrain/tuning").glob("rate-*.jsonl")))


def rates() -> str:
    """Final loss at each multiple of every method's first rate, each method's lowest in bold."""
    runs = rate_runs()
    losses = runs.pivot(index="rate", columns="method", values="loss")[["cegm", *PEERS]]
    first = runs[runs["rate"] == 1].set_index("method")["lr"]
    header = ["multiple", *(f"{style.name(method)}, of {first[method]:g}" for method in losses)]
    rows = []
    for rate, row in losses.iterrows():
        cells = [f"**{loss:.3f}**" if loss == losses[method].min() else f"{loss:.3f}" for method, loss in row.items()]
        rows.append([f"{rate:g}", *cells])
    return markdown(header, rows)


def texts() -> str:
    """Three texts with the settings of the generated world: bits per byte, and CEGM against Muon."""
    rows = []
    for folder, title in (("world", "generated world"), ("novels", "49 English novels"), ("biology", "a biology book")):
        measure = verdict(folder)["measures"]["bits_per_byte"]
        means = {method: measure["methods"][method]["mean"] for method in ("adamw", "muon", "cegm")}
        met = pair(measure, "cegm", "muon")
        link = f"{title} ([logs](../benchmarks/results/{folder}/))"
        rows.append([link, *(f"{mean:.3f}" for mean in means.values()), estimate(met["effect"], met["interval"])])
        rows[-1].append(met["word"])
    return markdown(["text", "AdamW", "Muon", "CEGM", "CEGM minus Muon", "word"], rows)


def tuning_numbers() -> dict[str, str]:
    """Trials of each search, and runs by which CEGM's preset was chosen."""
    peer = pd.DataFrame(load("tuning/novels/trials.json")["trials"]).groupby("method").size()
    logs = sorted((LOGS / "pretrain/tuning").glob("*.jsonl"))
    tried = [run for path in logs for run in lines(f"pretrain/tuning/{path.name}")[0]["settings"]]
    return {
        "small": str(peer.min()),
        "small_cegm": str(len(load("tuning/novels-cegm/trials.json")["trials"])),
        "large": str(pd.Series(run.split()[0] for run in tried).value_counts().min()),
        "reader": str(pd.DataFrame(load("tuning/reader.json")["trials"]).groupby("method").size().min()),
        "world": str(pd.DataFrame(load("tuning/world.json")["trials"]).groupby("method").size().min()),
        "preset": str(len(lines("exploration/leads_novels_300_steps.jsonl"))),
    }


def steps_ratio(runs: pd.DataFrame, method: str) -> str:
    """CEGM's steps to AdamW's final loss over the method's."""
    return missed(plot.against(plot.needed(runs), "steps", "cegm", method))
