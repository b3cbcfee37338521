"""Context cards: what the layers of a model have seen before, in one file.

A card keeps, for every weight, its home contexts `S = E[c c^T]` and on request its home demands `T = E[d d^T]`: the leading
directions, and one mean for all others. Weights with the same inputs share what they share.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cegm.durable import write_whole

FORMAT = "cegm context card 1"

WRAPPED = re.compile(r"(?:^|(?<=\.))(?:base_model\.model|module|_orig_mod|_checkpoint_wrapped_module|base_layer)\.")
"""What wrappers put into the names of a model's weights."""

ADAPTER = re.compile(r"\.lora_([AB])\.[^.]+")

ALIKE = 0.5
"""Correlation of sampled weights above which two models are one model and what training made of it; of strangers it is near 0."""

RELATED = "make one of this model: cegm card"


class Spectrum(NamedTuple):
    """A second moment `U diag(s) U^T + s0 (I - U U^T)`, or one per block of a block-diagonal one.

    Attributes:
        vectors: `U`, shape (..., width, directions), orthonormal columns.
        values: `s`, shape (..., directions), the largest first.
        rest: `s0`, shape (...), the mean of all other eigenvalues.
    """

    vectors: Tensor
    values: Tensor
    rest: Tensor

    @property
    def width(self) -> int:
        """Features of one block."""
        return self.vectors.shape[-2]

    @property
    def mean(self) -> Tensor:
        """`tr(S)/n`, shape (...)."""
        return (self.values.sum(-1) + (self.width - self.values.shape[-1]) * self.rest) / self.width

    def dense(self) -> Tensor:
        """The whole matrix, shape (..., width, width)."""
        identity = torch.eye(self.width, device=self.vectors.device) * self.rest[..., None, None]
        return identity + (self.vectors * (self.values - self.rest[..., None])[..., None, :]) @ self.vectors.mT

    def energy(self, direction: Tensor) -> Tensor:
        """`tr(D S D^T) / (|D|^2 tr(S)/n)`: 1 for a random direction (outputs, width), more for one that lies where `S` is large."""
        along = (direction @ self.vectors).square().sum(-2)  # (directions,)
        total = direction.square().sum()
        return (self.rest * total + ((self.values - self.rest) * along).sum()) / (total * self.mean)


def spectrum(second_moment: Tensor, directions: int) -> Spectrum:
    """The leading directions of symmetric positive semi-definite matrices, (..., width, width), and the mean of the rest."""
    values, vectors = torch.linalg.eigh(second_moment.double())
    values, width = values.clamp_min(0), second_moment.shape[-1]
    left = width - directions
    rest = values[..., :left].mean(-1) if left else torch.zeros(values.shape[:-1], dtype=values.dtype)
    leading = (vectors[..., left:].flip(-1), values[..., left:].flip(-1), rest.to(values.device))
    return Spectrum(*(each.float() for each in leading))


