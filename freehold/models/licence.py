"""May a model with this licence be used here? Pure: names and a policy in, a verdict out."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

from freehold.settings import Licences

Verdict = Literal["allow", "ask", "deny"]
_STRICT: tuple[Verdict, ...] = ("allow", "ask", "deny")
_SPLIT = re.compile(r"\s+(and|or|with)\s+|[()]", re.IGNORECASE)
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
    return _SAID_OTHERWISE.get(name, name)


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
    names = [part for part in parts if part.lower() not in ("and", "or", "with")]
    if len(names) < 2 or whole == "deny":
        return whole
    verdicts = [_one(name, policy) for name in names]
    choice = {part.lower() for part in parts} & {"and", "or", "with"} == {"or"}
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
