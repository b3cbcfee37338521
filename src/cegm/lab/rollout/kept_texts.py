"""`texts.jsonl`: prompts and answers, for whoever opted in and for as many days as they said."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec

from cegm.durable import write_whole
from cegm.lab.records import line


class KeptText(msgspec.Struct, kw_only=True):
    """A line of `texts.jsonl`; number, variant and shadow are those of its `Request`."""

    number: int
    time: str
    variant: str
    shadow: bool
    prompt: str
    answer: str


def read(path: Path) -> list[KeptText]:
    """What is kept; an unfinished last line is left out, ValueError where another one is no text."""
    finished = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    try:
        return [msgspec.json.decode(content, type=KeptText) for content in finished]
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path} is not as it was written ({error}); restore or delete it") from None


def forget(path: Path, days: float) -> int:
    """Deletes what is older than so many days, and says how many texts that were."""
    oldest = datetime.now(timezone.utc) - timedelta(days=days)
    texts = read(path)
    young = [text for text in texts if datetime.fromisoformat(text.time) > oldest]
    if len(young) < len(texts):
        write_whole(path, "".join(line(text) + "\n" for text in young)).chmod(0o600)
    return len(texts) - len(young)
