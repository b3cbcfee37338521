"""The pages of the router, and what runs beside it: gates, the log, texts that grow old, servers of our own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cegm.lab.rollout import kept_texts, request_log
from cegm.lab.rollout.clients import Door, RefusedError, Users
from cegm.lab.rollout.course import LOOK_SECONDS, Course
from cegm.lab.rollout.exposition import MEDIA_TYPE, exposition
from cegm.lab.rollout.ledger import Ledger
from cegm.lab.rollout.own_server import OwnServer
from cegm.lab.rollout.request_log import LineLog
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.rollout_state import RolloutFolder
from cegm.lab.rollout.router import Router, failed
from cegm.lab.rollout.upstream import Upstream

FORGET_SECONDS = 3600.0
"""Between two looks for texts that are too old."""


def assembled(
    config: RolloutConfig,
    folder: RolloutFolder,
    require_admitted: Callable[[], None],
    servers: tuple[Upstream, Upstream],
    client: httpx2.AsyncClient,
    api_key: str,
    stack: ExitStack,
) -> Around:
    """A router for champion and challenger with its log and pages; the stack closes the log."""
    before = list(request_log.read(folder.requests))
    course, number = Course(folder, config, require_admitted, before), request_log.next_number(before)
    log = LineLog(folder.requests)
    stack.callback(log.close)
    kept_texts.forget(folder.texts, config.keep_texts_days)
    texts = LineLog(folder.texts) if config.keep_texts_days else None
    door = Door(api_key, config.host, config.most_body_bytes, config.most_seconds)
    ledger = Ledger(course, log, texts)
    router = Router(config, course, *servers, client, door, Users(folder.salt, api_key), ledger, number)
    return Around(config, folder, course, router, door, log, texts)


class Around:
    """The pages of the router, and what runs beside it."""

    def __init__(
        self,
        config: RolloutConfig,
        folder: RolloutFolder,
        course: Course,
        router: Router,
        door: Door,
        log: LineLog,
        texts: LineLog | None,
    ) -> None:
        self.course, self.servers = course, dict[str, OwnServer]()
        self._config, self._folder, self.router = config, folder, router
        self._door, self._log, self._texts = door, log, texts

    def app(self) -> Starlette:
        """What is listened with."""
        routes = [
            Route("/v1/chat/completions", self.router.answer, methods=["POST"]),
            Route("/v1/completions", self.router.answer, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/metrics", self._metrics),
            Route("/health", self._health),
        ]
        return Starlette(routes=routes, lifespan=self._beside)

    @asynccontextmanager
    async def _beside(self, app: Starlette) -> AsyncIterator[None]:
        watches = [server.watch() for server in self.servers.values()]
        tasks = [asyncio.create_task(each) for each in (self._decide(), self._forget(), *watches)]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.router.close()

    async def _decide(self) -> None:
        """Looks at gates and at what the disk has not taken, and says so once."""
        said = ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.course.decide()
            self._log.flush()
            if self._log.error != said:
                said = self._log.error
                state = f"takes no lines ({said}): {self._log.waiting} wait, {self._log.lost} are lost"
                print(f"cegm: {self._folder.requests} {state if said else 'takes lines again'}", flush=True)

    async def _forget(self) -> None:
        while self._texts is not None:
            await asyncio.sleep(FORGET_SECONDS)
            self._texts.rewrite(lambda path: kept_texts.forget(path, self._config.keep_texts_days))

    async def _models(self, request: HttpRequest) -> Response:
        model = {"id": self._config.model_name, "object": "model", "created": 0, "owned_by": "cegm"}
        return self._guarded(request, lambda: JSONResponse({"object": "list", "data": [model]}))

    async def _metrics(self, request: HttpRequest) -> Response:
        restarts = {f"{variant}_restarts": server.restarts for variant, server in self.servers.items()}
        counters = {**self.router.counters, **restarts, "log_lines_lost": self._log.lost}
        gauges = {"log_lines_waiting": float(self._log.waiting)}

        def page() -> Response:
            text = exposition(self.course.state, self.course.totals, counters, gauges)
            return PlainTextResponse(text, media_type=MEDIA_TYPE)

        return self._guarded(request, page)

    async def _health(self, request: HttpRequest) -> Response:
        return PlainTextResponse("ok")

    def _guarded(self, request: HttpRequest, make: Callable[[], Response]) -> Response:
        try:
            self._door.require_known(request)
        except RefusedError as error:
            return failed(error.status, error.words)
        return make()
