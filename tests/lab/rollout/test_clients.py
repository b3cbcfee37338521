"""Who gets in, with what, and how hostile headers and bodies end: in one line, with a status, and before any server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("cryptography")

import uvicorn

from cegm.lab.rollout.clients import Users, position
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.tallies import share
from rollouts import Rig, prompt, rig


def post(made: Rig, content: bytes, **headers: str) -> httpx2.Response:
    async def go() -> httpx2.Response:
        async with made.router() as (_, client):
            given = {"content-type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
            return await client.post("/v1/completions", content=content, headers=given)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"a": 1, "a": 2}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 200_000, 400),
        (b'{"a":' * 100_000, 400),
        (b'{"prompt": NaN}', 400),
        (b'{"temperature": 1e999}', 400),
        (b'{"prompt": "' + b"x" * (1 << 20) + b'"}', 413),
    ],
)
def test_a_body_that_is_none_reaches_no_server(tmp_path: Path, content: bytes, status: int) -> None:
    made = rig(tmp_path)
    response = post(made, content)
    assert response.status_code == status
    assert "\n" not in response.json()["error"]["message"]
    assert (made.asked, made.log()) == ([], [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "[::1"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "multipart/form-data; boundary=application/json"}, 415),
        ({"host": "localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"origin": "http://127.0.0.1:3000"}, 200),
        ({"content_type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_pages_of_other_sites_get_nothing(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    made = rig(tmp_path, config=RolloutConfig(shadow_share=0.0))
    assert post(made, b'{"prompt": "x"}', **headers).status_code == status
    assert len(made.asked) == (status == 200)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer right", 200),
        ("bearer  right ", 200),
        ("Bearer wrong", 401),
        ("right", 401),
        ("Basic right", 401),
        ("", 401),
    ],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models", "/metrics"])
def test_with_a_key_nobody_gets_in_without_it(tmp_path: Path, header: str, status: int, path: str) -> None:
    made = rig(tmp_path, api_key="right", config=RolloutConfig(shadow_share=0.0))

    async def go() -> httpx2.Response:
        async with made.router() as (_, client):
            headers = {"authorization": header} if header else {}
            if path == "/v1/completions":
                return await client.post(path, json={"prompt": "x"}, headers=headers)
            return await client.get(path, headers=headers)

    response = asyncio.run(go())
    assert response.status_code == status
    assert "right" not in response.text
    assert not any("authorization" in request.headers for request in made.asked)


@pytest.mark.parametrize(
    "user", ["x" * 100_000, "\ud800", "a\r\nb: c", "../../etc/passwd", 3, None, ["a"], {"a": 1}, ""]
)
def test_a_hostile_name_is_one_of_16_digits(tmp_path: Path, user: Any) -> None:
    made = rig(tmp_path, config=RolloutConfig(shadow_share=0.0))
    post(made, json.dumps({"prompt": "x", "user": user}).encode())
    (record,) = made.log()
    assert len(record.user) == 16
    assert set(record.user) <= set("0123456789abcdef")


def test_a_shared_key_names_nobody_and_another_salt_names_everybody_anew(tmp_path: Path) -> None:
    def name(users: Users, key: str, address: str) -> str:
        from starlette.requests import Request

        headers = [(b"authorization", f"Bearer {key}".encode())]
        return users.name(Request({"type": "http", "headers": headers, "client": (address, 1)}), {})

    users = Users(tmp_path / "salt", "shared")
    assert name(users, "shared", "1.1.1.1") != name(users, "shared", "2.2.2.2")
    assert name(users, "own", "1.1.1.1") == name(users, "own", "2.2.2.2")
    assert name(users, "own", "1.1.1.1") == name(Users(tmp_path / "salt", "shared"), "own", "1.1.1.1")
    assert name(users, "own", "1.1.1.1") != name(Users(tmp_path / "other", "shared"), "own", "1.1.1.1")
    assert (tmp_path / "salt").stat().st_mode & 0o077 == 0


def test_users_are_spread_evenly_and_each_salt_spreads_them_anew(tmp_path: Path) -> None:
    from starlette.requests import Request

    request = Request({"type": "http", "headers": [], "client": None})
    places = []
    for salt in ("one", "other"):
        users = Users(tmp_path / salt, "")
        found = [position(users.name(request, {"user": f"user-{number}"})) for number in range(10_000)]
        for wanted in (0.05, 0.25, 0.5):
            low, high = share(sum(place < wanted for place in found), len(found), 3.89)[1:]
            assert low <= wanted <= high
        places.append(found)
    both = sum(one < 0.25 and other < 0.25 for one, other in zip(*places, strict=True))
    assert share(both, 10_000, 3.89).low <= 0.25**2 <= share(both, 10_000, 3.89).high


def test_what_one_kind_of_name_says_is_nobody_of_another_kind(tmp_path: Path) -> None:
    from starlette.requests import Request

    users = Users(tmp_path / "salt", "")
    by_header = Request({"type": "http", "headers": [(b"x-user-id", b"anna")], "client": None})
    assert users.name(by_header, {}) != users.name(by_header, {"user": "anna"})


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[Rig, int]]:
    """A router at a socket, as `serve` listens."""
    made = rig(tmp_path, config=RolloutConfig(shadow_share=0.0, most_seconds=1.0))
    ready, port = threading.Event(), []
    servers: list[uvicorn.Server] = []

    def run() -> None:
        async def go() -> None:
            async with made.router() as (around, _):
                server = uvicorn.Server(
                    uvicorn.Config(around.app(), http="h11", ws="none", log_level="error", proxy_headers=False)
                )
                servers.append(server)
                listener = socket.create_server(("127.0.0.1", 0))
                port.append(listener.getsockname()[1])
                ready.set()
                await server.serve(sockets=[listener])

        asyncio.run(go())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30)
    yield made, port[0]
    servers[0].should_exit = True
    thread.join(30)


def spoken(port: int, content: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as wire:
        with suppress(OSError):  # the server may hang up before all is said
            wire.sendall(content)
            wire.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionResetError):
            while part := wire.recv(65536):
                answer += part
        return answer


BODY = json.dumps(prompt()).encode()


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(BODY),
        b"Content-Length: %d\r\nContent-Length: 0\r\n" % len(BODY),
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: %d\r\nX: a\rb\r\n" % len(BODY),
        b"Content-Length : %d\r\n" % len(BODY),
        b"X: " + b"y" * 200_000 + b"\r\n",
    ],
)
def test_a_request_within_a_request_reaches_no_server(listening: tuple[Rig, int], headers: bytes) -> None:
    made, port = listening
    inner = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    spoken(port, head + headers + b"\r\n" + BODY + inner)
    assert made.asked == []


def test_headers_reach_a_server_as_the_router_writes_them(listening: tuple[Rig, int]) -> None:
    made, port = listening
    head = b"POST /v1/chat/completions?x=/../../admin HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    answer = spoken(port, head + b"Connection: close\r\nX-Evil: 1\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"server:" not in answer.lower().replace(b"server: uvicorn", b"")
    (request,) = made.asked
    assert str(request.url) == "http://champion/v1/chat/completions"
    assert "x-evil" not in request.headers


def test_a_body_that_never_arrives_is_given_up(listening: tuple[Rig, int]) -> None:
    made, port = listening
    with socket.create_connection(("127.0.0.1", port), timeout=20) as wire:
        begun = time.monotonic()
        wire.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        assert b" 408 " in wire.recv(65536)
        assert time.monotonic() - begun < 15
    assert made.asked == []
