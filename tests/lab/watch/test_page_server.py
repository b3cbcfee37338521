"""The page's server: for this machine alone, everything of the page and nothing else, events that can be gone on with."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cegm.lab.watch.page_server import FILES, PageServer
from cegm.lab.watch.watched import ALONE, Watched
from made_runs import layer_names, lines_of, make_comparison, make_run, planned, train_line

CHART_LIBRARY = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
"""Files of uPlot 1.6.32 as npm has them, by sha256."""

PAGE = resources.files("cegm.lab.watch") / "page"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    config = {"method": "cegm", "seed": 1, "max_steps": 400}
    return make_run(tmp_path / "run", config, lines_of(400, 100, 10, layer_names(5)))


@pytest.fixture
def server(run: Path) -> Iterator[PageServer]:
    yield from served(run)


def served(path: Path) -> Iterator[PageServer]:
    with PageServer(Watched(path), 0, 0.0) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def get(server: PageServer, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


class Listener:
    """Hears the events of a stream."""

    def __init__(self, server: PageServer, run: str = ALONE, last: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.server_port), timeout=20)
        again = f"Last-Event-ID: {last}\r\n" if last else ""
        self._socket.sendall(f"GET /events?run={run} HTTP/1.0\r\nHost: 127.0.0.1:1\r\n{again}\r\n".encode())
        self._file = self._socket.makefile("rb")
        while self._file.readline().strip():
            pass
        self.id = last

    def next(self, *names: str) -> tuple[str, Any]:
        """The next event of these names."""
        while True:
            event: dict[str, str] = {}
            while text := self._file.readline().decode().rstrip("\n"):
                name, _, value = text.partition(": ")
                event[name] = value
            self.id = event.get("id", self.id)
            if event.get("event") in names:
                return event["event"], json.loads(event["data"])

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "localhost:{}", "127.0.0.1:9999", "localhost"])
def test_this_machine_may_ask_through_whatever_tunnel(server: PageServer, host: str) -> None:
    assert get(server, "/", Host=host.format(server.server_port))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8642",
        "127.0.0.1.evil.example:80",
        "127.0.0.1@evil.example",
        "",
        "0.0.0.0:80",
        "[::1]:80",
    ],
)
def test_a_foreign_host_is_refused_whatever_it_asks_for(server: PageServer, host: str) -> None:
    for path in ("/", "/events?run=run", "/layers?run=run", "/log"):
        status, _, content = get(server, path, Host=host)
        assert (status, content) == (403, b"")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:1", "null", "https://127.0.0.1:{}", "http://localhost:{}"]
)
def test_a_foreign_origin_is_refused(server: PageServer, origin: str) -> None:
    own = f"127.0.0.1:{server.server_port}"
    assert get(server, "/", Host=own, Origin=origin.format(server.server_port))[0] == 403
    assert get(server, "/", Host=own, Origin=f"http://{own}")[0] == 200


def test_only_this_machine_is_listened_to(server: PageServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_every_answer_forbids_what_the_page_does_not_need(server: PageServer) -> None:
    for path in ("/", "/watch.js", "/nothing", "/layers?run=run"):
        headers = get(server, path)[1]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers


def test_every_file_of_the_page_can_be_had_and_no_other(server: PageServer) -> None:
    for path in FILES:
        status, headers, content = get(server, path)
        assert (status, int(headers["Content-Length"])) == (200, len(content))
    for path in (
        "/../../etc/passwd",
        "/page/watch.js",
        "/metrics.jsonl",
        "/%2e%2e/audit.jsonl",
        "/layers?run=../run",
        "/layers",
    ):
        assert get(server, path)[0] == 404


def test_the_page_names_nothing_of_elsewhere_and_has_no_script_of_its_own() -> None:
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8")
        if not file.name.startswith("uPlot"):
            assert not re.findall(
                r"https?://|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text
            )
    page = (PAGE / "watch.html").read_text(encoding="utf-8")
    assert not re.findall(r"<script>|<script(?![^>]*src=)|\son\w+=|style=", page)
    assert set(re.findall(r'(?:src|href)="([^"]+)"', page)) <= set(FILES)


@pytest.mark.parametrize(("name", "sha256"), CHART_LIBRARY.items())
def test_the_chart_library_is_what_its_authors_published(name: str, sha256: str) -> None:
    assert hashlib.sha256((PAGE / name).read_bytes()).hexdigest() == sha256


def test_a_new_line_comes_as_an_event_whose_id_is_where_the_file_has_been_read_to(
    server: PageServer, run: Path
) -> None:
    listener, metrics = Listener(server), run / "metrics.jsonl"
    _, first = listener.next("lines")
    assert first["run"] == 0
    assert first["train"]["step"] == list(range(10, 101, 10))
    assert first["validation"]["step"] == [0, 100]
    assert listener.id.split("-")[0] == str(metrics.stat().st_size)
    with metrics.open("a") as file:
        file.write(train_line(110, 400, layer_names(5), loss=2.5))
    _, second = listener.next("lines")
    assert (second["train"]["step"], second["train"]["loss"]) == ([110], [2.5])
    assert listener.id.split("-")[0] == str(metrics.stat().st_size)
    listener.close()


def test_who_reconnects_gets_what_was_missed_and_nothing_twice(server: PageServer, run: Path) -> None:
    listener = Listener(server)
    listener.next("lines")
    listener.close()
    with (run / "metrics.jsonl").open("a") as file:
        file.write(train_line(110, 400, []))
    again = Listener(server, last=listener.id)
    assert again.next("lines", "cut") == ("lines", {"run": 0, **again_of([110])})
    again.close()


def again_of(steps: list[int]) -> dict[str, Any]:
    """What an event of these lines holds, to six digits."""
    records = [json.loads(train_line(step, 400, [])) for step in steps]
    names = (
        "step",
        "loss",
        "lr_matrix",
        "lr_adamw",
        "forward_backward_seconds",
        "optimizer_seconds",
        "gradient_norm",
        "clip_factor",
    )
    train = {
        name: [value if name == "step" else float(f"{value:.6g}") for value in (each[name] for each in records)]
        for name in names
    }
    return {"train": train, "validation": {"step": [], "loss": [], "bits_per_byte": []}}


def test_a_resumption_is_a_cut_and_its_lines_come_once(server: PageServer, run: Path) -> None:
    metrics = run / "metrics.jsonl"
    content = metrics.read_bytes().splitlines(keepends=True)
    listener = Listener(server)
    listener.next("lines")
    os.truncate(metrics, sum(map(len, content[:6])))
    assert listener.next("cut", "lines") == ("cut", {"run": 0, "train": 5, "validation": 1})
    with metrics.open("a") as file:
        file.write(train_line(60, 400, [], seed=1))
    assert listener.next("cut", "lines")[1]["train"]["step"] == [60]
    listener.close()
    metrics.write_bytes(b"".join(content))
    again = Listener(server, last=listener.id)
    assert again.next("cut", "lines") == ("cut", {"run": 0, "train": 0, "validation": 0})
    assert again.next("cut", "lines")[1]["train"]["step"] == list(range(10, 101, 10))
    again.close()


def test_a_baseline_comes_in_the_same_stream_with_a_place_of_its_own(tmp_path: Path) -> None:
    folder = make_comparison(tmp_path / "c", 100, {("adamw", 0): 100, ("cegm", 0): 50}, 10, layer_names(2))
    for server in served(folder):
        listener = Listener(server, run=str(planned("cegm", 0, 100)["id"]))
        found = [listener.next("lines")[1] for _ in range(2)]
        assert [each["run"] for each in found] == [0, 1]
        assert [each["train"]["step"][-1] for each in found] == [50, 100]
        sizes = [
            next((folder / "runs").glob(f"{m}*")).joinpath("metrics.jsonl").stat().st_size for m in ("cegm", "adamw")
        ]
        assert [int(mark.split("-")[0]) for mark in listener.id.split(",")] == sizes
        overview = listener.next("overview")[1]
        assert [each["state"] for each in overview["runs"]] == ["finished", "running"]
        listener.close()


def test_layers_are_sent_when_they_are_asked_for(server: PageServer) -> None:
    names = json.loads(get(server, "/layers?run=run")[2])["quantities"]
    assert names["update_to_weight"] == "update over weight"
    table = json.loads(get(server, "/layers?run=run&quantity=cosine")[2])
    assert (table["layers"], len(table["values"])) == (layer_names(5), 5)
    one = json.loads(get(server, f"/layers?run=run&layer={quote(layer_names(5)[2])}")[2])
    assert one["values"]["cosine"] == table["values"][2]
    listener = Listener(server)
    assert "layers" not in json.dumps(listener.next("lines")[1])
    listener.close()


def test_the_audit_log_comes_with_what_its_chain_says(server: PageServer) -> None:
    found = json.loads(get(server, "/log?run=run")[2])
    assert [event["event"] for event in found["events"]] == ["start"]
    assert found["standing"].startswith("The chain is whole")


def test_a_port_that_is_taken_is_refused_in_a_line(server: PageServer, run: Path) -> None:
    with pytest.raises(ValueError, match=f"port={server.server_port} cannot be served .*; give another, or 0"):
        PageServer(Watched(run), server.server_port, 0.0)


def test_text_that_is_no_text_travels_as_json(tmp_path: Path) -> None:
    """Names of files need not be UTF-8."""
    name = os.fsdecode(b"run-\xff</script>".replace(b"/", b""))
    make_run(tmp_path / name, {"method": "cegm", "seed": 1, "max_steps": 400}, lines_of(400, 50, 10, []))
    for server in served(tmp_path / name):
        listener = Listener(server)
        assert listener.next("overview")[1]["name"] == name
        listener.close()
