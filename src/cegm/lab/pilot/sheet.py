"""`cegm pilot page`: the decision on one sheet of A4 in Japanese and one in English, twelve lines in the order of a ringi.

Sentences are in the templates, one for each language; here are numbers and places. Fonts are the system's, and nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timezone
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from cegm.durable import sha256
from cegm.lab.baselines import METHODS
from cegm.lab.pilot.conduct import read_verdict
from cegm.lab.pilot.decision import Decision
from cegm.lab.pilot.fixing import Fix, PilotFolder
from cegm.lab.pilot.picture_of_effect import picture
from cegm.lab.pilot.pilot_config import PilotConfig
from cegm.lab.pilot.pilot_verdict import PilotVerdict
from cegm.pages import MINUS, save, templates

TEMPLATES = templates("cegm.lab.pilot")
LANGUAGES = ("ja", "en")
NOT_PROVIDED = {"ja": "記載なし", "en": "not provided"}
YEN = "JPY"
SHOWN_AT_MOST = 0.999
"""Of a probability that rests on a few seeds."""

HASH = 16
"""Digits of a hash that are shown: enough to find it in the chain."""


class Writing(NamedTuple):
    """How numbers are written in one language."""

    language: str
    currency: str

    def money(self, amount: float) -> str:
        """An amount, with its currency."""
        whole = abs(amount) >= 100 or abs(amount - round(amount)) < 0.005
        number = signed(amount, ",.0f" if whole else ",.2f")
        if self.currency == YEN:
            return f"{number}円" if self.language == "ja" else f"{number} yen"
        return f"{number} {self.currency}"

    def points(self, effect: float) -> str:
        """An effect in points, with its sign."""
        return f"{_in_points(effect)}ポイント" if self.language == "ja" else f"{_in_points(effect)} points"

    def interval(self, found: Decision) -> str:
        """The ends of the 95 % interval of an effect."""
        between = "〜" if self.language == "ja" else " to "
        return _in_points(found.low) + between + self.points(found.high)

    def share(self, value: float) -> str:
        """A share in percent."""
        return f"{100 * value:.1f}{'' if self.language == 'ja' else ' '}%"

    def probability(self, value: float) -> str:
        """A share in percent that is never called certain."""
        text = self.share(min(max(value, 1 - SHOWN_AT_MOST), SHOWN_AT_MOST))
        if 1 - SHOWN_AT_MOST < value < SHOWN_AT_MOST:
            return text
        if self.language == "ja":
            return text + ("以上" if value > 0.5 else "以下")
        return f"{'at least' if value > 0.5 else 'at most'} {text}"

    def or_none(self, text: str) -> str:
        """A text, or that there is none."""
        return text or NOT_PROVIDED[self.language]


def signed(number: float, form: str) -> str:
    """A number with a true minus, and none before nothing."""
    text = format(number, form)
    return text.lstrip("-") if not text.strip("-0.,") else text.replace("-", MINUS)


def _in_points(effect: float) -> str:
    return ("+" if effect > 0 else "") + signed(100 * effect, ".2f")


def write(config: PilotConfig) -> Path:
    """Draws the page of a pilot into its folder; ValueError where it has no verdict, or anything is not as it was fixed."""
    verdict, before, end = read_verdict(config)
    folder = PilotFolder(Path(config.output_dir))
    return save(render(config, verdict, before, end, sha256(folder.verdict)), folder.page)


def render(config: PilotConfig, verdict: PilotVerdict, before: Fix, end: str, verdict_hash: str) -> str:
    """The page as text, from what was fixed, what came of it, and the hashes of the chain's end and of the verdict."""
    costs = verdict.money.once + verdict.money.requests * verdict.money.per_request
    found: dict[str, Any] = {
        "verdict": verdict,
        "decision": verdict.decision,
        "config": config,
        "fixed_at": f"{before.moment.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "criteria": before.criteria_sha256[:HASH],
        "end": end[:HASH],
        "verdict_hash": verdict_hash[:HASH],
        "costs": costs,
        "roi": verdict.decision.net / costs if costs > 0 else None,
        "worth_buying": verdict.decision.more_information > verdict.more_cost,
        "wrong": {arm: 1 - own["answered"] for arm, own in verdict.means.items() if "answered" in own},
        "copied": {arm: own["copied"] for arm, own in verdict.means.items() if "copied" in own},
        "names": {method: METHODS[method].title for method in config.method_list},
        "picture": picture(verdict, config.smallest_worthwhile),
    }
    sheets = [(each, _sheet(each, config.currency, found)) for each in LANGUAGES]
    return TEMPLATES.get_template("pilot.html.j2").render(sheets=sheets, title=config.title or "cegm pilot")


def _sheet(language: str, currency: str, found: dict[str, Any]) -> Markup:
    """One sheet as HTML; all that enters it is escaped by its template."""
    writing = Writing(language, currency)
    written: dict[str, Callable[..., str]] = {
        "money": writing.money,
        "points": writing.points,
        "or_none": writing.or_none,
        "share": writing.share,
        "probability": writing.probability,
        "interval": writing.interval,
        "count": lambda number: f"{number:,.0f}",
    }
    return Markup(TEMPLATES.get_template(f"sheet_{language}.html.j2").render(**written, **found))
