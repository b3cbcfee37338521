"""The page of an explanation: texts coloured by their alignment scores, and one strip of colour per layer.

No script and nothing loaded from anywhere. A strip is a picture of two rows of pixels, one column per token: the upper
row holds the scores along the entangled gradient, the lower row those against it, so that the sign survives a grey
print and a strip costs a kilobyte at most.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cegm.pages import MINUS, save, templates

if TYPE_CHECKING:
    from cegm.explanation import AlignedText, Explanation

ALONG, AGAINST = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion of Okabe and Ito, red green blue."""

LEVELS = 4
"""Steps of colour, underline and weight in the text."""

SHADES = 12
"""Shades of each colour in a strip."""

MOST_COLUMNS = 500
"""Columns of a strip; in longer texts each shows the strongest of its tokens in either direction."""

RANKED = 8
"""Tokens listed on either side."""

BEFORE = 3
"""Tokens shown in front of a listed one."""


def write(explanation: Explanation, path: Path) -> Path:
    """Draws the page.

    Args:
        explanation: What `cegm.explain` gave.
        path: The file to write; its folder must exist.

    Returns:
        The path.
    """
    return save(render(explanation), Path(path))


def render(explanation: Explanation) -> str:
    """The page as text."""
    return (
        templates("cegm")
        .get_template("explanation.html.j2")
        .render(
            texts=[_text(text, explanation.layers) for text in explanation.texts],
            tokens=sum(len(text.tokens) for text in explanation.texts),
            layers=len(explanation.layers),
            loss=f"{explanation.loss:.4f}",
            score=_signed(sum(float(text.total().sum()) for text in explanation.texts)),
            left_out=explanation.left_out,
            levels=range(1, LEVELS + 1),
            strip=_strip([float(step) for step in range(-SHADES, SHADES + 1)]),
        )
    )


def _text(text: AlignedText, layers: tuple[str, ...]) -> dict[str, Any]:
    """One text: its marked tokens, its strongest tokens and a row per layer."""
    totals = text.total().tolist()
    largest, whole = max(map(abs, totals)), sum(map(abs, totals))
    ranking = text.driving(len(totals))
    # Ids carry no space of their own and would run into each other.
    words = text.tokens if any(t[:1].isspace() for t in text.tokens) else tuple(f" {t}" for t in text.tokens)
    everywhere = float(text.scores.abs().sum())
    return {
        "tokens": [
            {
                "before": " " * token.startswith(" "),  # outside the mark
                "text": _visible(token.removeprefix(" ")) or "\N{MIDDLE DOT}",
                "breaks": "\n" in token,
                "look": _look(score, largest),
                "title": f"token {number}: {_signed(score)}, {_percent(score, whole)} of the text",
            }
            for number, (token, score) in enumerate(zip(words, totals, strict=True), start=1)
        ],
        "balance": _percent(sum(totals), whole),
        "ranked": [
            ("Along", [_ranked(one, words, whole) for one in ranking[:RANKED] if one[2] > 0]),
            ("Against", [_ranked(one, words, whole) for one in ranking[: -RANKED - 1 : -1] if one[2] < 0]),
        ],
        "layers": [
            _layer(name, scores, text.tokens, everywhere)
            for name, scores in zip(layers, text.scores.tolist(), strict=True)
        ],
        "marks": _marks(len(totals)),
    }


def _ranked(one: tuple[int, str, float], tokens: tuple[str, ...], whole: float) -> dict[str, Any]:
    """A token among its neighbours: what the model has just read, and what it has to predict."""
    position, _, score = one
    return {
        "before": _visible("".join(tokens[max(0, position - BEFORE) : position])).lstrip(),
        "token": _visible(tokens[position]),
        "after": _visible(tokens[position + 1]) if position + 1 < len(tokens) else "",
        "number": position + 1,
        "score": _signed(score),
        "share": _percent(score, whole),
    }


def _layer(name: str, scores: list[float], tokens: tuple[str, ...], everywhere: float) -> dict[str, Any]:
    """One row: the strip, how much of all scores the layer holds, which way it leans, and its strongest token."""
    size = sum(map(abs, scores))
    strongest = max(range(len(scores)), key=lambda position: abs(scores[position]))
    return {
        "name": name,
        "strip": _strip(scores),
        "share": _percent(size, everywhere).lstrip("+"),
        "balance": _percent(sum(scores), size),
        "strongest": f"{_visible(tokens[strongest]).strip()} ({strongest + 1})",
    }


def _marks(tokens: int) -> list[int]:
    """About five token numbers under a strip, first and last among them."""
    parts = min(4, tokens - 1)
    return [1 + round(part * (tokens - 1) / parts) for part in range(parts + 1)]


# ---------------------------------------------------------------------- looks


def _depth(score: float, largest: float) -> float:
    """Depth of colour in [0, 1]: the square root, so that small scores stay visible beside one large one."""
    return math.sqrt(abs(score) / largest) if largest > 0 and math.isfinite(score) else 0.0


def _look(score: float, largest: float) -> str:
    """Class of a token: `p` along or `n` against, and a level from 1 to `LEVELS`; empty for next to nothing."""
    level = round(LEVELS * _depth(score, largest))
    return f"{'p' if score > 0 else 'n'}{level}" if level else ""


def _strip(scores: list[float]) -> str:
    """Scores as a PNG in a data address, two pixels high: positive ones above, negative ones below."""
    largest = max(map(abs, scores))
    shades = [round(SHADES * _depth(score, largest)) * (1 if score > 0 else -1) for score in scores]
    width = math.ceil(len(shades) / MOST_COLUMNS)  # a screen would drop columns thinner than its pixels
    columns = [shades[start : start + width] for start in range(0, len(shades), width)]
    above = bytes(max(0, *column) for column in columns)
    below = bytes(SHADES - min(column) if min(column) < 0 else 0 for column in columns)
    mixed = [
        round(255 + (channel - 255) * shade / SHADES)
        for colour in (ALONG, AGAINST)
        for shade in range(1, SHADES + 1)
        for channel in colour
    ]
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", len(columns), 2, 8, 3, 0, 0, 0)),  # 8 bits into a palette
        (b"PLTE", bytes([255, 255, 255, *mixed])),
        (b"IDAT", zlib.compress(b"\0" + above + b"\0" + below, 9)),  # each row after its filter, none
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def _visible(token: str) -> str:
    """The token with what ends a line as signs: in HTML a carriage return would break the line too, inside the mark."""
    return token.replace("\r", "\N{SYMBOL FOR CARRIAGE RETURN}").replace(
        "\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
    )


def _signed(score: float) -> str:
    return f"{score:+.2e}".replace("-", MINUS)


def _percent(part: float, whole: float) -> str:
    """`part` in percent of `whole`, with its sign."""
    return f"{100 * part / whole if whole > 0 else 0.0:+.1f} %".replace("-", MINUS)
