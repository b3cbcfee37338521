"""A router without sockets between two servers that a test makes up, and a client that speaks to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from cegm.lab.records import Request
from cegm.lab.rollout import request_log, rollout_state
from cegm.lab.rollout.around import Around, assembled
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.rollout_state import RolloutFolder
from cegm.lab.rollout.upstream import Upstream

CHAMPION, CHALLENGER = "http://champion", "http://challenger"

Server = Callable[[httpx2.Request], Coroutine[Any, Any, httpx2.Response]]


def said(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


def events(words: Iterable[str], ends: bool = True) -> list[bytes]:
    """A stream as servers send it."""
    deltas: list[dict[str, Any]] = [{"delta": {"content": word}, "finish_reason": None} for word in words]
    if ends:
        deltas.append({"delta": {}, "finish_reason": "stop"})
    lines = [f"data: {json.dumps({'choices': [each]})}\n\n".encode() for each in deltas]
    return [*lines, b"data: [DONE]\n\n"] if ends else lines


class Parts(httpx2.AsyncByteStream):
    """Bytes that come in parts, of which one may be an accident."""

    def __init__(self, parts: Iterable[bytes | Exception]) -> None:
        self.parts = list(parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            await asyncio.sleep(0)
            if isinstance(part, Exception):
                raise part
            yield part


def answering(text: str) -> Server:
    """A server that always says the same, whole or as a stream."""

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if json.loads(request.content).get("stream"):
            return httpx2.Response(200, stream=Parts(events(text.split(" "))))
        return httpx2.Response(200, json=said(text))

    return answer


def failing(status: int) -> Server:
    async def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, json={"error": {"message": f"status {status}"}})

    return answer


async def dead(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("nobody listens")


def streaming(*parts: bytes | Exception) -> Server:
    async def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=Parts(parts))

    return answer


TODAY, TOMORROW = answering("the answer of today"), answering("the answer of tomorrow")


@dataclass
class Rig:
    """A roll-out whose chain says what a test wants, and its router.

    Attributes:
        folder: Of the roll-out.
        champion: How the one server answers.
        challenger: How the other one does.
        config: Options of the router.
        asked: What the servers were asked.
        may_serve: What raises when the release may not serve any more.
    """

    folder: RolloutFolder
    champion: Server = TODAY
    challenger: Server = TOMORROW
    config: RolloutConfig = field(default_factory=RolloutConfig)
    api_key: str = ""
    asked: list[httpx2.Request] = field(default_factory=list)
    may_serve: Callable[[], None] = lambda: None

    def decide(self, event: str, **facts: Any) -> None:
        rollout_state.record(self.folder, event, **facts)

    def stage(self, name: str) -> Rig:
        self.decide("stage", stage=name)
        return self

    @asynccontextmanager
    async def router(self) -> AsyncIterator[tuple[Around, httpx2.AsyncClient]]:
        async def server(request: httpx2.Request) -> httpx2.Response:
            self.asked.append(request)
            return await (self.champion if request.url.host == "champion" else self.challenger)(request)

        servers = (Upstream("champion", CHAMPION), Upstream("challenger", CHALLENGER))
        with ExitStack() as stack:
            client = httpx2.AsyncClient(transport=httpx2.MockTransport(server))
            around = assembled(self.config, self.folder, self.may_serve, servers, client, self.api_key, stack)
            transport = httpx2.ASGITransport(around.app())
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as outside:
                yield around, outside
                while around.router.shadows:
                    await asyncio.sleep(0)

    def ask(self, *bodies: dict[str, Any], **options: Any) -> list[httpx2.Response]:
        """The responses to requests, one after the other."""

        async def go() -> list[httpx2.Response]:
            async with self.router() as (_, client):
                return [await client.post("/v1/chat/completions", json=body, **options) for body in bodies]

        return asyncio.run(go())

    def log(self) -> list[Request]:
        return list(request_log.read(self.folder.requests))


def prompt(user: str = "anna", **more: Any) -> dict[str, Any]:
    return {"model": "cegm", "messages": [{"role": "user", "content": "hello"}], "user": user, **more}


def rig(root: Path, **given: Any) -> Rig:
    """A roll-out in the shadow, without a release."""
    made = Rig(RolloutFolder(root), **given)
    made.decide("approve", stage="approved", release="r", manifest="m", approver="B", approver_key="k")
    return made.stage("shadow")
