"""The page's server: 127.0.0.1 alone, one thread a request, nothing that is not on the list, and no foreign Host or Origin."""

from __future__ import annotations

import json
import socketserver
import sys
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cegm.lab.streams import printable
from cegm.lab.watch.event_stream import Overview, stream
from cegm.lab.watch.layer_lines import QUANTITIES
from cegm.lab.watch.watched import Watched
from cegm.lab.watch.watched_run import WatchedRun

HOME = "127.0.0.1"
HOSTS = (HOME, "localhost")
"""Names under which the page may be asked for; a page of elsewhere whose name was made to lead here comes under its own."""

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
FILES = {
    "/": ("cegm.lab.watch", "page/watch.html"),
    "/style.css": ("cegm", "templates/style.css"),
    **{
        f"/{name}": ("cegm.lab.watch", f"page/{name}")
        for name in (
            "watch.css",
            "watch.js",
            "columns.js",
            "curves.js",
            "maps.js",
            "elements.js",
            "uPlot.iife.min.js",
            "uPlot.min.css",
        )
    },
}
"""What can be had, by path: package and file in it."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class PageServer(ThreadingHTTPServer):
    """Serves the page of what is watched.

    Args:
        watched: The runs.
        port: Port on 127.0.0.1; 0 takes a free one.
        price: Of an hour; 0: unknown.

    Raises:
        ValueError: The port is not to be had.
    """

    daemon_threads = True

    def __init__(self, watched: Watched, port: int, price: float) -> None:
        self.watched, self.overview = watched, Overview(watched, price)
        self.files = {path: _content(*place) for path, place in FILES.items()}
        try:
            super().__init__((HOME, port), _Handler)
        except OSError as error:
            raise ValueError(
                f"port={port} cannot be served ({error.strerror}); give another, or 0 for a free one"
            ) from None

    def server_bind(self) -> None:
        """Without the base's question for the name of this machine, which a resolver might take seconds to answer."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOME, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of readers who have left, or do not take what is sent."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOME}:{self.server_port}/"


def serve(watched: Watched, port: int, price: float) -> None:
    """Serves the page until the user stops it, and says where it is."""
    with PageServer(watched, port, price) as server:
        print(f"watching {printable(watched.name)} at {server.url} (Ctrl-C ends)", flush=True)
        print(f"from another machine: ssh -L {server.server_port}:{HOME}:{server.server_port} HOST", flush=True)
        server.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = 60  # of one who does not take what is sent

    def do_GET(self) -> None:
        if not self._is_from_here():
            self._send(HTTPStatus.FORBIDDEN, b"", "text/plain")
            return
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query, errors="replace").items()}
        run = self.server.watched.runs.get(asked.get("run", ""))
        if url.path in self.server.files:
            content, kind = self.server.files[url.path]
            self._send(HTTPStatus.OK, content, kind)
        elif url.path == "/events":
            marks = self.headers.get("Last-Event-ID") or asked.get("after", "")
            self._stream(stream(self.server.watched, self.server.overview, asked.get("run", ""), marks))
        elif url.path == "/layers" and run is not None:
            self._send_json(_layers(run, asked))
        elif url.path == "/log":
            self._send_json(_log(self.server.watched, run))
        else:
            self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nobody reads it."""

    def _is_from_here(self) -> bool:
        """Whether the request names this server, on whatever port a tunnel has for it, and comes from its own page or from none."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        return host.partition(":")[0] in HOSTS and origin in (None, f"http://{host}")

    def _stream(self, events: Iterator[bytes]) -> None:
        self._head(HTTPStatus.OK, "text/event-stream")
        for event in events:
            self.wfile.write(event)

    def _send_json(self, value: Any) -> None:
        self._send(HTTPStatus.OK, json.dumps(value).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self._head(status, kind, {"Content-Length": str(len(content))})
        self.wfile.write(content)

    def _head(self, status: HTTPStatus, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": f"{kind}; charset=utf-8", **HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def version_string(self) -> str:
        """Nobody needs to know the version of Python."""
        return "cegm"


def _layers(run: WatchedRun, asked: dict[str, str]) -> dict[str, Any]:
    """The map of a quantity, every quantity of a layer, or which quantities there are."""
    if asked.get("quantity") in QUANTITIES:
        return run.layers.table(asked["quantity"])
    if "layer" in asked:
        return run.layers.layer(asked["layer"])
    return {"quantities": {name: QUANTITIES[name] for name in run.layers.quantities()}}


def _log(watched: Watched, run: WatchedRun | None) -> dict[str, Any]:
    """The audit log of a run, or of a pilot."""
    log = watched.events if run is None else run.events
    log.look()
    return {"standing": log.standing, "events": log.events}


def _content(package: str, name: str) -> tuple[bytes, str]:
    return (resources.files(package) / name).read_bytes(), TYPES[name.rsplit(".", 1)[-1]]
