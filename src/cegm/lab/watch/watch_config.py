"""`WatchConfig`: what is watched, and where it is shown."""

from __future__ import annotations

from dataclasses import dataclass

from cegm.lab.declarations import Declared, option


@dataclass
class WatchConfig(Declared):
    """One watch. Every field but `path` is a flag of `cegm watch`."""

    path: str = option("", "run, comparison or pilot folder; it may be on another machine, shared")
    page: bool = option(False, "serve a page on 127.0.0.1 in place of the terminal's")
    port: int = option(8642, "port of that page; 0 takes a free one", low=0, high=65535)
    baseline: str = option("", "run folder beside a run (default: of its comparison, the baseline on the same seed)")
    price: float = option(0.0, "price of an hour, in any currency; 0 shows none", low=0)
