"""Roll-outs whose traffic is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cegm.lab.records import Request, line
from cegm.lab.train.audit import AuditLog

Draw = Callable[..., Request]


@pytest.fixture
def rollout(tmp_path: Path) -> Path:
    """A folder with a chain and no requests yet."""
    facts = {"release": "runs/release", "manifest": "ab", "approver": "Sato", "approver_key": "cd"}
    AuditLog(tmp_path / "audit.jsonl").record("approve", stage="approved", **facts)
    return tmp_path


@pytest.fixture
def draw() -> Draw:
    """A request like all others, but for what is given."""
    rng, numbers = np.random.default_rng(0), iter(range(1, 10**6))

    def request(**given: Any) -> Request:
        usual = {
            "number": next(numbers), "time": "2026-11-28T10:00:00+00:00", "user": "0" * 16, "stage": "canary 25",
            "variant": "champion", "shadow": False, "status": 200, "seconds": float(rng.lognormal(0, 0.3)),
            "characters": int(rng.lognormal(6, 0.5)), "refused": bool(rng.random() < 0.03),
        }  # fmt: skip
        return Request(**{**usual, **given})

    return request


@pytest.fixture
def write(rollout: Path) -> Callable[[list[Request]], None]:
    """Appends requests to the log."""

    def append(requests: list[Request]) -> None:
        with (rollout / "requests.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(line(request) + "\n" for request in requests)

    return append
