"""`cegm rollout serve`: checks who may serve, starts what is missing, and listens."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette

from cegm.durable import sole_writer
from cegm.lab.release import keys
from cegm.lab.release.layout import ReleaseFolder
from cegm.lab.rollout import admission, rollout_state, upstream
from cegm.lab.rollout.around import assembled
from cegm.lab.rollout.clients import OWN
from cegm.lab.rollout.own_server import OwnServer
from cegm.lab.rollout.request_log import OPEN_REQUESTS
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.rollout_state import APPROVED, BACK, RolloutFolder
from cegm.lab.rollout.upstream import Upstream

GRACE_SECONDS = 20
"""For open answers when the router is asked to end."""


def serve(config: RolloutConfig) -> int:
    """Runs the router until it is told to end.

    Raises:
        ValueError: The release may not serve, or an option does not fit; in one line.
    """
    admission.require_given(config, "release", "trainer_key", "approver_key", "champion")
    folder = RolloutFolder(Path(config.output_dir).expanduser())
    api_key = _secret("api_key", config.api_key)
    if config.host not in OWN and not api_key:
        raise ValueError(f"host={config.host} lets others in; give --api_key FILE, or listen on 127.0.0.1")
    rollout_state.read(folder)
    with sole_writer(folder.root), ExitStack() as stack:
        require_admitted = _admission(config, folder)
        listener = stack.enter_context(_listener(config))
        champion, challenger, servers = _upstreams(config, folder, stack)
        if "challenger" in servers:
            require_admitted()  # what was verified is what was loaded
        rollout_state.record(folder, "serve", **_limits(config, champion, challenger))
        around = assembled(config, folder, require_admitted, (champion, challenger), upstream.client(), api_key, stack)
        around.servers = servers
        print(f"{folder.root}: {around.course.state.stage}, {_address(config.host, listener)}/v1", flush=True)
        _listen(around.app(), listener)
    return 0


def _address(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _listen(app: Starlette, listener: socket.socket) -> None:
    options = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever may say who they are could choose their server
        limit_concurrency=OPEN_REQUESTS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    uvicorn.Server(options).run(sockets=[listener])


def _listener(config: RolloutConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=OPEN_REQUESTS)
    except OSError as error:
        raise ValueError(f"cannot listen on {config.host} port {config.port}: {error.strerror}; give --port") from None


def _secret(name: str, path: str) -> str:
    """The first line of a file; empty where none is given."""
    if not path:
        return ""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"{name}={path} is no file; write the key into one that only you can read")
    key = file.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise ValueError(f"{name}={path} has no key of ASCII letters in its first line")
    return key


def _admission(config: RolloutConfig, folder: RolloutFolder) -> Callable[[], None]:
    """What raises ValueError unless the release may serve; it was called once, and what is in traffic but may not be is taken back."""
    root = Path(config.release).expanduser().resolve()
    trainer, approver = keys.public_key(config.trainer_key), keys.public_key(config.approver_key)

    def require_admitted() -> None:
        if state.stage == BACK and "://" not in config.challenger:
            raise ValueError(
                "its server was not started with this router, which began without it; start the router again"
            )
        now, events = rollout_state.read(folder)
        admission.require_admitted(now, events, root, trainer, approver)

    state, words = rollout_state.rebuild(folder)
    if words:
        print(f"cegm: {words}", flush=True)
        rollout_state.record(folder, "rebuilt", words=words)
    try:
        require_admitted()
    except ValueError as error:
        if state.stage == APPROVED:
            raise
        print(f"cegm: the champion alone serves: {error}", flush=True)
        if state.stage != BACK:
            state = rollout_state.record(folder, "back", reason=str(error), who="router")
    return require_admitted


def _upstreams(
    config: RolloutConfig, folder: RolloutFolder, stack: ExitStack
) -> tuple[Upstream, Upstream, dict[str, OwnServer]]:
    """Both servers, of which those that are no URL are started, but for a challenger that has nobody to answer."""
    key = _secret("upstream_key", config.upstream_key)
    places = {
        "champion": config.champion,
        "challenger": config.challenger or str(ReleaseFolder(Path(config.release).expanduser()).model.resolve()),
    }
    found: dict[str, Upstream] = {}
    servers: dict[str, OwnServer] = {}
    is_back = rollout_state.read(folder)[0].stage == BACK
    for variant, place in places.items():
        server = found[variant] = Upstream(variant, "", getattr(config, f"{variant}_model"), key)
        if "://" in place:
            server.url = _url(variant, place)
        elif is_back and variant == "challenger":
            continue
        elif Path(place).is_dir():
            servers[variant] = OwnServer(server, Path(place).resolve(), folder.root / f"{variant}.log")
            stack.callback(servers[variant].stop)
        else:
            raise ValueError(f"{variant}={place} is neither a URL (http://...) nor a model folder")
    for own in servers.values():
        own.wait_until_ready()
    return found["champion"], found["challenger"], servers


def _url(name: str, given: str) -> str:
    """The URL of a server without the path of its interface."""
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"{name}={given} is no URL of a server; give http://HOST:PORT, and its key by --upstream_key")
    return given.rstrip("/").removesuffix("/v1")


def _limits(config: RolloutConfig, champion: Upstream, challenger: Upstream) -> dict[str, Any]:
    """What the chain says of a router: both servers, and what the gates hold them to."""
    limits = ("shadow_share", "stage_requests", "most_errors", "slower", "challenger_seconds", "keep_texts_days")
    return {
        "champion": champion.url,
        "challenger": challenger.url,
        **{name: getattr(config, name) for name in limits},
    }
