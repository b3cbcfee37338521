"""Chat: logs of Internet Relay Chat (Kummerfeld et al. 2019, arXiv 1810.11118).

Set `chat_irc` (jkkummerfeld/irc-disentanglement, CC BY 4.0). Layout: `data/{dev,test,new-domains}/*.ascii.txt`; a line is
`[hh:mm] <nick> message`, `[hh:mm] * nick action`, `[hh:mm] -robot- notice`, or `=== nick [host] has joined`, which is dropped. Known
defect: in `new-domains` each of these may come after `channel date`, so not all lines with host names begin with `===`.
Nicknames are replaced by `user1`, `user2` ... by first appearance, also where they are addressed.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from cegm.tasks.axis import NotMeasured, Source, public
from cegm.tasks.public.files import Document, files_in, text_of

CHANNEL = r"(?:\S+ [\d-]+ )?"
WHO = r"(?:<\s*(?P<nick>[^>\s]+)\s*>|\*\s*(?P<actor>\S+)|-(?P<robot>\S+)-)"
LINE = re.compile(CHANNEL + r"\[[\d:]+\]\s+" + WHO + r"(?P<said>.*)")
CAME_OR_WENT = re.compile(CHANNEL + "===")
WORD = re.compile(r"[^\s,:;.!?<>()\"']+")


def documents(source: Source) -> list[Document]:
    """All logs.

    Raises:
        NotMeasured: The set is not there.
    """
    paths = files_in(public(source, "chat_irc", "data"), "*/*.ascii.txt")
    return [Document(f"{path.parent.name}/{path.name[: -len('.ascii.txt')]}", partial(_read, path)) for path in paths]


def _read(path: Path) -> str:
    return anonymous(text_of(path), path)


def anonymous(log: str, where: str | Path) -> str:
    """Messages of a log, one per line, each with who says it under a made-up name.

    Raises:
        NotMeasured: A line is of no known form.
    """
    said: list[tuple[str, str]] = []
    for number, line in enumerate(log.split("\n"), 1):
        if CAME_OR_WENT.match(line) or not line.strip():
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise NotMeasured(f"{where}, line {number}: neither a message nor an action; fetch the file again")
        said.append((match["nick"] or match["actor"] or match["robot"], " ".join(match["said"].split())))
    names: dict[str, str] = {}
    for nick, _ in said:
        names.setdefault(nick, f"user{len(names) + 1}")
    return "\n".join(f"{names[nick]}: {_renamed(text, names)}" for nick, text in said)


def _renamed(text: str, names: dict[str, str]) -> str:
    return WORD.sub(lambda word: names.get(word[0], word[0]), text)
