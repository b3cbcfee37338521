"""Readers of public sets: markup and names go, words stay, damage is told with file and line."""

import pytest

from cegm.lab.tasks.items import NotMeasured
from cegm.lab.tasks.public.documents import (
    Paper,
    abstracts,
    anonymous,
    chats,
    laws,
    novels,
    papers,
    proposals,
    regulations,
    tweets,
)
from cegm.lab.tasks.public.reading import json_rows, text_of
from trials import DATA, with_data

READERS = [abstracts, chats, laws, novels, proposals, tweets]

PEP = """PEP: 7
Title: An example
Author: A. Person <a@example.org>,
        B. Person <b@example.org>
Created: 01-Jan-2001

.. highlight:: c

Abstract
========

Use the :class:`Thing` of `the wiki <https://example.org>`_ in *every* ``case``.

::

    code(that, goes)

Rationale
---------

- It helps.

.. unknown::

   Nothing knows this.
"""

REGULATION = """<regulation xmlns="eregs"><part><content><section><subject>Scope.</subject>
<paragraph><content>This part <em>applies</em> to <ref target="x">banks</ref>.</content>
<paragraph><content>Not to others.</content></paragraph></paragraph></section></content></part>
<analysis><analysisSection><content>left out</content></analysisSection></analysis></regulation>"""


def written(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def texts(reader, folder):
    return {document.name: document.read() for document in reader(folder)}


def test_proposals_lose_header_code_and_markup(tmp_path):
    written(tmp_path, "tech_peps/peps/pep-0007.rst", PEP)
    assert texts(proposals, tmp_path) == {
        "pep-0007": "Abstract\nUse the Thing of the wiki in every case.\nRationale\nIt helps."
    }


def test_regulations_and_policies(tmp_path):
    written(tmp_path, "legal_cfr_cfpb/regulation/1002/a.xml", REGULATION)
    written(
        tmp_path, "legal_sitepolicy/Policies/group/terms.md", "---\ntitle: T\n---\n# Terms\nOf {% data x %}[us](y).\n"
    )
    assert texts(laws, tmp_path) == {
        "1002/a": "This part applies to banks.\nNot to others.",
        "terms": "Terms\n\nOf us.\n",
    }


def test_a_truncated_regulation_names_file_and_line(tmp_path):
    written(tmp_path, "legal_cfr_cfpb/regulation/1002/a.xml", REGULATION[:150])
    with pytest.raises(NotMeasured, match=r"a\.xml, line \d+: no XML"):
        regulations(tmp_path)[0].read()


LOG = """=== anna [~a@host.example] has joined
[10:00] <anna> hello bert, are you there?
[10:01]  * bert waves at anna
rust 2018-05-29 [21:20:37] <cora>\tanna: hannah is fine
rust 2018-05-29 === dora [1.2.3.4] has left
[10:02] -bot- done
"""


def test_chat_has_no_hosts_and_no_nicknames():
    assert anonymous(LOG, "log").split("\n") == [
        "user1: hello user2, are you there?",
        "user2: waves at user1",
        "user3: user1: hannah is fine",
        "user4: done",
    ]


def test_a_line_of_chat_that_is_none_names_file_and_line():
    with pytest.raises(NotMeasured, match="log, line 2: neither"):
        anonymous("[10:00] <anna> hello\nanna says hello", "log")


def test_tweets_are_joined_told_once_and_without_names(tmp_path):
    tweet = "@\tO\nanna_x\tB-PER\nhello\tO\n\n"
    written(tmp_path, "social_btc/a.conll", tweet + tweet + "@bert\tB-PER\nwow\tO\n")
    written(tmp_path, "social_btc/b.conll", tweet)
    assert texts(tweets, tmp_path) == {"a/0": "@ user hello\n@user wow"}
    written(tmp_path, "social_btc/b.conll", "hello\tO\nhello O\n")
    with pytest.raises(NotMeasured, match=r"b\.conll, line 2: no tab"):
        tweets(tmp_path)


ROW = '{"paper_id": "p", "title": "t", "source": ["One.", "Two."], "target": ["Short."]}\n'


def test_papers(tmp_path):
    path = written(tmp_path, "sci_scitldr/SciTLDR-Data/SciTLDR-A/test.jsonl", ROW)
    assert papers(tmp_path, "test") == [Paper("p", "t", "One. Two.", "One.", ("Short.",))]
    path.write_text(ROW + ROW[:30])
    with pytest.raises(NotMeasured, match=r"test\.jsonl, line 2: no JSON"):
        papers(tmp_path, "test")
    path.write_text(ROW + ROW.replace('["Short."]', "[]"))
    with pytest.raises(NotMeasured, match=r"test\.jsonl, line 2: no abstract or no summary"):
        papers(tmp_path, "test")


def test_lines_without_a_key_and_files_that_are_no_text(tmp_path):
    with pytest.raises(NotMeasured, match="line 1: no 'b'"):
        json_rows('{"a": 1}\n', "x.jsonl", "a", "b")
    (tmp_path / "y").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NotMeasured, match="fetch the file again"):
        text_of(tmp_path / "y")
    with pytest.raises(NotMeasured, match="is empty"):
        text_of(written(tmp_path, "z", " \n"))


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_set_is_not_measured(reader, tmp_path):
    with pytest.raises(NotMeasured, match="does not exist"):
        reader(tmp_path)


@with_data
@pytest.mark.parametrize("reader", READERS)
def test_the_real_sets_are_read(reader):
    documents = reader(DATA)
    assert len({document.name for document in documents}) == len(documents) >= 32
    for document in documents[::20]:
        text = document.read()
        assert len(text) > 300
        assert not any(mark in text for mark in ("</", "{%", "=== ", "\ufeff", "\r"))
