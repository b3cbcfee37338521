"""The table of a roll-out, in 80 columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cegm.lab.records import Request
from cegm.lab.rollout.request_log import LineLog
from cegm.lab.rollout.rollout_state import RolloutFolder, record
from cegm.lab.rollout.rollout_table import table


def line(number: int, **given: Any) -> Request:
    usual: dict[str, Any] = {
        "number": number, "time": "t", "user": f"{number % 50:016x}", "stage": "canary 25", "variant": "champion", "shadow": False,
        "status": 200, "seconds": 0.125, "characters": 3, "refused": False,
    }  # fmt: skip
    return Request(**{**usual, **given})


def test_stages_stand_in_their_order_with_shares_of_users_errors_and_times(tmp_path: Path) -> None:
    folder = RolloutFolder(tmp_path)
    facts = {
        "release": "/" + "very/long/" * 20,
        "manifest": "ab" * 32,
        "approver": "B. Second",
        "approver_key": "cd" * 32,
    }
    record(folder, "approve", stage="approved", **facts)
    state = record(folder, "stage", stage="canary 25", reason="gates " * 40)
    log = LineLog(folder.requests)
    for number in range(200):
        challenger = number % 50 < 10
        log.append(
            line(number, variant="challenger" if challenger else "champion", seconds=0.25 if challenger else 0.125)
        )
    log.append(line(3, variant="champion"))
    log.append(line(3, variant="challenger", error="gone"))
    for shadow in (False, True):
        log.append(line(201, stage="shadow", variant="challenger" if shadow else "champion", shadow=shadow))
    text = table(folder, state)
    assert max(map(len, text.split("\n"))) <= 80
    rows = [row.split("  ") for row in text.split("\n")[-4:]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert [row[:3] for row in cells] == [
        ["shadow", "(challenger)", "1"],
        ["shadow", "champion", "1"],
        ["canary 25", "challenger", "41"],
        ["canary 25", "champion", "161"],
    ]
    assert cells[2][3:] == ["20 [11.2, 33]", "2.4 [0.4, 12.6]", "0.250"]
    assert cells[0][3] == "-"


def test_a_roll_out_before_its_first_request_has_a_table_without_rows(tmp_path: Path) -> None:
    folder = RolloutFolder(tmp_path)
    state = record(folder, "approve", stage="approved", release="r", manifest="m", approver="B", approver_key="k")
    assert table(folder, state).split("\n")[-1].split()[0] == "stage"
