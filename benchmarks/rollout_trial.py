"""A roll-out as clients see it: the real `openai` client, eight at a time, from the shadow to all, while things break.

    python benchmarks/rollout_trial.py --output benchmarks/results/rollout

Two small servers that answer at once stand for the models; the router, the commands and the client are the real ones. What
breaks, in this order: the challenger is killed in the shadow; in the canary of 5 % again, then the champion is slow, then the
router is killed with open streams, its `state.json` is changed, and it is started again; in that of 25 % the disk is full
(the router's files may not grow); in that of 50 % the clock jumps a day forward and two back; with all traffic the challenger
dies for good, and the router goes back by itself. Every request has a user of its own, so that shares are binomial.

`trial.json` holds what was counted, `trial.txt` what the router and `cegm rollout status` printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import openai

from cegm.durable import write_whole
from cegm.lab.release import keys
from cegm.lab.rollout import request_log, rollout_state
from cegm.lab.rollout.rollout_state import STAGES, RolloutFolder
from cegm.lab.rollout.tallies import share

CLIENTS = 8
STAGE_REQUESTS = 80
"""Of the challenger; a 95th percentile has an upper bound from 73 on."""

RETRIES = 60
"""Of the client, which waits at most 8 s before each; on a busy machine the router is away for a minute."""

Z = 3.290527
"""Of an interval that holds in 999 of 1,000 cases; four shares are looked at."""

WORDS = ["the", "parcel", "was", "sent", "on", "monday", "and", "will", "arrive", "within", "three", "days"]

SERVER = """
import asyncio, json, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
name, port, words, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(), [0.01]
async def slower(request):
    seconds[0] = float(request.query_params["seconds"])
    return PlainTextResponse("")
