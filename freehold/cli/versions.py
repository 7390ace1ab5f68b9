"""Which version is meant by ``NAME``, ``NAME:NUMBER`` or ``NAME:ALIAS``."""

from typing import Any

from freehold.cli.client import Client, part
from freehold.errors import Missing


def resolve(client: Client, name: str) -> tuple[str, int]:
    """Return a model's name and a version's number."""
    model_name, _, label = name.partition(":")
    found = client.get(f"/api/models/{part(model_name)}")
    return model_name, number_of(found, label or "production")


def path_of(client: Client, name: str) -> tuple[str, str]:
    """Return (``NAME:NUMBER``, the version's path in the API)."""
    model_name, number = resolve(client, name)
    return f"{model_name}:{number}", f"/api/models/{part(model_name)}/versions/{number}"


def number_of(found: dict[str, Any], label: str) -> int:
    """Return the number that a label means among a model's versions."""
    numbers = [version["number"] for version in found["versions"]]
    number = int(label) if label.isdigit() else found["aliases"].get(label)
    if number not in numbers:
        aliases = ", ".join(found["aliases"])
        raise Missing(
            "missing.version",
            f"{found['name']} has no version {label}: there is {', '.join(map(str, numbers))}"
            + (f", and {aliases}" if aliases else ""),
        )
    return int(number)
