"""Who answers whom, what happens when a server fails, and what the log says of it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("cryptography")

import rollouts
from cegm.lab.rollout import rollout_state
from cegm.lab.rollout.clients import position
from cegm.lab.rollout.rollout_config import RolloutConfig
from rollouts import answering, dead, events, failing, prompt, rig, streaming


def content(response: httpx2.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def written(response: httpx2.Response) -> str:
    """What a stream said."""
    lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: {")]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)


def test_in_the_shadow_the_champion_answers_and_the_log_has_both(tmp_path: Path) -> None:
    made = rig(tmp_path)
    (response,) = made.ask(prompt())
    assert content(response) == "the answer of today"
    champion, challenger = sorted(made.log(), key=lambda each: each.shadow)
    assert (champion.variant, champion.shadow, champion.disagrees) == ("champion", False, None)
    assert (challenger.variant, challenger.shadow) == ("challenger", True)
    assert champion.number == challenger.number == int(response.headers["x-request-number"])
    assert challenger.disagrees == pytest.approx(1 / 4)
    assert champion.characters == len("the answer of today")


def test_a_stream_in_the_shadow_is_compared_too(tmp_path: Path) -> None:
    made = rig(tmp_path)
    (response,) = made.ask(prompt(stream=True))
    assert written(response) == "theansweroftoday"
    assert response.text.endswith("data: [DONE]\n\n")
    champion, challenger = sorted(made.log(), key=lambda each: each.shadow)
    assert challenger.disagrees == 1.0
    assert champion.first_byte_seconds is not None
    assert champion.first_byte_seconds <= champion.seconds


@pytest.mark.parametrize("challenger", [dead, failing(500), failing(400), streaming(b"not JSON")])
def test_a_challenger_that_fails_in_the_shadow_is_seen_by_nobody_but_the_log(
    tmp_path: Path, challenger: rollouts.Server
) -> None:
    made = rig(tmp_path, challenger=challenger)
    (response,) = made.ask(prompt())
    assert content(response) == "the answer of today"
    shadow = next(each for each in made.log() if each.shadow)
    assert shadow.error
    assert shadow.disagrees is None


def test_no_share_of_the_shadow_asks_no_challenger(tmp_path: Path) -> None:
    made = rig(tmp_path, config=RolloutConfig(shadow_share=0.0))
    made.ask(*[prompt()] * 5)
    assert {request.url.host for request in made.asked} == {"champion"}


def test_a_user_always_comes_to_the_same_server_and_a_larger_share_keeps_them(tmp_path: Path) -> None:
    made = rig(tmp_path)
    users = [f"user {number}" for number in range(40)]
    answered = {}
    for stage in ("canary 5", "canary 25", "canary 50", "all"):
        responses = made.stage(stage).ask(*[prompt(user) for user in users * 2])
        texts = [content(response) for response in responses]
        assert texts[:40] == texts[40:]
        answered[stage] = {user for user, text in zip(users, texts, strict=False) if text == "the answer of tomorrow"}
    assert answered["canary 5"] <= answered["canary 25"] <= answered["canary 50"] <= answered["all"] == set(users)
    for record in made.log():
        share = rollout_state.STAGES[record.stage]
        assert (record.variant == "challenger") == (position(record.user) < share)


@pytest.mark.parametrize("options", [{"headers": {"x-user-id": "anna"}}, {"headers": {"authorization": "Bearer anna"}}])
def test_a_user_is_known_by_header_or_key_where_the_body_names_none(tmp_path: Path, options: dict[str, Any]) -> None:
    made, body = rig(tmp_path, config=RolloutConfig(shadow_share=0.0)), prompt()
    del body["user"]
    made.ask(body, body, **options)
    made.ask(body)
    first, again, other = (record.user for record in made.log())
    assert first == again != other
    assert len(first) == 16
    assert "anna" not in made.folder.requests.read_text()


@pytest.mark.parametrize("status", [500, 503, 429, 400, 404])
@pytest.mark.parametrize("stream", [False, True])
def test_the_champion_answers_where_the_challenger_fails(tmp_path: Path, status: int, stream: bool) -> None:
    made = rig(tmp_path, challenger=failing(status)).stage("all")
    (response,) = made.ask(prompt(stream=stream))
    assert response.status_code == 200
    assert (written(response) if stream else content(response)).startswith("the")
    assert sorted(each.variant for each in made.log()) == ["challenger", "champion"]
    failed = next(each for each in made.log() if each.variant == "challenger")
    assert (failed.status, failed.error) == (status, f"status {status}")


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b": hello\n\n"],
        [httpx2.ReadError("gone")],
        [b'data: {"error": {"message": "out of memory"}}\n\n', b"data: [DONE]\n\n"],
    ],
)
def test_a_stream_that_fails_before_its_first_event_is_the_champions(tmp_path: Path, parts: list[Any]) -> None:
    made = rig(tmp_path, challenger=streaming(*parts)).stage("all")
    (response,) = made.ask(prompt(stream=True))
    assert written(response) == "theansweroftoday"
    assert "error" not in response.text


@pytest.mark.parametrize("end", [[httpx2.ReadError("gone")], []])
def test_a_stream_that_breaks_after_its_first_event_says_so_and_is_counted(tmp_path: Path, end: list[Any]) -> None:
    made = rig(tmp_path, challenger=streaming(*events(["half", " an"], ends=False), *end)).stage("all")

    async def go() -> tuple[str, str]:
        async with made.router() as (_, client):
            response = await client.post("/v1/chat/completions", json=prompt(stream=True))
            return response.text, (await client.get("/metrics")).text

    text, metrics = asyncio.run(go())
    assert '"content": "half"' in text
    assert json.loads(text.strip().split("\n")[-1].removeprefix("data: "))["error"]["message"].startswith("the stream")
    assert "cegm_rollout_broken_streams_total 1\n" in metrics
    (record,) = made.log()
    assert record.error.startswith("the stream")
    assert record.characters == len("half an")


def test_what_both_servers_refuse_is_the_clients_mistake_and_nobodys_error(tmp_path: Path) -> None:
    made = rig(tmp_path, champion=failing(400), challenger=failing(400)).stage("all")
    (response,) = made.ask(prompt())
    assert response.status_code == 400
    assert response.json() == {"error": {"message": "status 400"}}
    (record,) = made.log()
    assert (record.variant, record.error) == ("champion", "")


@pytest.mark.parametrize(
    ("champion", "status"), [(dead, 502), (failing(503), 503), (failing(401), 502), (failing(302), 502)]
)
def test_a_champion_that_fails_is_said_to_the_client_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, champion: rollouts.Server, status: int
) -> None:
    monkeypatch.setattr("cegm.lab.rollout.router.RETRY_SECONDS", 0.0)
    made = rig(tmp_path, champion=champion)
    (response,) = made.ask(prompt())
    assert response.status_code == status
    assert response.json()["error"]["message"] == "the server did not answer"
    record = next(each for each in made.log() if each.variant == "champion")
    assert record.error


def test_a_champion_that_starts_again_is_asked_once_more(tmp_path: Path) -> None:
    calls = []

    async def starting(request: httpx2.Request) -> httpx2.Response:
        calls.append(request)
        return await (dead if len(calls) == 1 else answering("back"))(request)

    made = rig(tmp_path, champion=starting, config=RolloutConfig(shadow_share=0.0))
    assert content(made.ask(prompt())[0]) == "back"
    assert [record.error for record in made.log()] == [""]


def test_a_challenger_that_takes_too_long_is_replaced_in_time(tmp_path: Path) -> None:
    async def slow(request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(60)
        raise AssertionError("it was waited for")

    made = rig(tmp_path, challenger=slow, config=RolloutConfig(challenger_seconds=0.05)).stage("all")
    begun = time.monotonic()
    assert content(made.ask(prompt())[0]) == "the answer of today"
    assert time.monotonic() - begun < 10
    assert {(each.variant, each.status) for each in made.log()} == {("challenger", 504), ("champion", 200)}


def test_a_client_that_leaves_a_stream_is_nobodys_error(tmp_path: Path) -> None:
    async def endless(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=Forever())

    class Forever(httpx2.AsyncByteStream):
        async def __aiter__(self):
            while True:
                await asyncio.sleep(0.001)
                yield events(["x"], ends=False)[0]

    made = rig(tmp_path, champion=endless, config=RolloutConfig(shadow_share=0.0))

    async def go() -> None:
        async with made.router() as (around, _):
            inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            body = json.dumps(prompt(stream=True)).encode()
            await inbox.put({"type": "http.request", "body": body, "more_body": False})
            parts = 0

            async def send(message: dict[str, Any]) -> None:
                nonlocal parts
                parts += message["type"] == "http.response.body"
                if parts == 3:
                    await inbox.put({"type": "http.disconnect"})

            headers = [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")]
            scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "POST", "path": "/v1/chat/completions",
                     "raw_path": b"", "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1)}  # fmt: skip
            await around.app()(scope, inbox.get, send)

    asyncio.run(go())
    (record,) = made.log()
    assert (record.status, record.error) == (499, "")


def test_a_decision_for_the_way_back_holds_from_the_next_request_on(tmp_path: Path) -> None:
    made = rig(tmp_path).stage("all")

    async def go() -> list[str]:
        async with made.router() as (_, client):
            before = await client.post("/v1/chat/completions", json=prompt())
            made.decide("back", reason="a person", who="B")
            after = await client.post("/v1/chat/completions", json=prompt())
            return [content(before), content(after)]

    assert asyncio.run(go()) == ["the answer of tomorrow", "the answer of today"]
    assert [each.stage for each in made.log()] == ["all", "back"]


def test_a_hard_alarm_is_a_way_back_and_a_soft_one_is_not(tmp_path: Path) -> None:
    made = rig(tmp_path).stage("all")
    made.decide("alarm", indicator="length", hard=False)
    assert content(made.ask(prompt())[0]) == "the answer of tomorrow"
    made.decide("alarm", indicator="errors", hard=True)
    assert content(made.ask(prompt())[0]) == "the answer of today"


def test_numbers_go_on_after_a_restart_and_leave_out_what_may_have_begun(tmp_path: Path) -> None:
    made = rig(tmp_path, config=RolloutConfig(shadow_share=0.0))
    made.ask(prompt(), prompt())
    with made.folder.requests.open("ab") as file:
        file.write(b'{"number": 3, "time": "20')  # what a kill leaves
    made.ask(prompt())
    assert [each.number for each in made.log()] == [1, 2, 2 + 1024 + 1]


def test_a_line_is_written_before_the_last_byte_of_a_stream(tmp_path: Path) -> None:
    made = rig(tmp_path, config=RolloutConfig(shadow_share=0.0))

    async def go() -> None:
        async with made.router() as (around, _):
            body = json.dumps(prompt(stream=True)).encode()
            arrived = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive() -> dict[str, Any]:
                if arrived:
                    return arrived.pop()
                await asyncio.sleep(3600)
                raise AssertionError

            async def send(message: dict[str, Any]) -> None:
                if b"[DONE]" in message.get("body", b""):
                    assert len(made.log()) == 1

            headers = [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")]
            scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "POST", "path": "/v1/chat/completions",
                     "raw_path": b"", "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1)}  # fmt: skip
            await around.app()(scope, receive, send)

    asyncio.run(go())
    assert len(made.log()) == 1


def test_texts_are_kept_only_where_somebody_opted_in(tmp_path: Path) -> None:
    made = rig(tmp_path)
    made.ask(prompt(messages=[{"role": "user", "content": "a secret"}]))
    assert not made.folder.texts.exists()
    assert "secret" not in made.folder.requests.read_text() + made.folder.audit.read_text()
    made.config = RolloutConfig(keep_texts_days=1.0)
    made.ask(prompt(messages=[{"role": "user", "content": "a secret"}]))
    kept = [json.loads(line) for line in made.folder.texts.read_text().splitlines()]
    assert {each["variant"] for each in kept} == {"champion", "challenger"}
    assert all("a secret" in each["prompt"] for each in kept)
    assert made.folder.texts.stat().st_mode & 0o077 == 0
    made.config = RolloutConfig()
    made.ask(prompt())
    assert made.folder.texts.read_text() == ""


@pytest.mark.parametrize("margin", ["0.25", "1e305", "nan", "", [], "x"])
def test_what_a_client_says_of_its_search_never_spoils_the_log(tmp_path: Path, margin: Any) -> None:
    made = rig(tmp_path, config=RolloutConfig(shadow_share=0.0))
    made.ask(prompt(metadata={"margin": margin}))
    assert [record.margin for record in made.log()] == [0.25 if margin == "0.25" else None]


def test_models_are_those_that_clients_are_told(tmp_path: Path) -> None:
    async def go() -> Any:
        async with rig(tmp_path).router() as (_, client):
            return (await client.get("/v1/models")).json()

    assert [each["id"] for each in asyncio.run(go())["data"]] == ["cegm"]


def test_nothing_of_the_client_but_the_body_reaches_a_server(tmp_path: Path) -> None:
    made = rig(tmp_path, config=RolloutConfig(shadow_share=0.0))
    made.ask(prompt(), headers={"authorization": "Bearer mine", "x-forwarded-for": "6.6.6.6", "cookie": "a=b"})
    (request,) = made.asked
    assert not {"authorization", "x-forwarded-for", "cookie"} & set(request.headers)
    assert json.loads(request.content) == prompt()
