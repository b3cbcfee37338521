"""What `cegm watch --page` takes and shows in a real browser: delay of a step, a kill and a resumption, a long run of a deep model.

    python benchmarks/watch_browser.py --output benchmarks/results/watch/browser.json

Needs the system's Chromium. Steps are written by this process into folders such as `cegm train` writes; only the run that is killed
and resumed is a training. Every request of the page is recorded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from cegm.durable import write_whole
from cegm.lab.train.folder import hardware
from faults import write_model
from made_runs import layer_names, lines_of, make_run, train_line

COMMAND = (sys.executable, "-m", "cegm.lab.cli")
MEBIBYTE = 2**20
RESUMED = 400
"""Steps of the training that is killed."""

SEEN = """
window.seen = {}; window.redraws = []; window.longTasks = [];
const request = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (draw) => request((now) => {
  const begun = performance.now(); draw(now); window.redraws.push(performance.now() - begun);
});
new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((each) => each.duration))).observe({type: "longtask"});
document.addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
  const step = document.getElementById("progress").dataset.step;
  request(() => setTimeout(() => { window.seen[step] ??= Date.now(); }));  // after the frame is painted
}).observe(document.getElementById("progress"), {attributes: true}));
"""
"""Notes when a step is on the screen, how long redraws take, and what keeps the page busy for 50 ms or more."""

KEEP = """
window.drawn = []; let isLoss = false; const join = uPlot.join;
uPlot.join = (tables) => { isLoss = !isLoss; if (isLoss) window.drawn = tables[0][0].slice(); return join(tables); };
true
"""
"""Keeps the steps of the loss curve as it was drawn last; every drawing joins its numbers first, then those of validations."""


@contextmanager
def watching(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of its own process, and where it is."""
    command = [*COMMAND, "watch", str(folder), "--page", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as server:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        try:
            yield server, found[0]
        finally:
            server.kill()


def shows(page: Page, step: int, seconds: float = 120.0) -> None:
    page.wait_for_selector(f'#progress[data-step="{step}"]', timeout=1000 * seconds)


def until(page: Page, condition: str) -> None:
    """Waits for something to be true in the page, which lets no driver evaluate text by itself."""
    while not page.evaluate(condition):
        page.wait_for_timeout(50)


def delays(page: Page, folder: Path, steps: int) -> dict[str, Any]:
    """Seconds from the end of writing a line until its step is painted."""
    names, draw, written = layer_names(14), random.Random(0), {}
    config = {"method": "cegm", "seed": 0, "max_steps": steps + 10}
    make_run(folder, config, lines_of(steps + 10, 10, 1, names))
    with watching(folder) as (_, url):
        page.goto(url)
        shows(page, 10)
        for step in range(11, 11 + steps):
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(train_line(step, steps + 10, names))
            written[step] = 1000 * time.time()
            time.sleep(draw.uniform(0.2, 0.5))
        shows(page, 10 + steps)
        page.wait_for_timeout(500)
        seen = page.evaluate("window.seen")
    # Of two steps that come with one frame only the later one is seen; the other was there by then.
    shown = {step: min(at for each, at in seen.items() if int(each) >= step) for step in written}
    seconds = sorted((shown[step] - then) / 1000 for step, then in written.items())
    return {
        "steps": steps,
        "median_seconds": statistics.median(seconds),
        "worst_seconds": seconds[-1],
        "seconds": seconds,
    }


def resumption(page: Page, place: Path) -> dict[str, Any]:
    """A training killed with SIGKILL and resumed, the server too; the steps that are drawn at the end are those of the file."""
    write_model(place / "model", width=32, layers=2, positions=64)
    (place / "text.txt").write_text("the river carries a small boat past old houses\n" * 3000, encoding="utf-8")
    options = {
        "model_name_or_path": place / "model", "data": place / "text.txt", "output_dir": place / "run", "max_length": 64,
        "per_device_train_batch_size": 4, "max_steps": RESUMED, "logging_steps": 1, "save_steps": 50, "eval_steps": 200, "eval_rows": 4,
        "threads": 1, "learning_rate": 0.005,
    }  # fmt: skip
    words = [*COMMAND, "train", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as training:
        while not (place / "run" / "metrics.jsonl").exists():
            assert training.poll() is None, "the training ended before it began"
            time.sleep(0.02)
        with watching(place / "run") as (server, url):
            page.goto(url)
            page.evaluate(KEEP)
            until(page, "window.drawn.length > 120")
            training.kill()
            training.wait()
            before = page.evaluate("window.drawn")
            with subprocess.Popen([*words, "--resume_from_checkpoint", "latest"], stdout=subprocess.DEVNULL) as again:
                until(page, f"window.drawn.length > {len(before)} + 20")
                server.kill()
                server.wait()
                with watching(place / "run", int(url.rsplit(":", 1)[1].strip("/"))):
                    assert again.wait() == 0
                    shows(page, RESUMED)
                    page.wait_for_timeout(500)
                    after = page.evaluate("window.drawn")
    lines = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = [line["step"] for line in lines if line["kind"] == "train"]
    facts = {"steps_before_the_kill": len(before), "steps_in_the_file": len(logged), "steps_drawn": len(after)}
    return {**facts, "twice": len(after) - len(set(after)), "as_in_the_file": after == logged}


def long_run(page: Page, folder: Path, steps: int, layers: int) -> dict[str, Any]:
    """Memory of server and page, redraws while lines come, and what the maps take, for many steps of many layers."""
    names = layer_names(layers)
    config = {"method": "cegm", "seed": 0, "max_steps": steps + 40}
    few = [re.search(r'"layers": (\{.*\}), "batch_hash"', train_line(step, steps, names)) for step in range(1, 41)]
    blobs = itertools.cycle([found[1] for found in few if found])

    def line(step: int) -> str:
        return train_line(step, steps, []).replace("}\n", f', "layers": {next(blobs)}}}\n')

    make_run(folder, config, (line(step) for step in range(1, steps + 1)))
    begun = time.monotonic()
    with watching(folder) as (server, url):
        page.goto(url)
        shows(page, steps, 300)
        first = time.monotonic() - begun
        page.evaluate("window.redraws.length = 0")
        for step in range(steps + 1, steps + 31):
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(line(step))
            page.wait_for_timeout(200)
        shows(page, steps + 30)
        redraws = page.evaluate("window.redraws")
        page.evaluate("window.longTasks.length = 0")
        begun = time.monotonic()
        page.keyboard.press("2")
        until(page, "document.querySelectorAll('canvas.map').length === 9")
        maps = time.monotonic() - begun
        page.wait_for_timeout(1000)
        heap = page.context.new_cdp_session(page).send("Runtime.getHeapUsage")["usedSize"]
        return {
            "steps": steps,
            "layers": layers,
            "file_mebibytes": (folder / "metrics.jsonl").stat().st_size / MEBIBYTE,
            "seconds_from_the_server_s_start_to_the_last_step": first,
            "redraw_median_milliseconds": statistics.median(redraws),
            "redraw_worst_milliseconds": max(redraws),
            "seconds_to_all_nine_maps": maps,
            "longest_task_of_the_maps_milliseconds": max(page.evaluate("window.longTasks"), default=0),
            "page_heap_mebibytes": heap / MEBIBYTE,
            "page_private_mebibytes": private_memory(page) / MEBIBYTE,
            "server_peak_mebibytes": memory_of(server.pid, "VmHWM") / MEBIBYTE,
        }


def memory_of(process: int, name: str) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{name}:"))


def private_memory(page: Page) -> int:
    """Resident memory of the page's process that no file backs, as far as it can be told: the largest of all pages' processes."""
    assert page.context.browser is not None
    session = page.context.browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    return max(memory_of(each["id"], "RssAnon") for each in processes if each["type"] == "renderer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="delay,resumption,long_run", help="what to measure; the rest of the log stays"
    )
    parser.add_argument("--delays", type=int, default=200, help="lines whose delay is measured")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    requests: list[str] = []
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])

        def opened() -> Page:
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            context.add_init_script(SEEN)
            context.on("request", lambda request: requests.append(request.url))
            return context.new_page()

        found = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {}
        found |= {"hardware": hardware(), "chromium": browser.version}
        measures: dict[str, Callable[[Page], dict[str, Any]]] = {
            "delay": lambda page: delays(page, Path(place) / "delay", arguments.delays),
            "resumption": lambda page: resumption(page, Path(place)),
            "long_run": lambda page: long_run(page, Path(place) / "long", arguments.steps, arguments.layers),
        }
        for name in arguments.only.split(","):
            page, load = opened(), os.getloadavg()[0]
            requests.clear()
            found[name] = {"load": load, **measures[name](page)}
            page.context.close()
            outside = sorted({url for url in requests if not url.startswith("http://127.0.0.1:")})
            found[name] |= {"requests": len(requests), "requests_elsewhere": outside}
            write_whole(arguments.output, json.dumps(rounded(found), indent=1) + "\n")
            print(name, json.dumps({key: value for key, value in found[name].items() if key != "seconds"}), flush=True)
        browser.close()


def rounded(value: Any) -> Any:
    """Numbers to four digits."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
