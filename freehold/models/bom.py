"""What a version is made of, as a CycloneDX 1.6 bill of materials for machine learning. Pure."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from freehold.models.registry import Version
from freehold.store.versions import Artifact

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
TASKS = MappingProxyType(
    {
        "chat": "text-generation",
        "completion": "text-generation",
        "embedding": "feature-extraction",
        "rerank": "text-ranking",
    }
)
SPDX = MappingProxyType(
    {
        name.lower(): name
        for name in (
            "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "GPL-2.0-only", "GPL-3.0-only",
            "AGPL-3.0-only", "LGPL-3.0-only", "MPL-2.0", "ISC", "Unlicense", "CC0-1.0",
            "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0",
        )
    }
)  # fmt: skip
"""Licences that models come under and SPDX has an id for; others are given by name."""


def bill(
    version: Version, signers: Sequence[str], made_by: str, doubted: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the bill of materials; the same version gives the same document.

    ``signers`` are those of the signatures that hold, ``made_by`` is our own version; ``doubted``
    says of the other signatures why they do not count here.
    """
    row = version.row
    own = f"model:{row.model}:{row.number}"
    files = [_file(own, artifact) for artifact in version.artifacts]
    bases = [_base(dependency.target, dependency.target_number, dependency.kind)
             for dependency in version.dependencies
             if dependency.kind in ("base", "parent", "adapter")]  # fmt: skip
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"freehold:{own}:{row.digest}")
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": _time(row.created),
            "tools": {
                "components": [{"type": "application", "name": "freehold", "version": made_by}]
            },
            "component": _model(version, own, bases, signers, doubted),
        },
        "components": [*files, *bases],
        "dependencies": [
            {"ref": own, "dependsOn": [each["bom-ref"] for each in (*files, *bases)]},
            *({"ref": each["bom-ref"]} for each in (*files, *bases)),
        ],
    }


def _model(
    version: Version,
    own: str,
    bases: Sequence[dict[str, Any]],
    signers: Sequence[str],
    doubted: Sequence[str],
) -> dict[str, Any]:
    row, manifest = version.row, version.manifest
    facts = {
        "format": row.format,
        "parameters": manifest.parameters,
        "quantisation": manifest.quantisation,
        "bits-per-weight": round(manifest.bits_per_weight, 3),
        "context": manifest.context,
        "bytes": row.bytes,
        "imported-by": row.created_by,
        "tokenizer-sha256": manifest.tokenizer.sha256 if manifest.tokenizer else None,
    }
    properties = [{"name": f"freehold:{k}", "value": str(v)} for k, v in facts.items() if v]
    properties += [{"name": "freehold:signed-by", "value": each} for each in signers]
    properties += [{"name": "freehold:signature-that-does-not-count", "value": each}
                   for each in doubted]  # fmt: skip
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": own,
        "name": row.model,
        "version": str(row.number),
        "hashes": [{"alg": "SHA-256", "content": row.digest}],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "self-supervised"},
                "task": TASKS[manifest.task],
                "architectureFamily": "transformer",
                "modelArchitecture": manifest.architecture,
                "inputs": [{"format": "text"}],
                "outputs": [
                    {"format": "text" if TASKS[manifest.task] == "text-generation" else "number"}
                ],
            }
        },
        "externalReferences": [
            {"type": "distribution", "url": _address(row.resolved), "comment": "where it came from"}
        ],
        "properties": properties,
    }
    if row.licence:
        found["licenses"] = [{"license": _licence(row.licence)}]
    if bases:
        ancestors = [{k: v for k, v in each.items() if k != "bom-ref"} for each in bases]
        found["pedigree"] = {"ancestors": ancestors}
    return found


def _file(own: str, artifact: Artifact) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"{own}/{artifact.name}",
        "name": artifact.name,
        "hashes": [{"alg": "SHA-256", "content": artifact.digest}],
        "properties": [{"name": "freehold:bytes", "value": str(artifact.bytes)}],
    }


def _base(name: str, number: int | None, kind: str) -> dict[str, Any]:
    version = {"version": str(number)} if number is not None else {}
    return {
        "type": "machine-learning-model",
        "bom-ref": f"{kind}:{name}" + (f":{number}" if number is not None else ""),
        "name": name,
        **version,
    }


def _licence(text: str) -> dict[str, str]:
    known = SPDX.get(text.lower())
    return {"id": known} if known else {"name": text}


def _address(resolved: str) -> str:
    """Return where a version came from as an address: a path becomes that of a file."""
    # Odd letters are what addresses may not hold: a reader would refuse the whole document.
    text = "".join(
        letter if (letter.isascii() and letter.isalnum()) or letter in "-._~:/@#,+=" else f"%{byte}"
        for letter in resolved
        for byte in [letter.encode("utf-8", "replace").hex("%").upper()]
    ).replace("%%", "%")
    head, hash_, tail = text.partition("#")
    text = head + hash_ + tail.replace("#", "%23")
    return f"file://{text}" if text.startswith("/") else text


def _time(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
