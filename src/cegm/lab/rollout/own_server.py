"""A `transformers serve` of our own on this machine: started, watched, started again when it ends, and ended with the router."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import httpx2

from cegm.lab.rollout.upstream import Upstream

PROGRAM = """
import os, sys, threading
def end_with_router():
    os.read(0, 1)
    os._exit(3)
threading.Thread(target=end_with_router, daemon=True).start()
from transformers.cli.transformers import main
sys.argv = ["transformers", "serve", *sys.argv[1:]]
main()
"""
"""Nothing is ever sent to it; its input ends when the router does, however that ends."""

READY_SECONDS = 300.0
LOOK_SECONDS = 0.5
AGAIN_SECONDS = 2.0
"""Before it is started again."""

GRACE_SECONDS = 10.0


class OwnServer:
    """A server for one model.

    Args:
        upstream: Gets its URL and the name of its model.
        model: Folder of the model.
        log: File for what it prints.
    """

    def __init__(self, upstream: Upstream, model: Path, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        upstream.url, upstream.model = f"http://127.0.0.1:{self._port}", model.name
        self._model, self._log = model, log
        self.restarts = 0
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        """Isolated, so that no file beside the model is taken for a module; the name of the model is all that clients see of its path."""
        command = [sys.executable, "-I", "-c", PROGRAM, self._model.name, "--host", "127.0.0.1"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--port", str(self._port)],
                cwd=self._model.parent,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Returns when it answers; ValueError, with the last line that it printed, where it ends before or takes too long."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with httpx2.Client(trust_env=False) as client:
                    if client.get(f"http://127.0.0.1:{self._port}/health", timeout=LOOK_SECONDS).is_success:
                        return
            except httpx2.HTTPError:
                time.sleep(LOOK_SECONDS)
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
        raise ValueError(f"the server for {self._model} did not start: {said}; see {self._log}")

    async def watch(self) -> None:
        """Starts it again whenever it ends."""
        while True:
            await anyio.sleep(LOOK_SECONDS)
            if self._process.poll() is not None:
                await anyio.sleep(AGAIN_SECONDS)
                self.restarts += 1
                self._process = self._start()

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None, "it was started with one"
        self._process.stdin.close()
