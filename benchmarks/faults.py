"""One short run with one fault in it, in a process of its own: `cegm train`, or a plain transformers Trainer on the same model and rows.

The processes are forked from one that has imported torch and transformers, so that hundreds of runs take minutes. What a run says
of itself goes to a file; whether it died, its parent sees.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from cegm.context.layers import EntanglementLayer
from cegm.lab.train import audit, run
from cegm.lab.train.data import load_corpus
from cegm.lab.train.model import byte_tokenizer, weights_hash
from cegm.lab.train.prepare import quieten
from cegm.lab.train.rows import training_rows
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import RunTrainer

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["faults"])

STEPS, SAVE, LENGTH, ROWS = 12, 3, 32, 4
RATE = 1e-2
Way = tuple[int, str]
"""Processes of a run, and its `sharding`."""

ALONE: Way = (1, "ddp")
PATIENCE = 600.0
"""Seconds until a run counts as hanging."""


def write_model(folder: Path, width: int, layers: int, positions: int, dropout: float = 0.0) -> None:
    """A Llama of two heads with a byte tokenizer; `dropout` is that of its attention."""
    tokenizer = byte_tokenizer()
    set_seed(0)
    sizes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
    }
    own = {"max_position_embeddings": positions, "attention_dropout": dropout}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **own, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_parts(place: Path) -> None:
    """Model and text: dropout, so that random states matter; words in a seeded order."""
    write_model(place / "model", width=32, layers=2, positions=64, dropout=0.1)
    words = ["the", "river", "carries", "a", "small", "boat", "past", "old", "houses", "at", "night"]
    order = torch.randint(len(words), (2000,), generator=torch.Generator().manual_seed(7))
    (place / "text.txt").write_text(" ".join(words[index] for index in order.tolist()), encoding="utf-8")


def configuration(place: Path, folder: Path, resume: bool, sharding: str = "ddp") -> RunConfig:
    return RunConfig(
        model_name_or_path=str(place / "model"), data=str(place / "text.txt"), output_dir=str(folder), method="cegm", max_steps=STEPS,
        save_steps=SAVE, logging_steps=1, eval_steps=0, eval_rows=4, max_length=LENGTH, per_device_train_batch_size=ROWS,
        learning_rate=RATE, threads=1, progress=False, resume_from_checkpoint="latest" if resume else None,
        optimizer_options={"refresh_every": 2, "power": -0.5}, sharding=sharding,
    )  # fmt: skip


# ---------------------------------------------------------------------- the two sides


def with_cegm(place: Path, folder: Path, resume: bool, fault: dict[str, Any]) -> dict[str, Any]:
    """Trains with `cegm train`; returns hash and finiteness of the final weights."""
    before = RunTrainer.training_step

    def step(trainer: RunTrainer, *arguments: Any, **options: Any) -> Tensor:
        inject(fault, trainer.state.global_step + 1, trainer.model)
        return before(trainer, *arguments, **options)

    RunTrainer.training_step = step
    summary = run.train(configuration(place, folder, resume, fault["sharding"]))
    return {"weights": summary.final_hash, "finite": math.isfinite(summary.loss)}


class PlainTrainer(Trainer):
    """Transformers' own, with the fault."""

    fault: dict[str, Any]

    def training_step(self, *arguments: Any, **options: Any) -> Tensor:
        inject(self.fault, self.state.global_step + 1, self.model)
        return super().training_step(*arguments, **options)


