"""What can name a model, a deployment, an alias."""

import re

from freehold.errors import Invalid

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


def check_alias(alias: str) -> None:
    """Raise ``Invalid`` unless this can name an alias."""
    if alias.isdecimal():
        raise Invalid("invalid.alias", "an alias is a name, not a number", param="alias")
    check_name(alias)


def check_name(name: str) -> None:
    """Raise ``Invalid`` unless this can name a model, a deployment or an alias."""
    if not NAME.fullmatch(name):
        raise Invalid(
            "invalid.name",
            f"{name!r:.140} cannot be a name: use a-z, 0-9, '.', '_' and '-', at most 128",
            param="name",
        )


def suggest_name(text: str) -> str:
    """Turn a file name or a title into a name."""
    lowered = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return lowered[:128] or "model"


def is_number(label: str) -> bool:
    """Say whether a label means a version by its number."""
    return label.isascii() and label.isdigit() and len(label) <= 9
