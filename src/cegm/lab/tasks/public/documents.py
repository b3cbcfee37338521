"""Long texts of public sets without markup and names: novels, proposals, laws, chat and tweets, and papers with their summaries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from docutils import nodes
from docutils.core import publish_doctree

from cegm.lab.tasks.items import Source
from cegm.lab.tasks.public.reading import Document, damaged, files_in, json_rows, public, text_of, xml_of
from cegm.lab.train.markup import strip_markdown


def novels(source: Source) -> list[Document]:
    """English novels of 1839 to 1929: the home text of models that were trained on it.

    Set `general_novels` (computationalstylistics/100_english_novels, public domain by age). Layout:
    `corpus/<author>_<title>_<year>.txt`.
    """
    paths = files_in(public(source, "general_novels", "corpus"), "*.txt")
    return [Document(path.stem, partial(text_of, path)) for path in paths]


HEADER = re.compile(r"\A(?:[A-Z][\w-]*:.*\n(?:[ \t]+\S.*\n)*)+")
"""The fields in front of a proposal: number, authors with addresses, dates."""

ROLE = re.compile(r":[a-z][\w+.:-]*:(?=`)")
PROSE = (nodes.paragraph, nodes.title, nodes.term, nodes.line)
QUIET = {
    "report_level": 5,  # nothing is printed; a proposal with unknown directives is still read
    "halt_level": 5,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "_disable_config": True,
}


def proposals(source: Source) -> list[Document]:
    """Python Enhancement Proposals, sorted by number: technical documents in reStructuredText.

    Set `tech_peps` (python/peps, public domain or CC0, by the statement at the end of each). Layout: `peps/pep-*.rst`. Known
    defects: Sphinx roles and directives that docutils does not know; the oldest proposals are mostly indented blocks.
    """
    paths = files_in(public(source, "tech_peps", "peps"), "pep-*.rst")
    return [Document(path.stem, partial(_proposal, path)) for path in paths]


def _proposal(path: Path) -> str:
    """Headings, paragraphs and terms, one per line; header, code, comments and markup go."""
    tree = publish_doctree(ROLE.sub("", HEADER.sub("", text_of(path))), settings_overrides=QUIET)
    for message in list(tree.findall(nodes.system_message)):
        message.parent.remove(message)
    lines = (" ".join(node.astext().split()) for node in tree.findall() if isinstance(node, PROSE))
    return "\n".join(line for line in lines if line)


NAMESPACE = "{eregs}"
PARAGRAPHS = tuple(NAMESPACE + name for name in ("paragraph", "interpParagraph"))
PLACEHOLDER = re.compile(r"\{%.*?%\}")


def regulations(source: Source) -> list[Document]:
    """Parts of the Code of Federal Regulations.

    Set `legal_cfr_cfpb` (cfpb/regulations-xml, public domain by statute). Layout: `regulation/<part>/<notice>.xml`, RegML. Only
    paragraphs of the regulation and of its official interpretation are read; tables of contents and the agency's analysis
    repeat them.
    """
    paths = files_in(public(source, "legal_cfr_cfpb", "regulation"), "*/*.xml")
    return [Document(f"{path.parent.name}/{path.stem}", partial(_regulation, path)) for path in paths]


def _regulation(path: Path) -> str:
    contents = (node.find(NAMESPACE + "content") for node in xml_of(path).iter() if node.tag in PARAGRAPHS)
    lines = (" ".join("".join(content.itertext()).split()) for content in contents if content is not None)
    return "\n".join(line for line in lines if line)


def policies(source: Source) -> list[Document]:
    """Policies and terms of a site.

    Set `legal_sitepolicy` (github/site-policy, CC0-1.0). Layout: `Policies/<group>/<policy>.md`. Known defects: `{% data ... %}`
    in place of names.
    """
    paths = files_in(public(source, "legal_sitepolicy", "Policies"), "**/*.md")
    return [Document(path.stem, partial(_policy, path)) for path in paths]


def _policy(path: Path) -> str:
    return strip_markdown(PLACEHOLDER.sub("", text_of(path)))


def laws(source: Source) -> list[Document]:
    """Regulations and policies: the domain is the same only when both are there."""
    return regulations(source) + policies(source)


CHANNEL = r"(?:\S+ [\d-]+ )?"
WHO = r"(?:<\s*(?P<nick>[^>\s]+)\s*>|\*\s*(?P<actor>\S+)|-(?P<robot>\S+)-)"
LINE = re.compile(CHANNEL + r"\[[\d:]+\]\s+" + WHO + r"(?P<said>.*)")
CAME_OR_WENT = re.compile(CHANNEL + "===")
WORD = re.compile(r"[^\s,:;.!?<>()\"']+")


def chats(source: Source) -> list[Document]:
    """Logs of Internet Relay Chat (Kummerfeld et al. 2019, arXiv 1810.11118).

    Set `chat_irc` (jkkummerfeld/irc-disentanglement, CC BY 4.0). Layout: `data/{dev,test,new-domains}/*.ascii.txt`; a line is
    `[hh:mm] <nick> message`, `[hh:mm] * nick action`, `[hh:mm] -robot- notice`, or `=== nick [host] has joined`, which is
    dropped. Known defect: in `new-domains` each of these may come after `channel date`, so not all lines with host names begin
    with `===`. Nicknames are replaced by `user1`, `user2` ... by first appearance, also where they are addressed.
    """
    paths = files_in(public(source, "chat_irc", "data"), "*/*.ascii.txt")
    return [Document(f"{path.parent.name}/{path.name[: -len('.ascii.txt')]}", partial(_chat, path)) for path in paths]


def _chat(path: Path) -> str:
    return anonymous(text_of(path), path)


def anonymous(log: str, where: str | Path) -> str:
    """Messages of a log, one per line, each with who says it under a made-up name."""
    messages: list[tuple[str, str]] = []
    for number, line in enumerate(log.split("\n"), 1):
        if CAME_OR_WENT.match(line) or not line.strip():
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise damaged(where, number, "neither a message nor an action")
        messages.append((match["nick"] or match["actor"] or match["robot"], " ".join(match["said"].split())))
    names: dict[str, str] = {}
    for nick, _ in messages:
        names.setdefault(nick, f"user{len(names) + 1}")
    return "\n".join(
        f"{names[nick]}: {WORD.sub(lambda word: names.get(word[0], word[0]), text)}" for nick, text in messages
    )


TWEETS = 20
"""Tweets per document, next to each other in a file: one is too short to be told from noise."""


def tweets(source: Source) -> list[Document]:
    """Blocks of neighbouring tweets, each tweet once: the Broad Twitter Corpus (Derczynski et al. 2016, COLING).

    Set `social_btc` (GateNLP/broad_twitter_corpus, CC BY 4.0). Layout: `{a,b,e,f,g,h}.conll`, one token and its label per line,
    apart by a tab, an empty line after each tweet. Known defects: tokenised, so spaces are those between tokens; user names are
    present and are replaced by `user`.
    """
    documents, seen = [], set[str]()
    for path in files_in(public(source, "social_btc"), "*.conll"):
        texts = [text for text in dict.fromkeys(_tweets(path)) if text not in seen]
        seen.update(texts)
        for start in range(0, len(texts), TWEETS):
            block = "\n".join(texts[start : start + TWEETS])
            documents.append(Document(f"{path.stem}/{start // TWEETS}", partial(str, block)))
    return documents


def _tweets(path: Path) -> Iterator[str]:
    words: list[str] = []
    for number, line in enumerate([*text_of(path).split("\n"), ""], 1):
        if not line.strip():
            if words:
                yield " ".join(words)
            words = []
            continue
        token, tab, _ = line.partition("\t")
        if not tab:
            raise damaged(path, number, "no tab between token and label")
        named = words[-1:] == ["@"]  # mark and name are two tokens in some files, one in others
        words.append("user" if named else "@user" if token.startswith("@") and len(token) > 1 else token)


@dataclass(frozen=True)
class Paper:
    """A paper: its id, its title, its abstract, and summaries of one sentence, of which the author's comes first."""

    name: str
    title: str
    abstract: str
    first_sentence: str
    summaries: tuple[str, ...]


