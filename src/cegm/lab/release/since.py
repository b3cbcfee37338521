"""What changed between two releases, in words: data, options, versions, measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cegm.lab.release.evidence import NOT_PROVIDED, Evidence, read
from cegm.lab.release.layout import ReleaseFolder
from cegm.lab.release.model_card import code, number

WHERE = ("output_dir", "progress", "threads", "report_to", "dry_run", "resume_from_checkpoint")
"""Options that change with every run and say nothing of the model."""

MEASURES = {
    "loss": "validation loss",
    "bits_per_byte": "validation bits per byte",
    "steps": "steps",
    "tokens": "tokens",
}


def release(root: Path) -> Evidence:
    """The evidence of an earlier release; ValueError where the folder is none."""
    folder = ReleaseFolder(root)
    if not folder.shipped.is_dir():
        raise ValueError(
            f"since={root} is no release: it has no evidence/chains/1; give the output_dir of an earlier cegm audit"
        )
    return read(folder)


def changes(old: Evidence, new: Evidence) -> list[str]:
    """Sentences in Markdown, one for each thing that is another than before; what is not named is the same."""
    found = [*_weights(old, new), *_data(old, new), *_options(old, new), *_versions(old, new), *_measures(old, new)]
    return found or ["Nothing: data, options, versions and measures are the same."]


def _weights(old: Evidence, new: Evidence) -> Iterator[str]:
    began, before = (each.described.hashes.initial_weights for each in (new, old))
    if began == old.finish.final_hash:
        yield "It starts from the weights of the earlier release."
    elif began != before:
        yield f"It starts from other weights: {code(began)}, before {code(before)}."


def _data(old: Evidence, new: Evidence) -> Iterator[str]:
    now, before = (each.described.hashes.data for each in (new, old))
    if now != before:
        yield f"The text is another: sha256 {code(now)}, before {code(before)}."


def _options(old: Evidence, new: Evidence) -> Iterator[str]:
    for name, before, now in _pairs(_flat(old.config), _flat(new.config)):
        if name not in WHERE:
            yield f"Option {code(name)}: {code(now)}, before {code(before)}."


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the optimizer beside those of the run."""
    return {
        **{name: value for name, value in config.items() if name != "optimizer_options"},
        **(config.get("optimizer_options") or {}),
    }


def _versions(old: Evidence, new: Evidence) -> Iterator[str]:
    for name, before, now in _pairs(old.described.versions, new.described.versions):
        yield f"Version of {code(name)}: {code(now)}, before {code(before)}."
    code_now, code_before = (each.described.hashes.code for each in (new, old))
    if code_now != code_before:
        yield f"The code of cegm is another: {code(code_now)}, before {code(code_before)}."


def _measures(old: Evidence, new: Evidence) -> Iterator[str]:
    for name, title in MEASURES.items():
        now, before = new.run.result.get(name), old.run.result.get(name)
        if now != before:
            yield f"{title.capitalize()}: {number(now)}, before {number(before)}."
    judged, former = ({(title, *found.pair): found.word for title, found in each.judged()} for each in (new, old))
    for (title, first, second), before_word, now_word in _pairs(former, judged):
        yield f"Verdict on {code(title)}, {code(first)} against {code(second)}: {code(now_word)}, before {code(before_word)}."


def _pairs(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Name, value before and value now of what differs; what one of them lacks is not provided."""
    for name in dict.fromkeys((*old, *new)):
        before, now = (NOT_PROVIDED if each.get(name) is None else each[name] for each in (old, new))
        if before != now:
            yield name, before, now
