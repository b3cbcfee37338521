"""The page in the Chromium of the system: what it shows, what hostile text does (nothing), and where its requests go."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cegm.lab.train.audit import AuditLog
from cegm.lab.watch.page_server import PageServer
from cegm.lab.watch.watched import Watched
from made_runs import layer_names, lines_of, make_comparison, make_run, train_line

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens the page of a folder in a new window; what it complains of, and asks for elsewhere, is in `page.faults`."""
    closing = []

    def open_page(folder: Path, width: int = 1280, height: int = 900) -> Any:
        server = PageServer(Watched(folder), 0, 0.0)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        context = browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: page.faults.append(dialog.message))
        page.on(
            "request",
            lambda request: page.faults.append(request.url) if not request.url.startswith(server.url) else None,
        )
        closing.extend([context.close, server.shutdown, server.server_close])
        page.goto(server.url)
        return page

    yield open_page
    for close in closing:
        close()


def shows_step(page: Any, step: int) -> None:
    page.wait_for_selector(f'#progress[data-step="{step}"]', timeout=60_000)


def test_a_run_is_followed_cut_back_and_opened_layer_by_layer(open_page: Any, tmp_path: Path) -> None:
    folder = make_comparison(tmp_path / "c", 200, {("adamw", 0): 200, ("cegm", 0): 100}, 10, layer_names(7))
    metrics = next((folder / "runs").glob("cegm*")) / "metrics.jsonl"
    page = open_page(folder)
    shows_step(page, 100)
    page.wait_for_selector(".tile:nth-child(2) .value.good")
    assert page.inner_text("#title") == "CEGM seed 0"
    assert page.locator("#curves figure:visible canvas").count() == 6
    content = metrics.read_bytes().splitlines(keepends=True)
    os.truncate(metrics, sum(map(len, content[:6])))
    shows_step(page, 50)
    with metrics.open("a") as file:
        file.writelines(train_line(step, 200, layer_names(7)) for step in range(60, 121, 10))
    shows_step(page, 120)
    page.keyboard.press("2")
    page.wait_for_selector("canvas.map")
    page.locator("canvas.map").first.focus()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("#layer:visible .uplot")
    assert page.inner_text("#layer h2") == layer_names(7)[2]
    page.keyboard.press("3")
    page.wait_for_selector("#log td.facts")
    assert "start" in page.inner_text("#log")
    page.keyboard.press("k")
    page.wait_for_function("document.getElementById('title').textContent === 'AdamW seed 0'")
    assert page.faults == []


def test_a_phone_has_nothing_to_scroll_to_the_side(open_page: Any, tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"method": "cegm", "seed": 1, "max_steps": 200}, lines_of(200, 100, 10, layer_names(7)))
    page = open_page(tmp_path / "run", 360, 740)
    shows_step(page, 100)
    for key, shown in (("1", "#curves canvas"), ("2", "canvas.map"), ("3", "#log td.facts")):
        page.keyboard.press(key)
        page.wait_for_selector(shown)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.faults == []


def test_hostile_names_labels_and_prompts_do_nothing(open_page: Any, tmp_path: Path) -> None:
    """In the folder's name, an arm, an error, a layer, and facts of the log."""
    folder = make_comparison(tmp_path / "a<b onload=alert(1)>", 200, {("adamw", 0): 100, ("cegm", 0): 100}, 10, [])
    plan = [json.loads(line) for line in (folder / "plan.jsonl").read_text().splitlines()]
    (folder / "plan.jsonl").write_text(
        "".join(json.dumps({**each, "arm": HOSTILE + each["method"]}) + "\n" for each in plan)
    )
    run, other = (next((folder / "runs").glob(f"{method}*")) for method in ("cegm", "adamw"))
    (other / "result.json").write_text(json.dumps({"status": "failed", "error": HOSTILE}))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(train_line(110, 200, [HOSTILE, f"{HOSTILE}.other"], loss=None))
    AuditLog(run / "audit.jsonl").record("spike", step=105, prompt=HOSTILE, layer=HOSTILE)
    page = open_page(folder)
    page.wait_for_selector("#runs tbody tr:nth-child(2)")
    page.locator("#runs tbody tr:nth-child(2)").click()
    shows_step(page, 110)
    assert HOSTILE in page.inner_text("#title")
    page.keyboard.press("2")
    page.wait_for_selector("canvas.map")
    page.locator("canvas.map").first.click(position={"x": 300, "y": 20})
    page.wait_for_selector("#layer:visible .uplot")
    assert page.inner_text("#layer h2") == HOSTILE
    page.keyboard.press("3")
    page.wait_for_selector("#log td.facts")
    assert HOSTILE in page.inner_text("#log")
    assert page.locator("img, body script").count() == 0
    assert page.faults == []