@dataclass(frozen=True)
class ContextCard:
    """Home contexts of a model.

    Attributes:
        contexts: `S` by name of the weight as in the bare model, one block; of a mixture `name[expert]`.
        demands: `T` by name, in blocks, where they were gathered.
        samples: A few entries of every weight: by them a card knows its model.
        homes: Where each of the summed cards comes from, as whoever made it said it.
    """

    contexts: Mapping[str, Spectrum]
    demands: Mapping[str, Spectrum]
    samples: Mapping[str, Tensor]
    homes: tuple[Mapping[str, Any], ...]

    @property
    def hash(self) -> str:
        """What tells cards apart, 16 hex digits: sha256 over all eigenvalues, which a file keeps to the bit."""
        lines = [hash_of(self.samples)]
        for kind in (self.contexts, self.demands):
            lines += [f"{name} {e.values.double().sum()} {e.rest.sum()}" for name, e in sorted(kind.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def require_of(self, weights: Mapping[str, Tensor]) -> None:
        """Raises ValueError unless the model with these weights is the card's own, or what training made of it.

        Args:
            weights: Whole weights by bare name.
        """
        theirs = {name: sampled(weight) for name, weight in weights.items()}
        if self._is_kin(theirs):
            return
        hashes = [hash_of(self.samples), hash_of(theirs)]
        raise ValueError(
            f"the context card is of model {hashes[0]}, and this is model {hashes[1]}, which is no offspring of it; {RELATED}"
        )

    def __add__(self, other: ContextCard) -> ContextCard:
        """The card of both homes, `S = S_1 + S_2`, each with as many directions as the finer of the two.

        Raises:
            ValueError: They are of different models.
        """
        if self.contexts.keys() != other.contexts.keys() or self.demands.keys() != other.demands.keys():
            raise ValueError(
                f"cards of models {hash_of(self.samples)} and {hash_of(other.samples)} have other layers and cannot be added"
            )
        if not self._is_kin(other.samples):
            raise ValueError(
                f"cards of models {hash_of(self.samples)} and {hash_of(other.samples)} cannot be added: they are no kin"
            )
        kinds = ((self.contexts, other.contexts), (self.demands, other.demands))
        contexts, demands = (_added(mine, theirs) for mine, theirs in kinds)
        return ContextCard(contexts, demands, self.samples, (*self.homes, *other.homes))

    def _is_kin(self, samples: Mapping[str, Tensor]) -> bool:
        """Whether weights with these samples are those of the card's model, or have come of the same ones."""
        names = sorted(self.samples.keys() & samples.keys())
        if not names or any(self.samples[name].shape != samples[name].shape for name in names):
            return False
        return _correlation([self.samples[name] for name in names], [samples[name] for name in names]) >= ALIKE

    def save(self, path: str | Path) -> Path:
        """Writes one safetensors file."""
        return write_whole(Path(path), self.content())

    def content(self) -> bytes:
        """The card as a safetensors file holds it, directions in bfloat16."""
        save = _safetensors().torch.save
        places: dict[int, int] = {}
        tensors: dict[str, Tensor] = {}
        kinds: dict[str, dict[str, int]] = {}
        for kind, entries in (("contexts", self.contexts), ("demands", self.demands)):
            kinds[kind] = {}
            for name, entry in entries.items():
                number = places.setdefault(id(entry), len(places))
                kinds[kind][name] = number
                parts = (entry.vectors.bfloat16(), entry.values, entry.rest)
                tensors |= {
                    f"{number}.{part}": t.cpu().contiguous() for part, t in zip(entry._fields, parts, strict=True)
                }
        tensors |= {f"sample.{name}": sample for name, sample in self.samples.items()}
        about = {"format": FORMAT, "homes": json.dumps(self.homes), **{k: json.dumps(v) for k, v in kinds.items()}}
        content: bytes = save(tensors, metadata=about)
        return content

    @classmethod
    def load(cls, path: str | Path) -> ContextCard:
        """Reads a card; errors are those of `of_content`, and OSError."""
        return cls.of_content(Path(path).read_bytes(), str(path))

    @classmethod
    def of_content(cls, content: bytes, place: str) -> ContextCard:
        """The card that a file holds.

        Args:
            content: Of the file.
            place: Where it lies, which begins the error message.

        Raises:
            ValueError: It is damaged, or no card.
        """
        module = _safetensors()
        try:
            tensors, about = module.torch.load(content), _metadata(content)
            if about.get("format") != FORMAT:
                raise ValueError(f"its format is {about.get('format')!r} and not {FORMAT!r}")
            kinds = [json.loads(about[kind]) for kind in ("contexts", "demands")]
            entries = {number: _entry(tensors, number) for kind in kinds for number in kind.values()}
            contexts, demands = ({name: entries[number] for name, number in kind.items()} for kind in kinds)
            samples = {name.removeprefix("sample."): t for name, t in tensors.items() if name.startswith("sample.")}
            return cls(contexts, demands, samples, tuple(json.loads(about["homes"])))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, module.SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{place} is no whole context card ({reason}); make it again: cegm card") from None


def bare_name(name: str) -> tuple[str, str]:
    """A weight's name without what wrappers and adapters add, and which factor of an adapter it is: `A`, `B` or none."""
    factor = ADAPTER.search(name)
    return WRAPPED.sub("", ADAPTER.sub("", name)), factor[1] if factor else ""


def sampled(weight: Tensor, count: int = 16) -> Tensor:
    """Entries of a weight at equal distances, shape (count,) or fewer."""
    flat = weight.detach().flatten()
    places = torch.arange(0, flat.numel(), max(1, flat.numel() // count), device=flat.device)[:count]
    return flat[places].float().cpu()


def hash_of(samples: Mapping[str, Tensor]) -> str:
    """By which a person tells models apart, 16 hex digits."""
    lines = (f"{name} {sample.tolist()}" for name, sample in sorted(samples.items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _correlation(mine: list[Tensor], theirs: list[Tensor]) -> float:
    """Over all samples, each weight's brought to the same size, so that none outweighs the others."""
    first, second = (torch.cat([s / s.norm().clamp_min(1e-30) for s in each]).double() for each in (mine, theirs))
    return float(first @ second / (first.norm() * second.norm()))


def _added(mine: Mapping[str, Spectrum], theirs: Mapping[str, Spectrum]) -> dict[str, Spectrum]:
    sums: dict[tuple[int, int], Spectrum] = {}
    for name, a in mine.items():
        b = theirs[name]
        if (id(a), id(b)) not in sums:
            sums[id(a), id(b)] = spectrum(a.dense() + b.dense(), max(a.values.shape[-1], b.values.shape[-1]))
    return {name: sums[id(a), id(theirs[name])] for name, a in mine.items()}


def _entry(tensors: Mapping[str, Tensor], number: int) -> Spectrum:
    vectors, values, rest = (tensors[f"{number}.{part}"].float() for part in Spectrum._fields)
    if vectors.shape[-1:] != values.shape[-1:] or vectors.shape[:-2] != rest.shape:
        raise ValueError(f"the shapes of entry {number} do not belong together")
    if not all(bool(t.isfinite().all()) for t in (vectors, values, rest)):
        raise ValueError(f"entry {number} is not finite")
    return Spectrum(torch.linalg.qr(vectors).Q, values, rest)  # bfloat16 has left the columns not quite orthogonal


def _metadata(content: bytes) -> dict[str, str]:
    """What a safetensors file says of itself, which the library tells of files alone."""
    size = int.from_bytes(content[:8], "little")
    about: dict[str, str] = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    return about


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError("context cards are safetensors files: pip install safetensors") from None
    return safetensors
