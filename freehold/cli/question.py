"""What a question asks a model with, so that the same question brings the same answer again."""

from typing import Any

SYSTEM = "You are a helpful assistant."
"""Small models babble without being told who they are."""


def messages(prompt: str, system: str = SYSTEM) -> list[dict[str, Any]]:
    """Return the conversation that asks ``prompt``; an empty ``system`` is left out."""
    told = [{"role": "system", "content": system}] if system else []
    return [*told, {"role": "user", "content": prompt}]
