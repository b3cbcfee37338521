"""The real client of OpenAI's interface speaks to the router as to any server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytest.importorskip("openai")
pytest.importorskip("uvicorn")
pytest.importorskip("cryptography")

import openai

from cegm.lab.rollout.rollout_config import RolloutConfig
from rollouts import Rig, events, failing, rig, streaming

MESSAGES = [{"role": "user", "content": "where is it?"}]


def spoken(made: Rig, talk: Callable[[Any], Awaitable[Any]], key: str = "mine") -> Any:
    async def go() -> Any:
        async with (
            made.router() as (around, _),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(around.app())) as http,
            openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key=key, http_client=http, max_retries=0) as client,
        ):
            return await talk(client)

    return asyncio.run(go())


async def chat(client: Any) -> str:
    answer = await client.chat.completions.create(model="cegm", messages=MESSAGES, user="anna")
    return str(answer.choices[0].message.content)


async def stream(client: Any) -> list[str]:
    parts = await client.chat.completions.create(model="cegm", messages=MESSAGES, stream=True)
    return [chunk.choices[0].delta.content async for chunk in parts if chunk.choices[0].delta.content]


@pytest.mark.parametrize("stage", ["shadow", "all"])
def test_chat_and_streams_in_the_shadow_and_after(tmp_path: Path, stage: str) -> None:
    made, day = rig(tmp_path).stage(stage), "today" if stage == "shadow" else "tomorrow"
    assert spoken(made, chat) == f"the answer of {day}"
    assert spoken(made, stream) == ["the", "answer", "of", day]


def test_models_are_listed(tmp_path: Path) -> None:
    async def models(client: Any) -> list[str]:
        return [model.id async for model in client.models.list()]

    assert spoken(rig(tmp_path), models) == ["cegm"]


def test_a_stream_that_breaks_raises_at_the_client(tmp_path: Path) -> None:
    broken = streaming(*events(["half"], ends=False), httpx2.ReadError("gone"))
    made = rig(tmp_path, champion=broken, config=RolloutConfig(shadow_share=0.0))
    with pytest.raises(openai.APIError, match="the stream broke"):
        spoken(made, stream)


def test_errors_are_those_that_the_client_knows(tmp_path: Path) -> None:
    with pytest.raises(openai.BadRequestError, match="status 400"):
        spoken(rig(tmp_path / "a", champion=failing(400)), chat)
    with pytest.raises(openai.RateLimitError, match="status 429"):
        spoken(rig(tmp_path / "b", champion=failing(429)), chat)
    with pytest.raises(openai.InternalServerError, match="the server did not answer"):
        spoken(rig(tmp_path / "c", champion=failing(500)), chat)
    made = rig(tmp_path / "d", api_key="right")
    with pytest.raises(openai.AuthenticationError, match="the bearer key is missing"):
        spoken(made, chat, key="wrong")
    assert spoken(made, chat, key="right") == "the answer of today"
