"""Social media: the Broad Twitter Corpus (Derczynski et al. 2016, COLING).

Set `social_btc` (GateNLP/broad_twitter_corpus, CC BY 4.0). Layout: `{a,b,e,f,g,h}.conll`, one token and its label per line, apart by a tab,
an empty line after each tweet. Known defects: tokenised, so spaces are those between tokens; user names are present and are replaced by `user`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cegm.tasks.axis import NotMeasured, Source, public
from cegm.tasks.public.files import Document, files_in, text_of

TWEETS = 20
"""Tweets per document, next to each other in a file: one is too short to be told from noise."""


def documents(source: Source) -> list[Document]:
    """Blocks of neighbouring tweets, each tweet once.

    Raises:
        NotMeasured: The set is not there or damaged.
    """
    found, seen = [], set[str]()
    for path in files_in(public(source, "social_btc"), "*.conll"):
        tweets = [tweet for tweet in dict.fromkeys(_tweets(path)) if tweet not in seen]
        seen.update(tweets)
        for start in range(0, len(tweets), TWEETS):
            text = "\n".join(tweets[start : start + TWEETS])
            found.append(Document(f"{path.stem}/{start // TWEETS}", partial(str, text)))
    return found


def _tweets(path: Path) -> list[str]:
    tweets: list[list[str]] = [[]]
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.strip():
            tweets.append([])
            continue
        token, tab, _ = line.partition("\t")
        if not tab:
            raise NotMeasured(f"{path}, line {number}: no tab between token and label; fetch the file again")
        named = tweets[-1][-1:] == ["@"]  # mark and name are two tokens in some files, one in others
        tweets[-1].append("user" if named else "@user" if token.startswith("@") and len(token) > 1 else token)
    return [" ".join(words) for words in tweets if words]
