"""The router: every request goes to champion or challenger by its user; where the challenger fails, the champion answers."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import anyio
import httpx2
from starlette.background import BackgroundTask
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from cegm.lab.rollout.answer_reader import disagreement
from cegm.lab.rollout.clients import Door, RefusedError, Users, position
from cegm.lab.rollout.course import Course
from cegm.lab.rollout.ledger import Asked, Ledger, Outcome
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.rollout_state import SHADOW
from cegm.lab.rollout.tallies import LEFT
from cegm.lab.rollout.upstream import Upstream, UpstreamAnswer, UpstreamError, ask

NUMBER_HEADER = "x-request-number"

CLIENTS_OWN = (400, 404, 413, 422)
"""Refusals of the champion that are the client's doing."""

RETRY_SECONDS = 0.25
"""Before the champion is asked once more."""

MOST_SHADOWS = 16
"""Requests in the shadow at a time; where the challenger is slower than the traffic, the others are left out, and counted."""


class Router:
    """Answers clients.

    Args:
        config: Caps and limits.
        course: Where the roll-out stands.
        champion: Server of today.
        challenger: Server of the release.
        client: What speaks to both.
        door: What lets requests in.
        users: What names users.
        ledger: What writes every answer down.
        number: Of the first request.
    """

    def __init__(
        self,
        config: RolloutConfig,
        course: Course,
        champion: Upstream,
        challenger: Upstream,
        client: httpx2.AsyncClient,
        door: Door,
        users: Users,
        ledger: Ledger,
        number: int,
    ) -> None:
        self._config, self._course, self._client = config, course, client
        self._champion, self._challenger = champion, challenger
        self._door, self._users, self._ledger = door, users, ledger
        self._number = number
        self.shadows: set[asyncio.Task[None]] = set()
        self.counters = Counter(refused_requests=0, broken_streams=0, shadows_skipped=0, fallbacks=0)

    async def answer(self, request: HttpRequest) -> Response:
        """The response to a request for an answer."""
        try:
            self._door.require_known(request)
            body = await self._door.body(request)
        except RefusedError as error:
            self.counters["refused_requests"] += 1
            return failed(error.status, error.words)
        state = self._course.state
        asked = Asked(self._number, self._users.name(request, body), state.stage, request.url.path, body)
        self._number += 1
        if position(asked.user) < state.share:
            return await self._by_challenger(asked)
        if state.stage == SHADOW and random.random() < self._config.shadow_share:
            self._begin_shadow(asked)
        return await self._by_champion(asked)

    async def close(self) -> None:
        """Ends what still runs in the shadow."""
        for task in self.shadows:
            task.cancel()
        await asyncio.gather(*self.shadows, return_exceptions=True)

    async def _by_challenger(self, asked: Asked) -> Response:
        try:
            answer = await self._ask(asked, self._challenger, self._config.challenger_seconds)
        except UpstreamError as failure:
            seconds = time.perf_counter() - asked.begun
            response = await self._by_champion(asked)
            if response.status_code < 400 or failure.status not in CLIENTS_OWN:
                self.counters["fallbacks"] += 1
                self._ledger.write(asked, "challenger", Outcome(failure.status, error=failure.words), seconds=seconds)
            return response
        return await self._pass_on(asked, "challenger", answer)

    async def _by_champion(self, asked: Asked) -> Response:
        try:
            try:
                answer = await self._ask(asked, self._champion, self._config.most_seconds)
            except UpstreamError as failure:
                if failure.status not in (502, 503):
                    raise
                await anyio.sleep(RETRY_SECONDS)  # it may be starting again, or has let go of a connection
                answer = await self._ask(asked, self._champion, self._config.most_seconds)
        except UpstreamError as failure:
            is_clients = failure.status in CLIENTS_OWN
            self._ledger.write(asked, "champion", Outcome(failure.status, error="" if is_clients else failure.words))
            headers = {NUMBER_HEADER: str(asked.number)}
            if is_clients or failure.status == 429:
                return Response(failure.content, failure.status, headers, "application/json")
            return failed(failure.status if failure.status in (503, 504) else 502, "the server did not answer", headers)
        return await self._pass_on(asked, "champion", answer)

    async def _ask(self, asked: Asked, upstream: Upstream, seconds: float) -> UpstreamAnswer:
        return await ask(self._client, upstream, asked.path, asked.body, seconds)

    async def _pass_on(self, asked: Asked, variant: str, answer: UpstreamAnswer) -> Response:
        """The answer of a server as a response; its line is written before its last byte leaves."""
        headers = {NUMBER_HEADER: str(asked.number), "cache-control": "no-store"}
        first = time.perf_counter() - asked.begun
        if asked.body.get("stream") is True:
            parts = self._stream(asked, variant, answer, first)
            closed = BackgroundTask(answer.response.aclose)  # where the client leaves before the first part
            return StreamingResponse(parts, answer.status, headers, "text/event-stream", closed)
        await answer.response.aclose()
        self._ledger.write(asked, variant, Outcome(answer.status, answer.reader, first_byte_seconds=first))
        return Response(answer.content, answer.status, headers, "application/json")

    async def _stream(self, asked: Asked, variant: str, answer: UpstreamAnswer, first: float) -> AsyncIterator[bytes]:
        reader, is_written, part = answer.reader, False, answer.content
        try:
            while part:
                if reader.is_whole and not is_written:
                    is_written = True
                    self._ledger.write(asked, variant, Outcome(answer.status, reader, first_byte_seconds=first))
                yield part
                part = await self._next_part(asked, answer)
            error = "" if reader.is_whole else "the stream ended early"
        except (httpx2.HTTPError, TimeoutError) as failure:
            error = f"the stream broke ({type(failure).__name__})"
        except BaseException:  # the client has left
            if not is_written:
                self._ledger.write(asked, variant, Outcome(LEFT, reader, first_byte_seconds=first))
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await answer.response.aclose()
        if not is_written:
            self._ledger.write(asked, variant, Outcome(answer.status, reader, error, first))
        if not is_written and error:
            self.counters["broken_streams"] += 1
            yield f"data: {json.dumps(_error(error))}\n\n".encode()

    async def _next_part(self, asked: Asked, answer: UpstreamAnswer) -> bytes:
        """The next bytes of a stream, which the reader has read; none at its end."""
        with anyio.fail_after(self._config.most_seconds - (time.perf_counter() - asked.begun)):
            part = await anext(answer.rest, b"")
        answer.reader.feed(part)
        return part

    def _begin_shadow(self, asked: Asked) -> None:
        if len(self.shadows) >= MOST_SHADOWS:
            self.counters["shadows_skipped"] += 1
            return
        asked.champions = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._shadow(asked, asked.champions))
        self.shadows.add(task)
        task.add_done_callback(self.shadows.discard)

    async def _shadow(self, asked: Asked, champions: asyncio.Future[str | None]) -> None:
        """Asks the challenger what the champion is asked; nobody but the log sees its answer."""
        outcome = await self._unseen(asked)
        seconds = time.perf_counter() - asked.begun
        champion = None
        with suppress(TimeoutError):
            with anyio.fail_after(self._config.most_seconds):
                champion = await champions
        if champion is None and outcome.status in CLIENTS_OWN:
            outcome = Outcome(outcome.status)
        disagrees = None
        if champion is not None and outcome.reader is not None and not outcome.error:
            disagrees = disagreement(outcome.reader.text, champion)
        self._ledger.write(asked, "challenger", outcome, seconds=seconds, shadow=True, disagrees=disagrees)

    async def _unseen(self, asked: Asked) -> Outcome:
        """How the challenger answers in the shadow."""
        try:
            answer = await self._ask(asked, self._challenger, self._config.challenger_seconds)
        except UpstreamError as failure:
            return Outcome(failure.status, error=failure.words)
        first, error = time.perf_counter() - asked.begun, ""
        try:
            while asked.body.get("stream") is True and await self._next_part(asked, answer):
                pass
            error = "" if answer.reader.is_whole else "the stream ended early"
        except (httpx2.HTTPError, TimeoutError) as failure:
            error = f"the stream broke ({type(failure).__name__})"
        finally:
            with anyio.CancelScope(shield=True):
                await answer.response.aclose()
        return Outcome(answer.status, answer.reader, error, first)


def failed(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as clients of OpenAI's interface read it."""
    return JSONResponse(_error(words), status, headers)


def _error(words: str) -> dict[str, Any]:
    return {"error": {"message": words, "type": "cegm_rollout", "param": None, "code": None}}
