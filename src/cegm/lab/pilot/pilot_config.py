"""`PilotConfig`: what a pilot shall decide, from a file of which three lines suffice: task, data, and what a right answer is worth."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from cegm.lab.baselines import REFERENCE, SUBJECT, require_method
from cegm.lab.compare.compare_config import ManyRuns, listed, seeds_of
from cegm.lab.declarations import option
from cegm.lab.pilot.money import Money
from cegm.lab.train.run_config import RunConfig, from_mapping
from cegm.spelling import nearest

BASE_MODEL = "base"
"""The model as it is, which `against` may name."""

KPIS: dict[str, tuple[str, ...]] = {
    "faq": ("chosen", "embedded"),
    "search": ("chosen", "embedded"),
    "summaries": ("rouge", "likeness"),
}
"""Measures that a pilot may be decided by, the usual one first; `cegm.lab.tasks.company` tells what they are."""

OF_PRESETS: dict[str, dict[str, Any]] = {
    "full": {"items": 400, "max_steps": 100},
    "lite": {"items": 100, "max_steps": 40, "seeds": "5"},
}
"""What is taken where nothing is given: `lite` is meant to end within an hour on two cores, and says what it cannot see."""

USUAL: dict[str, Any] = {"model_name_or_path": "smollm2", "lora_r": 16, "eval_steps": 0}
"""How runs train where nothing is given, for every task; validations on the way would cost as much as the training."""

ROWS: dict[str, dict[str, int]] = {
    "faq": {"max_length": 64, "per_device_train_batch_size": 8, "eval_rows": 64},
    "search": {"max_length": 384, "per_device_train_batch_size": 2, "eval_rows": 16},
    "summaries": {"max_length": 384, "per_device_train_batch_size": 2, "eval_rows": 16},
}

NOT_FIXED = ("output_dir", "data", "processes", "launcher", "title", "applicant", "approver", "preset")
"""What may change after the fix: where things lie (rows are known by their hashes), who signs, and what the preset has become."""


@dataclass
class PilotConfig(ManyRuns):
    """One pilot. Every field is a flag of `cegm pilot` and a name in its file; the flags of `cegm train` say how its runs train.

    Raises:
        ValueError: In one line, for anything that could not run or decide.
    """

    SHARED: ClassVar = tuple(name for name in ManyRuns.SHARED if name not in ("data", "validation_data"))

    task: str = option("", "search, faq or summaries")
    data: str = option("", "your rows: a .jsonl file, a folder with train.jsonl and test.jsonl, or the public sets")
    value: float = option(0.0, "what a right answer in place of a wrong one is worth", low=0)
    preset: Literal["full", "lite"] = option("full", "lite: fewer items, steps and seeds, an hour on two cores")
    kpi: str = option("", "what decides (default: chosen; of summaries, rouge)")
    smallest_worthwhile: float = option(
        0.01, "effect below which nothing is to be changed, a share of right answers", low=0, high=1, above=True
    )
    spread: float = option(
        0.01, "standard deviation over seeds of the paired difference, for the number of seeds", low=0, above=True
    )
    seeds: str = option("", "how many seeds, or which (default: what finds twice the smallest worthwhile effect)")
    items: int = option(None, "questions, fixed before anything runs", low=10)
    methods: str = option(f"{REFERENCE},{SUBJECT}", "methods that are trained")
    method: str = option(SUBJECT, "the method that would be adopted")
    against: str = option(REFERENCE, f"what it has to beat: a method, or {BASE_MODEL}, the model as it is")
    requests_per_month: float = option(10_000.0, "requests a month", low=0, above=True)
    horizon_months: float = option(12.0, "months that count", low=0, above=True)
    cost_per_request: float = option(0.0, "what a request costs more than today")
    cost_once: float = option(0.0, "what is paid once, besides computing")
    price_per_hour: float = option(50.0, "price of an hour of one process", low=0)
    currency: str = option("JPY", "of all these")
    withdrawal: str = option("", "when it is taken back (default: a sentence with the numbers of this pilot)")
    owner: str = option("", "who answers for it")
    title: str = option("", "subject of the page")
    applicant: str = option("", "who asks")
    approver: str = option("", "who decides")
    output_dir: str = option("runs/pilot", "folder of the pilot")
    own: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in KPIS:
            raise ValueError(f"task={self.task!r} is none of {', '.join(KPIS)}; {nearest(self.task, KPIS)}")
        if not self.data:
            raise ValueError("which data? give a .jsonl file, a folder with train.jsonl and test.jsonl, or public sets")
        if self.value <= 0:
            raise ValueError(f"value={self.value:g}: what is a right answer worth? give more than 0")
        preset = OF_PRESETS.get(self.preset, {})
        self.items = preset.get("items") if self.items is None else self.items
        self.seeds = self.seeds or preset.get("seeds", "")
        self.kpi = self.kpi or KPIS[self.task][0]
        if self.kpi not in KPIS[self.task]:
            raise ValueError(f"kpi={self.kpi!r} is no measure of {self.task}; use one of {', '.join(KPIS[self.task])}")
        super().__post_init__()
        usual = {**USUAL, "max_steps": preset["max_steps"], **ROWS[self.task]}
        if "num_train_epochs" in self.shared:
            del usual["max_steps"]
        self.shared = {**usual, **self.shared}
        for method in self.method_list:
            require_method(method)
            self.run(method)
        for name in (self.method, *([] if self.against == BASE_MODEL else [self.against])):
            if name not in self.method_list:
                raise ValueError(f"{name!r} is judged but not trained; add it to methods={self.methods!r}")
        if self.method == self.against:
            raise ValueError(
                f"against={self.against!r} is the method itself; compare with another, or with {BASE_MODEL}"
            )
        if not self.seeds:
            from cegm.lab.pilot.design import proposed_seeds  # which needs scipy, and help does not

            self.seeds = str(proposed_seeds(self.smallest_worthwhile, self.money().break_even_effect, self.spread))
        if len(self.seed_list) < 2:
            raise ValueError(f"seeds={self.seeds!r} leaves nothing to judge by; take at least 2")

    @property
    def method_list(self) -> list[str]:
        """Methods in the order given, each once."""
        return listed(self.methods)

    @property
    def seed_list(self) -> list[int]:
        """Seeds, a single number without a comma counts them from 0."""
        return seeds_of(self.seeds)

    def run(self, method: str) -> RunConfig:
        """The configuration of a run of one method, up to its seed and folder."""
        values = {**self.shared, **self.own.get(method, {}), "method": method, "data": self.data}
        return from_mapping(values, "cegm pilot")

    @property
    def requests(self) -> float:
        """Over the whole horizon."""
        return self.requests_per_month * self.horizon_months

    def money(self, computing: float = 0.0) -> Money:
        """What effects are worth, with what computing costs once beside the rest."""
        return Money(self.value, self.requests, self.cost_per_request, self.cost_once + computing)

    @property
    def criteria(self) -> dict[str, Any]:
        """What is fixed, as plain values."""
        fixed = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in NOT_FIXED}
        return {**fixed, "seeds": ",".join(map(str, self.seed_list))}
