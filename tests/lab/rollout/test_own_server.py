"""A server of our own: ready or said why not, started again, and gone with the router."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

pytest.importorskip("httpx2")

from cegm.lab.rollout import own_server
from cegm.lab.rollout.own_server import OwnServer
from cegm.lab.rollout.upstream import Upstream

STANDING_IN = """
import http.server, os, sys, threading
def end_with_router():
    os.read(0, 1)
    os._exit(3)
threading.Thread(target=end_with_router, daemon=True).start()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(repr((os.getpid(), os.getcwd(), sys.argv[1:])).encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


def said(upstream: Upstream) -> str:
    return httpx2.get(f"{upstream.url}/health", trust_env=False).text


def gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z"):
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_a_server_is_started_beside_its_model_watched_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_server, "PROGRAM", STANDING_IN)
    monkeypatch.setattr(own_server, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(own_server, "AGAIN_SECONDS", 0.0)
    (tmp_path / "model").mkdir()
    (tmp_path / "http.py").write_text("raise SystemExit('a file beside the model was taken for a module')")
    upstream = Upstream("challenger", "")
    server = OwnServer(upstream, tmp_path / "model", tmp_path / "log")
    try:
        server.wait_until_ready()
        assert upstream.model == "model"
        assert f"'{tmp_path}', ['model', '--host', '127.0.0.1', '--port'" in said(upstream)
        first = server._process.pid

        async def again() -> None:
            watch = asyncio.create_task(server.watch())
            server._process.kill()
            while server._process.pid == first:
                await asyncio.sleep(0.02)
            watch.cancel()

        asyncio.run(again())
        server.wait_until_ready()
        assert server.restarts == 1
    finally:
        server.stop()
    assert gone(server._process.pid)


def test_a_server_that_does_not_start_is_said_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_server, "PROGRAM", "raise SystemExit('no such model\\n\\n')")
    monkeypatch.setattr(own_server, "LOOK_SECONDS", 0.05)
    (tmp_path / "model").mkdir()
    server = OwnServer(Upstream("champion", ""), tmp_path / "model", tmp_path / "log")
    with pytest.raises(ValueError, match=r"did not start: no such model; see .*log"):
        server.wait_until_ready()
    server.stop()


def test_a_server_ends_with_a_router_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    router = f"""
import sys, time
from pathlib import Path
from cegm.lab.rollout import own_server
from cegm.lab.rollout.upstream import Upstream
own_server.PROGRAM = {STANDING_IN!r}
server = own_server.OwnServer(Upstream("champion", ""), Path({str(tmp_path / "model")!r}), Path({str(tmp_path / "log")!r}))
server.wait_until_ready()
print(server._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", router], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    assert gone(pid)
