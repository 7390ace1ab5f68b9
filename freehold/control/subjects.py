"""Whom does somebody mean, who names nobody's kind? ``bob`` may be a principal, a team, a key."""

from collections.abc import Iterable

from freehold.control.keys import KeyView
from freehold.errors import Invalid
from freehold.policy.quotas import SCOPES


def check_kind(text: str, keys: Iterable[KeyView], deployments: Iterable[str]) -> None:
    """Raise ``Invalid`` for a name without a kind; it says which kinds there are of that name."""
    if ":" in text:
        return
    held = [key for key in keys if key.state == "live"]
    there: dict[str, set[str | None]] = {
        "key": {key.id for key in held},
        "principal": {key.principal for key in held},
        "team": {key.team for key in held},
        "deployment": {*deployments},
    }
    meant = [f"{scope}:{text}" for scope in SCOPES if text and text in there[scope]]
    # Nobody knows a key's id by heart; its principal is what people call it.
    meant += [f"key:{key.id}" for key in held if meant and key.principal == text]
    guess = f"; did you mean {' or '.join(meant)}?" if meant else ""
    raise Invalid(
        "invalid.limit",
        f"{text!r:.80} does not say what it is: write key:ID, principal:NAME, team:NAME or "
        f"deployment:NAME{guess}",
        param="of",
    )