def papers(source: Source, split: Literal["train", "dev", "test"]) -> list[Paper]:
    """Papers of a split of SciTLDR, in file order (Cachola et al. 2020, arXiv 2004.15011).

    Set `sci_scitldr` (allenai/scitldr, Apache-2.0). Layout: `SciTLDR-Data/SciTLDR-A/{train,dev,test}.jsonl`, one paper per line.
    In dev and test the summaries that are not the author's were written by readers of its reviews. Known defects: six abstracts
    come twice.
    """
    path = public(source, "sci_scitldr", "SciTLDR-Data", "SciTLDR-A", f"{split}.jsonl")
    entries = []
    for number, row in enumerate(json_rows(text_of(path), path, "paper_id", "title", "source", "target"), 1):
        sentences = row["source"]
        if not "".join(sentences).strip() or not row["target"]:
            raise damaged(path, number, "no abstract or no summary")
        entries.append(Paper(row["paper_id"], row["title"], " ".join(sentences), sentences[0], tuple(row["target"])))
    return entries


def abstracts(source: Source) -> list[Document]:
    """Abstracts of the test split of SciTLDR, each once."""
    unique = {paper.abstract: paper.name for paper in papers(source, "test")}
    return [Document(name, partial(str, abstract)) for abstract, name in unique.items()]
