"""What is taken from a client: whether it may ask, what it asks, and as which user it is known."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from cegm.lab.strict import json_value

USER_HEADER = "x-user-id"
OWN = ("127.0.0.1", "localhost", "::1")
"""Names of this machine, under which a router that listens to nobody else may be called."""

DIGITS = 16
"""Hexadecimal, of the hash of a user."""


class RefusedError(Exception):
    """A request that no server sees.

    Attributes:
        status: Of the answer.
        words: Of the answer, with a remedy.
    """

    def __init__(self, status: int, words: str) -> None:
        self.status, self.words = status, words
        super().__init__(words)


class Door:
    """Lets requests in.

    Args:
        api_key: Bearer key that clients have to send; empty: none.
        host: Where the router listens.
        most_bytes: Size of a body.
        seconds: Time in which a body has to arrive.
    """

    def __init__(self, api_key: str, host: str, most_bytes: int, seconds: float) -> None:
        self._key, self._most_bytes, self._seconds = api_key.encode(), most_bytes, seconds
        self._names = OWN if host in OWN else ()

    def require_known(self, request: HttpRequest) -> None:
        """RefusedError unless a request has the key and, on this machine alone, comes from no page of another site."""
        for header in ("host", "origin"):
            given = request.headers.get(header)
            if self._names and given is not None and _host(given) not in self._names:
                raise RefusedError(403, f"{header} {given[:100]!r} is not this machine")
        sent = _bearer(request).encode()
        if self._key and not hmac.compare_digest(sent, self._key):
            raise RefusedError(401, "the bearer key is missing or another one; send the one of api_key")

    async def body(self, request: HttpRequest) -> dict[str, Any]:
        """The JSON object that a request holds; RefusedError where it is none, too large or too slow."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "the content type has to be application/json")
        content = bytearray()
        try:
            with anyio.fail_after(self._seconds):
                async for part in request.stream():
                    content += part
                    if len(content) > self._most_bytes:
                        raise RefusedError(413, f"the request has more than most_body_bytes={self._most_bytes} bytes")
            found = json_value(content.decode(), "the request")
            json.dumps(found, allow_nan=False)  # as servers get it: 1e999 is no number of JSON's
        except TimeoutError:
            raise RefusedError(408, f"the request did not arrive within {self._seconds:g} s") from None
        except ClientDisconnect:
            raise RefusedError(400, "the client left") from None
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, " ".join(str(error).split())) from None
        if not isinstance(found, dict):
            raise RefusedError(400, "the request is no JSON object")
        return found


class Users:
    """Names users by a salted hash, which also says to whom they belong: the same user always comes to the same server.

    Args:
        salt: File of the salt; made where there is none.
        api_key: Key that all clients share, and which therefore names nobody.
    """

    def __init__(self, salt: Path, api_key: str) -> None:
        if not salt.exists():
            with os.fdopen(os.open(salt, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
        self._salt, self._shared = salt.read_bytes()[:64], api_key

    def name(self, request: HttpRequest, body: dict[str, Any]) -> str:
        """16 hex digits, of the field `user`, the header `x-user-id`, the bearer key, or the address, in this order."""
        bearer = _bearer(request)
        bearer = "" if bearer == self._shared else bearer
        address = request.client.host if request.client else ""
        given = (body.get("user"), request.headers.get(USER_HEADER), bearer, address)
        kind, who = next(((kind, each) for kind, each in enumerate(given) if isinstance(each, str) and each), (9, ""))
        named = f"{kind}:{who}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(named, key=self._salt, digest_size=DIGITS // 2).hexdigest()


def position(user: str) -> float:
    """Where a user stands between 0 and 1; those below the share are the challenger's, so that a larger share keeps them."""
    return int(user, 16) / 16**DIGITS


def _bearer(request: HttpRequest) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _host(given: str) -> str:
    """The name in a Host or Origin header, without scheme and port."""
    try:
        return urlsplit(given if "://" in given else f"//{given}").hostname or given
    except ValueError:
        return given
