"""Nothing that comes from data has any power in the card."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cegm.durable import sha256
from cegm.lab.cli import main
from cegm.lab.release.model_card import MOST_LETTERS, code
from cegm.lab.train.audit import AuditLog
from cegm.lab.train.folder import RunFolder
from releases import line, written_run

HOSTILE = [
    "<script>alert(1)</script>", "`<img src=x onerror=alert(1)>`", "``` \n# I am a heading\n```", "[click](javascript:alert(1))",
    "![x](https://evil.example/x.png)", "https://evil.example", "<https://evil.example>", "a | b\n|---|---|\n", "*bold* _it_ ~~no~~",
    "\n\n- Operator: `somebody else`\n", "\u202eevil\u202c", "\x1b[31mred", "&lt;b&gt;", "\\`", "`", "``", " ` ", "", " ", "$$x$$", "@all #1",
    "{{ 7 * 7 }}", "{% raw %}", "\u2028- x",
]  # fmt: skip


class Tags(HTMLParser):
    """Counts tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[" ".join([tag, *(f"{name}={value}" for name, value in attrs)])] += 1


def tags(card: str) -> Counter[str]:
    parser = Tags()
    parser.feed(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(card))
    return parser.found


def card(root: Path, text: str) -> str:
    """The card of a run in which every name and text that can be is this one."""
    said = {
        "operator": f"x{text}",
        "data_source": f"x{text}",
        "data_licence": f"x{text}",
        "data": f"x{text}",
        "explain_rows": "2",
    }
    run = RunFolder(written_run(root / "run", said))
    lines = [json.loads(each) for each in run.metrics.read_text().splitlines()]
    for each in lines:
        if each["kind"] == "train":
            each["layers"] = {text: next(iter(line(each["step"])["layers"].values()))}
    run.metrics.write_text("".join(json.dumps(each) + "\n" for each in lines))
    explanation = json.loads(run.explanation.read_text())
    for row in explanation["explained"]:
        row["text"], row["driving"][0]["token"] = text, text
    run.explanation.write_text(json.dumps(explanation))
    run.audit.unlink()
    audit = AuditLog(run.audit)
    audit.record("start", config=sha256(run.config))
    audit.record("note " + text, step=text)
    files = [run.metrics, run.explanation, *sorted(run.model.iterdir())]
    digests = {path.relative_to(run.root).as_posix(): sha256(path) for path in files}
    audit.record("finish", final_hash="0" * 64, files=digests)
    comparison = root / "comparison"
    comparison.mkdir()
    pair = {"pair": [text, text], "effect": 1.0, "word": text}
    measure = {"name": "x", "title": text, "pairs": [pair]}
    (comparison / "verdict.json").write_text(json.dumps({f"name {text}": text, "measures": [measure]}))
    assert main(["audit", str(run.root), str(comparison), "--output_dir", str(root / "release")]) == 0
    return (root / "release" / "evidence" / "card.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    return tags(card(tmp_path_factory.mktemp("harmless"), "harmless"))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_card_of_hostile_names_has_the_tags_of_a_harmless_one(
    text: str, tmp_path: Path, harmless: Counter[str]
) -> None:
    assert tags(card(tmp_path, text)) == harmless


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("`\\<>[]()| \n*_&!#-")), max_size=40))
def test_any_text_is_one_code_span_that_reads_as_it_stood(text: str) -> None:
    spans = [
        token
        for token in MarkdownIt("gfm-like", {"linkify": False}).parseInline(f"x: {code(text)}.")[0].children or []
        if token.type != "text"
    ]
    assert [token.type for token in spans] == ["code_inline"]
    if text.isprintable() and text.strip(" "):
        assert spans[0].content == text


def test_a_long_text_is_cut() -> None:
    assert len(code("x" * 10_000)) < MOST_LETTERS + 10


def test_a_name_that_is_no_text_is_spelt(tmp_path: Path) -> None:
    place = tmp_path / "release"
    assert main(["audit", str(written_run(tmp_path / "run", {"data": "texts\udcff"})), "--output_dir", str(place)]) == 0
    assert "- Text: `texts\\udcff`, sha256" in (place / "evidence" / "card.md").read_text()


def test_a_verdict_that_is_no_text_is_refused_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = tmp_path / "comparison"
    comparison.mkdir()
    (comparison / "verdict.json").write_text('{"\\ud800": 1}')
    words = [str(written_run(tmp_path / "run")), str(comparison), "--output_dir", str(tmp_path / "release")]
    assert main(["audit", *words]) == 2
    assert "verdict.json is not as it was written" in capsys.readouterr().err
