"""`cegm rollout label`: a person says which answers were right, in the terminal or from a file, and the evidence follows at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cegm.durable import sha256, write_whole
from cegm.lab.monitor.alarms import EVENT
from cegm.lab.monitor.labels import Evidence, Label, evidence, picked, told
from cegm.lab.monitor.prompts import asked
from cegm.lab.monitor.request_tail import RequestTail
from cegm.lab.pilot.looks import ENOUGH
from cegm.lab.records import Request, checked, line
from cegm.lab.rollout import kept_texts, rollout_state
from cegm.lab.rollout.kept_texts import KeptText
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.rollout_state import RolloutFolder
from cegm.lab.strict import json_lines

YES, NO, SKIP, QUIT = "y", "n", "s", "q"
Ask = Callable[[str], str]


def label(config: RolloutConfig, ask: Ask = input) -> int:
    """Labels answers of a roll-out, and returns 1 where the challenger turned out worse.

    Args:
        config: Its `labels` is a file of what was judged elsewhere, or empty to be asked here.
        ask: Asks a question and gives the answer.

    Raises:
        ValueError: There is no roll-out, nothing to label, or a line of the file is no label of one of its answers.
    """
    folder = RolloutFolder(Path(config.output_dir).expanduser())
    begun = since(rollout_state.read(folder)[1])
    requests = [each.request for each in RequestTail(folder.requests).read() if each.request.time >= begun]
    before = read(folder)
    if config.labels:
        given = _from_file(Path(config.labels), requests, before, config.who)
    else:
        keys = {(each.number, each.variant) for each in before}
        picks = picked(requests, keys, config.answers, seed=len(before))
        if not picks:
            raise ValueError(f"{folder.requests} has no answer left to label; let the router serve first")
        texts = {(each.number, each.variant): each for each in kept_texts.read(folder.texts)}
        if not all((each.number, each.variant) in texts for each in picks):
            place = write_whole(folder.root / "to_label.jsonl", "".join(_to_fill_in(each) for each in picks))
            print(f"the roll-out keeps no texts: say true or false behind right in {place}, then give it with --labels")
            return 0
        given = _asked(picks, texts, config.who, ask)
    return _conclude(folder, given, begun)


def since(events: Sequence[dict[str, Any]]) -> str:
    """When the challenger of now began: behind the last return, whose labels were about another one or another state."""
    returns = [
        event["time"] for event in events if event["event"] == "back" or (event["event"] == EVENT and event["hard"])
    ]
    return str(returns[-1]) if returns else ""


def label_file(folder: RolloutFolder) -> Path:
    """Where labels are."""
    return folder.root / "labels.jsonl"


def read(folder: RolloutFolder) -> list[Label]:
    """All labels of a roll-out."""
    path = label_file(folder)
    return [checked(each, Label, place) for place, each in json_lines(path, growing=True)] if path.exists() else []


def _to_fill_in(request: Request) -> str:
    values = {"number": request.number, "variant": request.variant, "time": request.time, "user": request.user}
    return json.dumps({**values, "right": None}) + "\n"


def _asked(picks: Sequence[Request], texts: Mapping[tuple[int, str], KeptText], who: str, ask: Ask) -> Iterator[Label]:
    """Labels from whoever sits at the terminal, who is not told whose answer it is."""
    for count, request in enumerate(picks, start=1):
        text = texts[request.number, request.variant]
        print(f"\n{count} of {len(picks)}\n{asked(text.prompt)}\n--\n{text.answer}\n")
        word = ""
        while word not in (YES, NO, SKIP, QUIT):
            word = ask("right? [y]es, [n]o, [s]kip, [q]uit: ").strip().lower()[:1]
        if word == QUIT:
            return
        if word != SKIP:
            yield _label(request, word == YES, who)


def _label(request: Request, right: bool, who: str) -> Label:
    time = datetime.now(timezone.utc).isoformat()
    return Label(number=request.number, variant=request.variant, right=right, time=time, who=who)


def _from_file(path: Path, requests: Sequence[Request], before: Sequence[Label], who: str) -> Iterator[Label]:
    """Labels that a file holds, none of them twice; an answer without a judgement is passed over."""
    known = {(each.number, each.variant): each for each in requests}
    labelled = {(each.number, each.variant) for each in before}
    for place, values in json_lines(path):
        key = (values.get("number"), values.get("variant"))
        right = values.get("right")
        if key not in known or right not in (True, False, None):
            raise ValueError(
                f"{place} is no label; it wants number and variant of an answer since the last return, and right: true or false"
            )
        if right is not None and key not in labelled:
            labelled.add(key)
            yield _label(known[key], right, who)


def _conclude(folder: RolloutFolder, given: Iterator[Label], begun: str) -> int:
    """Writes labels down one by one, then what they say; an interrupted labelling keeps what was said."""
    count = 0
    try:
        with label_file(folder).open("a", encoding="utf-8") as file:
            for each in given:
                file.write(line(each) + "\n")
                file.flush()
                count += 1
    finally:
        found = evidence([each for each in read(folder) if each.time >= begun])
        if count:
            _record(folder, found, count)
            print(told(found))
    return int(found.is_enough)


def _record(folder: RolloutFolder, found: Evidence, count: int) -> None:
    facts: dict[str, Any] = {
        "right": found.right,
        "pairs": found.pairs,
        "discordant": found.discordant,
        "capital": found.capital,
    }
    rollout_state.record(folder, "labels", count=count, labels_sha256=sha256(label_file(folder)), **facts)
    if found.is_enough:
        reason = f"challenger: people called its answers wrong more often, in {found.discordant} pairs"
        alarm: dict[str, Any] = {
            "statistic": found.capital,
            "threshold": ENOUGH,
            "promise": ENOUGH,
            "hard": True,
            "reason": reason,
        }
        rollout_state.record(folder, EVENT, indicator="labels", variant="challenger", **alarm)
