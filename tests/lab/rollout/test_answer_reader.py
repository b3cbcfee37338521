"""What is read in answers, however their bytes are cut, and whatever else comes instead."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cegm.lab.rollout.answer_reader import AnswerReader, disagreement


def read(*parts: bytes, is_stream: bool = False) -> AnswerReader:
    reader = AnswerReader(is_stream)
    for part in parts:
        reader.feed(part)
    return reader


def chat(**message: object) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def event(text: str | None, reason: str | None = None, completion: bool = False) -> bytes:
    said = {"text": text} if completion else {"delta": {"content": text}}
    return f"data: {json.dumps({'choices': [{**said, 'finish_reason': reason}]})}\r\n\r\n".encode()


def test_a_whole_answer_of_chat_and_of_completion() -> None:
    assert read(chat(content="so it is")).text == "so it is"
    reader = read(json.dumps({"choices": [{"text": "so"}, {"text": " be it"}]}).encode())
    assert (reader.text, reader.characters, reader.is_whole) == ("so be it", 8, True)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60))
def test_a_stream_reads_the_same_however_it_is_cut(sizes: list[int]) -> None:
    content = event("Grüße, ") + event("日本") + event(None, "stop") + b"data: [DONE]\n\n"
    parts, start = [], 0
    for size in sizes:
        parts.append(content[start : start + size])
        start += size
    reader = read(*parts, content[start:], is_stream=True)
    assert (reader.text, reader.characters, reader.is_whole) == ("Grüße, 日本", 9, True)


def test_a_stream_of_completions_ends_by_its_reason_without_a_last_mark() -> None:
    reader = read(event("a", completion=True), is_stream=True)
    assert not reader.is_whole
    reader.feed(event("b", "length", completion=True))
    assert (reader.text, reader.is_whole) == ("ab", True)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"x", b'{"error": {"message": "no"}}', b"[" * 100_000, b"\xff", b'{"choices": 3}']
)
def test_what_is_no_answer_is_none_and_raises_nothing(content: bytes) -> None:
    reader = read(content)
    assert reader.text == ""
    assert reader.failed == (content != b'{"choices": 3}')
    read(b"data: " + content + b"\n", is_stream=True)


@pytest.mark.parametrize(
    "choice", [None, 3, {}, {"delta": 3}, {"message": {"content": ["x"]}}, {"delta": {"content": 3}}]
)
def test_strange_choices_are_passed_over(choice: object) -> None:
    assert read(json.dumps({"choices": [choice]}).encode()).characters == 0


def test_an_answer_is_counted_to_its_end_and_kept_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cegm.lab.rollout.answer_reader.MOST_TEXT", 10)
    reader = read(*[event("1234567")] * 3, is_stream=True)
    assert (reader.characters, reader.text) == (21, "1234567123")


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't do that.", True),
        ("I\u2019m unable to help.", True),
        ("I cannot say.", True),
        ("申し訳ありませんが、お答えできません。", True),
        ("I am sorry to hear that your parcel is late. It comes on Monday.", True),
        ("The answer is that I cannot be divided.", False),
        ("", False),
    ],
)
def test_refusals_are_known_by_how_they_begin(text: str, refused: bool) -> None:
    assert read(chat(content=text)).refused == refused


def test_a_refusal_is_known_by_its_own_mark() -> None:
    assert read(chat(content=None, refusal="no")).refused
    assert read(event("x", "content_filter"), is_stream=True).refused


@pytest.mark.parametrize(
    ("answer", "other", "expected"),
    [
        ("a b c", "A, b; c!", 0),
        ("a b", "c d", 1),
        ("", "", 0),
        ("a", "", 1),
        ("a a b", "a b b", 1 / 3),
        ("東京です", "京都です", 0.25),
    ],
)
def test_disagreement_is_what_words_are_not_shared(answer: str, other: str, expected: float) -> None:
    assert disagreement(answer, other) == pytest.approx(expected)
    assert disagreement(other, answer) == pytest.approx(expected)