async def answer(request):
    body = await request.json()
    await asyncio.sleep(seconds[0])
    base = {"id": "x", "created": 1, "model": name}
    if not body.get("stream"):
        message = {"role": "assistant", "content": " ".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return JSONResponse({**base, "object": "chat.completion", "choices": [choice]})
    async def events():
        for word in [*words, None]:
            await asyncio.sleep(seconds[0] / 5)
            delta = {} if word is None else {"content": word + " "}
            choice = {"index": 0, "delta": delta, "finish_reason": "stop" if word is None else None}
            yield f"data: {json.dumps({**base, 'object': 'chat.completion.chunk', 'choices': [choice]})}\\n\\n"
        yield "data: [DONE]\\n\\n"
    return StreamingResponse(events(), media_type="text/event-stream")
routes = [Route("/v1/chat/completions", answer, methods=["POST"]), Route("/slower", slower), Route("/health", slower)]
uvicorn.run(Starlette(routes=routes[:2] + [Route("/health", lambda r: PlainTextResponse("ok"))]), port=port, log_level="error")
"""
"""Of a model: the same words in so many seconds, whole or one by one."""

ROUTER = """
import datetime, sys, time
from pathlib import Path
import cegm.lab.rollout.ledger as ledger, cegm.lab.train.audit as audit
place, clock = Path(sys.argv.pop(1)), time.time
def jump():
    return float(place.read_text(encoding="utf-8")) if place.exists() else 0.0
class Jumping(datetime.datetime):
    @classmethod
    def now(cls, zone=None):
        return super().now(zone) + datetime.timedelta(seconds=jump())
time.time = lambda: clock() + jump()
ledger.datetime = audit.datetime = Jumping
from cegm.lab.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""`cegm` with a clock that jumps by the seconds that a file says; the machine's own is everybody's."""


class Trial:
    """Servers, router and clients.

    Args:
        root: Folder for all of it.
        release: Signed by its trainer; keys lie beside it.
    """

    def __init__(self, root: Path, release: Path) -> None:
        self.root, self.release = root, release
        self.folder = RolloutFolder(root / "rollout")
        self.ports = {name: _free_port() for name in ("champion", "challenger", "router")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.outcomes: Counter[str] = Counter()
        self.numbers: list[int] = []
        self.errors: list[str] = []
        self.events: list[str] = []
        self.memory: list[tuple[int, float]] = []
        self.users = 0
        self.done = False

    def command(self, step: str, *more: str) -> list[str]:
        place = self.release.parent
        keys_of = {
            "approve": ["--key", str(place / "approver.key")],
            "serve": ["--approver_key", str(place / "approver.pub")],
        }
        trainer = ["--trainer_key", str(place / "trainer.pub")] if step in keys_of else []
        release = [str(self.release)] if step in keys_of else []
        return [
            "rollout",
            step,
            *release,
            "--output_dir",
            str(self.folder.root),
            *keys_of.get(step, []),
            *trainer,
            *more,
        ]

    def cegm(self, *words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "cegm", *words], capture_output=True, encoding="utf-8", check=True
        ).stdout

    def start(self, name: str) -> None:
        if name == "router":
            limits = ["--stage_requests", str(STAGE_REQUESTS), "--most_errors", "0.5", "--slower", "5"]
            urls = [f"--{each}=http://127.0.0.1:{self.ports[each]}" for each in ("champion", "challenger")]
            serve = self.command("serve", *urls, *limits, "--port", str(self.ports[name]), "--challenger_seconds", "30")
            command = [sys.executable, "-c", ROUTER, str(self.root / "clock"), *serve]
        else:
            words = " ".join(WORDS if name == "champion" else [*WORDS[:-2], "two", "days"])
            command = [sys.executable, "-c", SERVER, name, str(self.ports[name]), words]
        with (self.root / f"{name}.txt").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    async def ready(self, name: str) -> None:
        async with httpx2.AsyncClient(trust_env=False) as client:
            for _ in range(6000):
                try:
                    if (await client.get(f"http://127.0.0.1:{self.ports[name]}/health", timeout=1)).is_success:
                        return
                except httpx2.HTTPError:
                    await asyncio.sleep(0.1)
        raise TimeoutError(f"{name} did not start")

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def say(self, words: str) -> None:
        self.events.append(f"{len(self.numbers):6d} answers, {self.state.stage}: {words}")
        print(self.events[-1], flush=True)

    @property
    def state(self) -> rollout_state.RolloutState:
        return rollout_state.read(self.folder)[0]

    async def one(self, client: openai.AsyncOpenAI) -> None:
        """One request of a user of its own, every second one as a stream."""
        number = self.users = self.users + 1
        messages: Any = [{"role": "user", "content": f"where is parcel {number}?"}]
        options: dict[str, Any] = {"model": "cegm", "messages": messages, "user": f"user-{number}"}
        begun = False
        try:
            if number % 2:
                raw = await client.chat.completions.with_raw_response.create(**options)
                begun, text = True, raw.parse().choices[0].message.content
            else:
                raw = await client.chat.completions.with_raw_response.create(**options, stream=True)
                begun, text = True, ""
                async for chunk in raw.parse():
                    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            assert text.split()[:9] == WORDS[:9], text
            self.numbers.append(int(raw.headers["x-request-number"]))
            self.outcomes["streams" if number % 2 == 0 else "whole"] += 1
        except (openai.APIError, httpx2.HTTPError) as error:
            kind = "open streams that broke" if begun else "errors"
            self.outcomes[kind] += 1
            self.errors.append(f"{kind}: {type(error).__name__} {' '.join(str(error).split())[:120]}")

    async def clients(self) -> None:
        url = f"http://127.0.0.1:{self.ports['router']}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=RETRIES, timeout=300) as client:

            async def work() -> None:
                while not self.done:
                    await self.one(client)

            await asyncio.gather(*(work() for _ in range(CLIENTS)))

    async def answers(self, count: int) -> None:
        """Waits for so many more answers."""
        wanted = len(self.numbers) + count
        while len(self.numbers) < wanted:
            await asyncio.sleep(0.02)
            if len(self.numbers) // 250 > len(self.memory):
                self.memory.append((len(self.numbers), self.resident()))

    async def stage(self, name: str) -> None:
        """Waits for a stage; an inconclusive gate is approved as a person would."""
        while (state := self.state).stage != name:
            assert state.stage != "back", state.reason
            if state.waiting:
                self.say(f"waits ({state.reason}); approved")
                await asyncio.to_thread(self.cegm, *self.command("approve"))
            await self.answers(20)
        self.say(f"begins: {state.reason}")

    def resident(self) -> float:
        """MiB of the router."""
        try:
            status = Path(f"/proc/{self.processes['router'].pid}/status").read_text(encoding="utf-8")
        except OSError:
            return 0.0
        return next((int(line.split()[1]) / 1024 for line in status.split("\n") if line.startswith("VmRSS")), 0.0)

    async def slow(self, seconds: float) -> None:
        async with httpx2.AsyncClient(trust_env=False) as client:
            await client.get(f"http://127.0.0.1:{self.ports['champion']}/slower?seconds={seconds}")

    async def restart_challenger(self, answers: int) -> None:
        self.kill("challenger")
        self.say("challenger killed")
        await self.answers(answers)
        self.start("challenger")
        await self.ready("challenger")
        self.say("challenger started again")

    async def breaks(self) -> None:
        """Everything that goes wrong, while clients ask."""
        await self.stage("shadow")
        await self.answers(30)
        await self.restart_challenger(10)
        await self.stage("canary 5")
        await self.answers(200)
        await self.restart_challenger(100)
        await self.slow(0.3)
        self.say("champion slow: 0.3 s instead of 0.01")
        await self.answers(60)
        await self.slow(0.01)
        await self.slow(0.2)
        await self.answers(20)
        self.kill("router")
        self.say("router killed")
        self.folder.state.write_text('{"stage": "all", "share": 1.0}', encoding="utf-8")
        self.start("router")
        await self.ready("router")
        await self.slow(0.01)
        self.say("router started again")
        await self.stage("canary 25")
        await self.answers(50)
        size = self.folder.requests.stat().st_size
        router = self.processes["router"].pid
        resource.prlimit(router, resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
        self.say("disk full")
        await self.answers(150)
        resource.prlimit(router, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.say(f"room again; the log had grown by {self.folder.requests.stat().st_size - size} bytes")
        await self.stage("canary 50")
        (self.root / "clock").write_text("86400", encoding="utf-8")
        self.say("clock a day ahead")
        await self.answers(60)
        (self.root / "clock").write_text("-86400", encoding="utf-8")
        self.say("clock a day behind")
        await self.stage("all")
        await self.answers(400)
        self.kill("challenger")
        self.say("challenger killed for good")
        while self.state.stage != "back":
            await self.answers(1)
        self.say(f"back by itself: {self.state.reason}")
        await self.answers(200)
        self.done = True

    async def run(self) -> None:
        try:
            for name in ("champion", "challenger"):
                self.start(name)
                await self.ready(name)
            self.cegm(*self.command("approve", "--approver", "B. Second"))
            self.start("router")
            await self.ready("router")
            await asyncio.gather(self.clients(), self.breaks())
            async with httpx2.AsyncClient(trust_env=False) as client:
                self.metrics = (await client.get(f"http://127.0.0.1:{self.ports['router']}/metrics")).text
            self.processes["router"].send_signal(signal.SIGTERM)
            self.processes["router"].wait(60)
        finally:
            for process in self.processes.values():
                process.kill()
                process.wait()

    def found(self) -> dict[str, Any]:
        """What the trial shows."""
        lines = list(request_log.read(self.folder.requests))
        answered = {each.number for each in lines if not each.shadow and each.status == 200 and not each.error}
        shares = {}
        for stage, wanted in STAGES.items():
            to_challenger: dict[str, bool] = {}
            for each in lines:
                if each.stage == stage and not each.shadow:
                    to_challenger[each.user] = to_challenger.get(each.user, False) or each.variant == "challenger"
            reached = share(sum(to_challenger.values()), len(to_challenger), Z)
            inside = reached.low <= wanted <= reached.high
            shares[stage] = {"users": len(to_challenger), "wanted": wanted, "found": reached, "inside": inside}
        memory = [each for _, each in self.memory if each]
        return {
            "answers": len(self.numbers),
            "outcomes": dict(self.outcomes),
            "client_errors": self.outcomes["errors"],
            "errors": self.errors,
            "numbers_given_twice": len(self.numbers) - len(set(self.numbers)),
            "answers_missing_in_log": len(set(self.numbers) - answered),
            "lines": len(lines),
            "shares": shares,
            "memory_mib": self.memory,
            "memory_growth_mib": memory[-1] - memory[len(memory) // 2] if memory else None,
            "events": self.events,
            "decisions": [event["event"] for event in rollout_state.read(self.folder)[1]],
        }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def released(root: Path) -> Path:
    """A release of a run of two steps, signed by its trainer, with the keys of trainer and approver beside it."""
    for name in ("trainer", "approver"):
        keys.new(str(root / name))
    run = ["train", "--max_steps", "2", "--max_length", "32", "--eval_rows", "2", "--output_dir", str(root / "run")]
    release = ["audit", str(root / "run"), "--output_dir", str(root / "release"), "--key", str(root / "trainer.key")]
    for words in (run, release):
        subprocess.run([sys.executable, "-m", "cegm", *words], check=True, stdout=subprocess.DEVNULL)
    return root / "release"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/rollout_trial"), help="must not exist")
    parser.add_argument("--release", type=Path, help="one with keys beside it, instead of a new one")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True)
    root = arguments.work.resolve()
    os.environ.update(OMP_NUM_THREADS="1", NO_PROXY="127.0.0.1")
    trial = Trial(root, arguments.release.resolve() if arguments.release else released(root))
    begun = time.monotonic()
    asyncio.run(trial.run())
    found = {**trial.found(), "seconds": round(time.monotonic() - begun, 1)}
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.output / "trial.json", json.dumps(found, indent=1) + "\n")
    status = trial.cegm(*trial.command("status"))
    said = "\n".join([*found["events"], "", (root / "router.txt").read_text(encoding="utf-8"), status, trial.metrics])
    said = said.replace(str(root), "TRIAL").replace(str(trial.release), "RELEASE")
    write_whole(arguments.output / "trial.txt", said)
    print(status)
    print(
        {
            name: found[name]
            for name in ("answers", "outcomes", "answers_missing_in_log", "numbers_given_twice", "seconds")
        }
    )


if __name__ == "__main__":
    main()
