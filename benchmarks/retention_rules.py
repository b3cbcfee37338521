"""What benchmarks/retention.py compares: rules against forgetting, each with the learning rates of its front."""

from __future__ import annotations

from typing import Any

ADAM = {"normalize": "adam", "gradient_power": 0, "row_moment": False, "nesterov": False, "aux_betas": (0.9, 0.999)}
MUON = {"gradient_power": 0, "row_moment": False, "entanglement": 0.05}
SLOW, FAST = (1e-4, 3e-4, 1e-3, 3e-3), (3e-4, 1e-3, 3e-3, 1e-2)
SLOW_KEPT, FAST_KEPT = (3e-4, 1e-3, 3e-3, 6e-3), (1e-3, 3e-3, 1e-2, 2e-2)
SLOW_LORA, FAST_LORA = (1e-3, 3e-3, 1e-2, 3e-2), (3e-3, 1e-2, 3e-2, 1e-1)
BETAS = {"betas": (0.9, 0.999)}
RANK, LORA_ALPHA = 8, 16
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MIXES = (0.3, 0.5, 0.7, 0.9)
DAMPINGS = (0.001, 0.1, 1.0)
WRITTEN: dict[str, dict[str, Any]] = {
    "own": {}, "cool": {"temperature": 0.7}, "warm": {"temperature": 1.4}, "letters": {"letters": True},
}  # fmt: skip
"""How the model writes text for a card."""


RULES: dict[str, dict[str, Any]] = {
    "adamw": {"rates": SLOW, "options": ADAM},
    "muon": {"rates": FAST, "options": MUON},
    "cegm": {"rates": FAST, "options": {}},
    "replay_5": {"rates": SLOW, "options": ADAM, "replay": 0.05},
    "replay_12": {"rates": SLOW, "options": ADAM, "replay": 0.125},
    "adam_own": {"rates": SLOW_KEPT, "options": ADAM, "card": "own"},
    "muon_own": {"rates": FAST_KEPT, "options": MUON, "card": "own"},
    "cegm_own": {"rates": FAST_KEPT, "options": {}, "card": "own"},
    "adam_home": {"rates": SLOW_KEPT, "options": ADAM, "card": "home"},
    "muon_home": {"rates": FAST_KEPT, "options": MUON, "card": "home"},
    **{f"adam_rows_{n}": {"rates": SLOW_KEPT, "options": ADAM, "card": "own", "count": n} for n in (3, 12, 192)},
    **{f"adam_{kind}": {"rates": SLOW_KEPT, "options": ADAM, "card": kind} for kind in ("cool", "warm", "letters")},
    **{f"adam_share_{n}": {"rates": SLOW_KEPT, "options": ADAM, "card": "own", "share": n / 100} for n in (6, 25)},
    **{
        f"adam_damped_{n}": {"rates": SLOW_KEPT, "options": {**ADAM, "retain_damping": n}, "card": "own"}
        for n in DAMPINGS
    },
    "adam_demands": {
        "rates": SLOW_KEPT,
        "options": {**ADAM, "retain_gradient_power": 1},
        "card": "own",
        "demands": True,
    },
    "muon_quarter": {"rates": FAST_KEPT, "options": MUON, "card": "own", "share": 0.25},
    "muon_new": {"rates": FAST_KEPT, "options": MUON, "card": "new"},
    "muon_rotated": {"rates": FAST_KEPT, "options": MUON, "card": "rotated"},
    "muon_exchanged": {"rates": FAST_KEPT, "options": MUON, "card": "exchanged"},
    "muon_own_replay_5": {"rates": FAST_KEPT, "options": MUON, "card": "own", "replay": 0.05},
    **{f"l2_sp_{k}": {"rates": SLOW, "method": "l2_sp", "options": {**BETAS, "pull": k}} for k in (3, 10, 30, 100)},
    **{
        f"ewc_{k}": {"rates": SLOW, "method": "ewc", "options": {**BETAS, "penalty": k}, "fisher": "own"}
        for k in (1, 10, 100, 1000)
    },
    "wise_ft": {"rates": SLOW, "options": ADAM, "mixes": MIXES},
    **{
        f"muon_own_pull_{k}": {"rates": FAST_KEPT, "options": {**MUON, "retain_pull": k}, "card": "own"}
        for k in (1, 10)
    },
    **{
        f"muon_pull_{k}": {"rates": FAST, "options": {**MUON, "retain_power": 0, "retain_pull": k}, "card": "own"}
        for k in (1, 10, 100)
    },
    "lora_adamw": {"rates": SLOW_LORA, "options": ADAM, "lora": RANK},
    "lora_muon": {"rates": FAST_LORA, "options": MUON, "lora": RANK},
    "lora_null": {"rates": SLOW_LORA, "options": ADAM, "lora": RANK, "null": "own"},
    "lora_own": {"rates": SLOW_LORA, "options": ADAM, "lora": RANK, "card": "own"},
    "lora_muon_own": {"rates": FAST_LORA, "options": MUON, "lora": RANK, "card": "own"},
}
"""What is compared: a method, CEGM unless it says otherwise, and its options; the text of its card, whole unless a share says otherwise,
of its Fisher diagonal, or of the card that adapters begin away from; how many rows are home text; the rank of adapters."""
