"""One of the two servers behind the router, and one attempt to be answered by it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2

from cegm.lab.rollout.answer_reader import AnswerReader

MOST_ANSWER_BYTES = 16 << 20
"""Of an answer that comes whole."""

CONNECT_SECONDS = 5.0


@dataclass
class Upstream:
    """A server with OpenAI's interface.

    Attributes:
        variant: `champion` or `challenger`.
        url: Where it listens, without the path.
        model: Name under which it knows its model; empty: as clients say.
        key: What it wants as bearer, if anything.
    """

    variant: str
    url: str
    model: str = ""
    key: str = ""

    def content(self, body: Mapping[str, Any]) -> bytes:
        """A request as this server gets it: written anew, so that it cannot read something else in it than the router did."""
        return json.dumps({**body, "model": self.model} if self.model else body, allow_nan=False).encode()

    def headers(self) -> dict[str, str]:
        """Headers of a request; none of them is the client's."""
        key = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {"content-type": "application/json", "accept-encoding": "identity", **key}


class UpstreamError(Exception):
    """A server gave no answer.

    Attributes:
        status: What it answered instead; 502 for nothing, 504 for too late.
        words: What happened; nothing of prompt or answer is in it.
        content: The body of a refusal of the request itself (400 to 499).
    """

    def __init__(self, status: int, words: str, content: bytes = b"") -> None:
        self.status, self.words, self.content = status, words, content
        super().__init__(words)


@dataclass
class UpstreamAnswer:
    """An answer that has begun.

    Attributes:
        status: 200 to 299.
        content: All of it, or the first bytes of a stream.
        rest: The other bytes of a stream.
        response: To be closed by whoever has read it.
        reader: Has read `content`.
    """

    status: int
    content: bytes
    rest: AsyncIterator[bytes]
    response: httpx2.Response
    reader: AnswerReader


def client() -> httpx2.AsyncClient:
    """What speaks to both servers: straight, without the proxies of the environment, and following nobody elsewhere."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
    timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
    return httpx2.AsyncClient(trust_env=False, follow_redirects=False, limits=limits, timeout=timeout)


async def ask(
    client: httpx2.AsyncClient, upstream: Upstream, path: str, body: Mapping[str, Any], seconds: float
) -> UpstreamAnswer:
    """Sends a request and waits for the whole answer, or for the first event of a stream.

    Raises:
        UpstreamError: It could not be reached, refused, took longer, or ended before it had said anything.
    """
    is_stream = body.get("stream") is True
    response = None
    try:
        with anyio.fail_after(seconds):
            content = upstream.content(body)
            request = client.build_request("POST", upstream.url + path, content=content, headers=upstream.headers())
            response = await client.send(request, stream=True)
            rest = response.aiter_bytes()
            if response.status_code >= 300:
                refusal = await _whole(rest) if 400 <= response.status_code < 500 else b""
                raise UpstreamError(response.status_code, f"status {response.status_code}", refusal)
            reader = AnswerReader(is_stream)
            began = await _first_event(rest, reader) if is_stream else await _whole(rest)
            if not is_stream:
                reader.feed(began)
            if reader.failed:
                raise UpstreamError(502, "an error in place of an answer")
            return UpstreamAnswer(response.status_code, began, rest, response, reader)
    except TimeoutError:
        failure = UpstreamError(504, f"no answer within {seconds:g} s")
    except httpx2.HTTPError as error:
        failure = UpstreamError(502, type(error).__name__)
    except UpstreamError as error:
        failure = error
    except BaseException:
        if response is not None:
            await response.aclose()
        raise
    if response is not None:
        await response.aclose()
    raise failure


async def _whole(parts: AsyncIterator[bytes]) -> bytes:
    content = bytearray()
    async for part in parts:
        content += part
        if len(content) > MOST_ANSWER_BYTES:
            raise UpstreamError(502, f"an answer of more than {MOST_ANSWER_BYTES} bytes")
    return bytes(content)


async def _first_event(parts: AsyncIterator[bytes], reader: AnswerReader) -> bytes:
    """The bytes until one event was read; servers send headers long before they fail."""
    content = b""
    async for part in parts:
        content += part
        reader.feed(part)
        if b"data:" in content and b"\n" in content[content.index(b"data:") :]:
            return content
        if len(content) > MOST_ANSWER_BYTES:
            break
    raise UpstreamError(502, "a stream without a single event")
