"""Pages of other origins: which may call, and what a browser must be told for it. Pure.

Nothing here knows cookies: a page has to bring its key itself, so credentials are never allowed.
"""

import re
from collections.abc import Collection

from freehold.errors import Forbidden, Invalid

Headers = list[tuple[str, str]]
METHODS = "GET, POST, PUT, DELETE"
ASKED = "authorization, content-type, prefer"
SHOWN = "x-freehold-request, x-freehold-deployment, retry-after"
AGE = "600"
ANY = "*"

_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+")


def check_origins(origins: Collection[str]) -> None:
    """Raise ``Invalid`` unless every one is an origin as browsers write it, or ``*``."""
    for origin in origins:
        if origin != ANY and not _ORIGIN.fullmatch(origin):
            raise Invalid(
                "invalid.settings",
                f"server.cors_origins: {origin!r:.100} is no origin: write https://host or "
                "https://host:port, in lower case and without a path",
                param="cors_origins",
            )


def is_allowed(origin: str | None, origins: Collection[str]) -> bool:
    """Say whether pages of an origin may call."""
    return origin is not None and (origin in origins or ANY in origins)


def answer_headers(origin: str | None, origins: Collection[str]) -> Headers:
    """Return what an answer carries so that the browser hands it to the page."""
    if not origins:
        return []
    vary = [] if ANY in origins else [("vary", "origin")]
    if not is_allowed(origin, origins):
        return vary
    shown = ANY if ANY in origins else str(origin)
    return [
        ("access-control-allow-origin", shown),
        ("access-control-expose-headers", SHOWN),
        *vary,
    ]


def preflight(origin: str | None, origins: Collection[str]) -> Headers:
    """Return the answer to a browser that asks first; ``Forbidden`` for a foreign origin."""
    if not is_allowed(origin, origins):
        raise Forbidden(
            "forbidden.origin", "pages of this origin may not call: see server.cors_origins"
        )
    return [
        ("access-control-allow-methods", METHODS),
        ("access-control-allow-headers", ASKED),
        ("access-control-max-age", AGE),
    ]
