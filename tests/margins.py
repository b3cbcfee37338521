"""How much of its tolerance each comparison of a test uses, into the folder that CEGM_TEST_MARGINS names.

`benchmarks/machines.py` asks for it on every kind of machine: a tolerance that is nearly used up on one is exceeded on
another.
"""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _pytest import approx

import rounding

DEFAULTS = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
}
"""Relative and absolute tolerance of `torch.testing.assert_close`."""

TESTS = str(Path(__file__).parent)


class Margins:
    """A plugin that watches every way in which the tests compare numbers within a tolerance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: dict[tuple[str, str], float] = {}
        self._wrap(torch, "allclose", self._allclose)
        self._wrap(torch.testing, "assert_close", self._assert_close)
        self._wrap(rounding, "agree", self._agree)
        self._wrap(approx.ApproxScalar, "__eq__", self._approx)
        approx.ApproxScalar.__hash__ = None  # type: ignore[assignment]

    def _wrap(self, owner: Any, name: str, look: Callable[..., None]) -> None:
        original = getattr(owner, name)

        def watched(*given: Any, **options: Any) -> Any:
            look(*given, **options)
            return original(*given, **options)

        setattr(owner, name, watched)

    def _allclose(self, one: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, **_: Any) -> None:
        self._note(one, other, atol + rtol * other.detach().double().abs())

    def _assert_close(self, one: Any, other: Any, **options: Any) -> None:
        if isinstance(one, dict):
            for key in one:
                self._assert_close(one[key], other[key], **options)
        elif isinstance(one, (list, tuple)):
            for first, second in zip(one, other, strict=True):
                self._assert_close(first, second, **options)
        elif torch.is_tensor(one) and one.is_floating_point():
            rtol, atol = max(DEFAULTS[one.dtype], DEFAULTS[other.dtype])
            tolerance = options.get("atol", atol) + options.get("rtol", rtol) * other.detach().double().abs()
            self._note(one, other, tolerance)

    def _agree(self, one: Any, other: Any, bound: Any) -> None:
        self._note(one, other, torch.as_tensor(bound).double())

    def _approx(self, expected: Any, actual: Any) -> None:
        numbers = (actual, expected.expected)
        if all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
            self._note(torch.tensor(float(actual)), torch.tensor(float(expected.expected)), expected.tolerance)

    def _note(self, one: torch.Tensor, other: torch.Tensor, tolerance: Any) -> None:
        """Keeps the largest share of a tolerance that a test has used; what is equal to the bit has used none."""
        off = (one.detach().double() - other.detach().double()).abs()
        share = torch.where(off > 0, off / tolerance, 0.0).nan_to_num(0.0)
        if share.numel() and (place := _place()):
            self.used[place] = max(self.used.get(place, 0.0), float(share.max()))

    def pytest_sessionfinish(self) -> None:
        """One file per process."""
        with (self.folder / f"{os.getpid()}.csv").open("w", newline="") as file:
            csv.writer(file).writerows((*place, share) for place, share in self.used.items() if share)


def _place() -> tuple[str, str] | None:
    """File and name of the innermost function of the tests that is comparing."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(TESTS) and file not in (__file__, rounding.__file__):
            return os.path.relpath(file, TESTS), frame.f_code.co_name
        frame = frame.f_back
    return None