class Steps(TrainerCallback):
    """Notes every finished step, as `metrics.jsonl` does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{state.global_step}\n")


def with_transformers(place: Path, folder: Path, resume: bool, fault: dict[str, Any]) -> dict[str, Any]:
    """Trains with the plain Trainer, AdamW and the defaults of its arguments; returns the hash of the final weights."""
    config = configuration(place, folder, False)
    rows = training_rows(load_corpus(config), byte_tokenizer(), LENGTH, STEPS * ROWS, 0).remove_columns("row")
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, save_steps=SAVE, per_device_train_batch_size=ROWS, learning_rate=RATE, seed=0,
        logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    set_seed(0)
    model = LlamaForCausalLM.from_pretrained(place / "model")
    collate: Callable[..., Any] = transformers.default_data_collator
    trainer = PlainTrainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Steps(folder / "steps.txt")]
    )
    trainer.fault = fault
    last = get_last_checkpoint(str(folder)) if resume else None
    trainer.train(resume_from_checkpoint=last)
    (folder / "losses.json").write_text(
        json.dumps([line["loss"] for line in trainer.state.log_history if "loss" in line]), encoding="utf-8"
    )
    finite = all(bool(p.isfinite().all()) for p in trainer.model.parameters())
    return {"weights": weights_hash(trainer.model), "finite": finite}


SIDES = {"cegm": with_cegm, "transformers": with_transformers}

# ---------------------------------------------------------------------- faults inside a run


def inject(fault: dict[str, Any], step: int, model: Any) -> None:
    """Does, before the forward pass of its step, what the fault says; on one rank, if it names one."""
    if step != fault.get("step") or str(fault.get("rank", 0)) != os.environ.get("RANK", "0"):
        return
    kind = fault["kind"]
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "kill":
        threading.Thread(target=_killed_after, args=(fault["seconds"],), daemon=True).start()
    if kind == "data":
        _once(model.get_input_embeddings().register_forward_hook, lambda module, given, output: output * float("nan"))
    if kind == "gradient":
        layer = next(module for name, module in model.named_modules() if name.endswith("layers.1.mlp.up_proj"))
        _once(layer.register_forward_hook, _spoil_gradient)
    if kind == "context":
        collect = EntanglementLayer.collect

        def spoilt(layer: EntanglementLayer) -> Any:
            means = collect(layer)
            EntanglementLayer.collect = collect
            return None if means is None else {name: mean * float("nan") for name, mean in means.items()}

        EntanglementLayer.collect = spoilt


def _spoil_gradient(module: Any, given: Any, output: Tensor) -> None:
    output.register_hook(lambda gradient: torch.full_like(gradient, float("nan")))


def _once(register: Callable[..., Any], change: Callable[..., Any]) -> None:
    def hook(*arguments: Any) -> Any:
        handle.remove()
        return change(*arguments)

    handle = register(hook)


def prepare_process(fault: dict[str, Any]) -> None:
    """Faults that lie outside the steps: a clock that jumps back a day."""
    if fault["kind"] == "clock":
        begun, now = time.monotonic(), time.time

        class Jumping(audit.datetime):
            @classmethod
            def now(cls, zone: Any = None) -> Any:
                return cls.fromtimestamp(time.time(), zone)

        time.time = lambda: now() - (86_400 if time.monotonic() - begun > fault["seconds"] else 0)
        audit.datetime = Jumping
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _killed_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


# ---------------------------------------------------------------------- processes


def start(
    side: str, place: Path, folder: Path, resume: bool, fault: dict[str, Any], rank: tuple[int, int, int] | None
) -> BaseProcess:
    process = CONTEXT.Process(target=_run, args=(side, place, folder, resume, fault, rank))
    process.start()
    return process


def _run(
    side: str, place: Path, folder: Path, resume: bool, fault: dict[str, Any], rank: tuple[int, int, int] | None
) -> None:
    if rank is not None:
        number, ranks, port = rank
        names = {
            "RANK": number,
            "LOCAL_RANK": number,
            "WORLD_SIZE": ranks,
            "LOCAL_WORLD_SIZE": ranks,
            "MASTER_PORT": port,
        }
        os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    quieten()
    said = place / f"said-{os.environ.get('RANK', '0')}.json"
    folder.mkdir(parents=True, exist_ok=True) if side == "transformers" else None
    begun = time.monotonic()
    prepare_process(fault)
    warned: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: warned.append(record.getMessage())
    logging.getLogger("cegm").addHandler(listener)
    try:
        found: dict[str, Any] = {"ended": True, **SIDES[side](place, folder, resume, fault)}
    except Exception as error:
        found = {"ended": False, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    said.write_text(json.dumps({**found, "warned": warned[:3], "seconds": time.monotonic() - begun}), encoding="utf-8")
    os._exit(0 if found["ended"] else 1)  # a gloo that lost its peer must not wait at the end


def outcome(
    side: str, place: Path, folder: Path, resume: bool = False, fault: dict[str, Any] | None = None, way: Way = ALONE
) -> dict[str, Any]:
    """Runs to the end of all processes; what each said, with its exit status, and `hanging` for those that had to be ended."""
    ranks, sharding = way
    fault = {"kind": "none", **(fault or {}), "sharding": sharding}
    for old in place.glob("said-*.json"):
        old.unlink()
    places = [None] if ranks == 1 else [(number, ranks, 29_500 + os.getpid() % 10_000) for number in range(ranks)]
    processes = [start(side, place, folder, resume, fault, rank) for rank in places]
    limit = time.monotonic() + PATIENCE
    found = []
    for number, process in enumerate(processes):
        process.join(max(0.1, limit - time.monotonic()))
        hanging = process.is_alive()
        if hanging:
            process.kill()
            process.join()
        said = place / f"said-{number}.json"
        told = json.loads(said.read_text(encoding="utf-8")) if said.exists() else {"ended": False}
        found.append({**told, "status": process.exitcode, "hanging": hanging})
    return found[0] if ranks == 1 else {"ranks": found}
