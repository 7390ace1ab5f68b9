"""May a model with this licence be used here? Pure: names and a policy in, a verdict out."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

from freehold.settings import Licences

Verdict = Literal["allow", "ask", "deny"]
_STRICT: tuple[Verdict, ...] = ("allow", "ask", "deny")
_SPLIT = re.compile(r"\s+(and|or|with)\s+|([,;&])|[()]", re.IGNORECASE)
_WORDS = ("and", "or", "with", ",", ";", "&")
_MOST, _LONGEST = 8, 200
_SAID_OTHERWISE = {
    "apache 2.0": "apache-2.0",
    "apache license 2.0": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache2": "apache-2.0",
    "apache license, version 2.0": "apache-2.0",
    "mit license": "mit",
    "the mit license": "mit",
    "gemma terms of use": "gemma",
}
UNTOLD = frozenset({"", "unknown", "none", "noassertion", "n/a"})


def plain(licence: str) -> str:
    """Return a licence's name in the one way it is compared."""
    name = re.sub(r"\s+", " ", licence.strip().lower())
    name = name.removeprefix("licenseref-").removesuffix("-only").removesuffix("-or-later")
    return _SAID_OTHERWISE.get(name, re.sub(r"[ _]+", "-", name))


def together(*told: object) -> str | None:
    """Return all that is said of a model's licence as one expression, None where nothing is.

    Texts and lists of texts are taken, anything else is no licence. Who says two things is held to
    both: ``mit AND gemma``. ``other`` counts only where nothing else is said.
    """
    each = [one for some in told for one in (some if isinstance(some, list) else [some])]
    names = [one for one in each if isinstance(one, str) and one.strip() and len(one) <= _LONGEST]
    known: dict[str, str] = {}
    for name in names:
        if plain(name) not in UNTOLD:
            known.setdefault(plain(name), name)
    if len(known) > 1:
        known.pop("other", None)
    parts = list(known.values())[:_MOST]
    if len(parts) < 2:
        return parts[0] if parts else None
    return " AND ".join(f"({part})" if _SPLIT.search(part) else part for part in parts)


def each_of(licence: str) -> list[str]:
    """Return the licences of an expression that all bind; of a choice, the whole of it."""
    parts = [part for part in _SPLIT.split(licence) if part and part.strip()]
    if any(part.strip().lower() == "or" for part in parts):
        return [licence]
    return [part.strip() for part in parts if part.strip().lower() not in _WORDS]


def judge(licences: Iterable[str | None], policy: Licences) -> Verdict:
    """Return the strictest verdict on what is said of a model's licence, by whoever said it."""
    told = [licence for licence in licences if licence and plain(licence) not in UNTOLD]
    if not told:
        return policy.unknown
    return max((_expression(licence, policy) for licence in told), key=_STRICT.index)


def _expression(text: str, policy: Licences) -> Verdict:
    """Judge an SPDX expression: of ``A OR B`` the user may choose, ``A AND B`` both bind."""
    whole = _one(text, policy)
    parts = [part for part in _SPLIT.split(text) if part and part.strip()]
    names = [part for part in parts if part.strip().lower() not in _WORDS]
    if len(names) < 2 or whole == "deny":
        return whole
    verdicts = [_one(name, policy) for name in names]
    choice = {part.strip().lower() for part in parts} & set(_WORDS) == {"or"}
    return (min if choice else max)(verdicts, key=_STRICT.index)


def _one(licence: str, policy: Licences) -> Verdict:
    name = plain(licence)
    if _is_among(name, policy.deny):
        return "deny"
    if _is_among(name, policy.ask):
        return "ask"
    if not policy.allow or _is_among(name, policy.allow):
        return "allow"
    return policy.others


def _is_among(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, plain(pattern)) for pattern in patterns)
