"""`bom.cdx.json`: the model, what it was made of and with, and its model card, as CycloneDX 1.6."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

try:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.contact import OrganizationalEntity
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from packageurl import PackageURL
except ImportError as error:
    raise ImportError(f"{error.name} is not installed and the bill needs it: pip install 'cegm[audit]'") from error

from cegm.lab.release.evidence import NOT_PROVIDED, Evidence

MODEL, DATA, BASE = "model", "data", "base"
"""References of components."""

LIMITS = (
    "What the model says may be wrong; nothing here measures it on a purpose of yours unless evidence/verdict.json does.",
    "Losses are of text that was held out of training.",
)
"""Known of every model that is trained here."""


def bill(evidence: Evidence) -> str:
    """The bill as JSON, which the official schema takes.

    The library knows no model card, so it is put into what the library writes.
    """
    model, parts = _model(evidence), [*_materials(evidence), *_files(evidence), *_software(evidence)]
    bom = Bom(components=parts)
    bom.metadata.component = model
    bom.register_dependency(model, parts)
    described = json.loads(JsonV1Dot6(bom).output_as_string())
    described["metadata"]["component"]["modelCard"] = _card(evidence)
    text = json.dumps(described, indent=1)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert fault is None, fault
    return text + "\n"


def _model(evidence: Evidence) -> Component:
    operator = evidence.config.get("operator")
    final = evidence.finish.final_hash
    return Component(
        name=evidence.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=MODEL,
        version=final[:16],
        manufacturer=OrganizationalEntity(name=operator) if operator else None,
        properties=_properties(
            operator=evidence.said("operator"),
            final_weights=final,
            chain_end=evidence.end,
            code=evidence.described.hashes.code,
            hardware=evidence.described.hardware,
        ),
    )


def _materials(evidence: Evidence) -> Iterator[Component]:
    """The text, and the weights that the run began with."""
    config, hashes = evidence.config, evidence.described.hashes
    licence = config.get("data_licence")
    yield Component(
        name=str(config.get("data")),
        type=ComponentType.DATA,
        bom_ref=DATA,
        description="the hash is over the documents as they were read, in their order, not over a file",
        hashes=[_sha256(hashes.data)],
        licenses=[DisjunctiveLicense(name=licence)] if licence else (),
        properties=_properties(source=evidence.said("data_source"), licence=evidence.said("data_licence")),
    )
    yield Component(
        name=str(config.get("model_name_or_path")),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=BASE,
        description="weights before the first step; the hash is over their names, shapes and values",
        properties=_properties(initial_weights=hashes.initial_weights),
    )


def _files(evidence: Evidence) -> Iterator[Component]:
    for name, digest in sorted(evidence.files.items()):
        yield Component(name=name, type=ComponentType.FILE, bom_ref=name, hashes=[_sha256(digest)])


def _software(evidence: Evidence) -> Iterator[Component]:
    for name, version in evidence.described.versions.items():
        python = name == "python"
        yield Component(
            name=name,
            version=version,
            type=ComponentType.PLATFORM if python else ComponentType.LIBRARY,
            bom_ref=f"software/{name}",
            purl=None if python else PackageURL("pypi", name=name, version=version),
        )


def _card(evidence: Evidence) -> dict[str, Any]:
    result = evidence.run.result
    losses = [("loss", "nats per token"), ("bits_per_byte", "bits per byte")]
    metrics: list[dict[str, Any]] = [
        {"type": f"validation {name}, {unit}", "value": repr(result[name])}
        for name, unit in losses
        if result.get(name) is not None
    ]
    for title, found in evidence.judged():
        entry: dict[str, Any] = {"type": title, "value": repr(found.effect), "slice": " against ".join(found.pair)}
        if found.interval is not None:
            low, high = map(repr, found.interval)
            entry["confidenceInterval"] = {"lowerBound": low, "upperBound": high}
        metrics.append(entry)
    return {
        "modelParameters": {
            "approach": {"type": "self-supervised"},
            "task": "text-generation",
            "datasets": [{"ref": DATA}],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {"technicalLimitations": list(LIMITS)},
        "properties": [
            {
                "name": f"cegm:option:{name}",
                "value": NOT_PROVIDED if value is None else json.dumps(value, ensure_ascii=False),
            }
            for name, value in evidence.config.items()
        ],
    }


def _properties(**values: Any) -> list[Property]:
    return [
        Property(name=f"cegm:{name}", value=NOT_PROVIDED if value is None else str(value))
        for name, value in values.items()
    ]


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)
