"""Choose the deployments that may answer a call, best first. Pure: no I/O, no clock.

A named deployment is tried first, then its fallbacks in the order given. ``auto`` follows one
stated rule until the adaptive router takes over: of the deployments that can do this kind of call
and whose context is long enough, prefer local over site over cloud, then ready over loading, then
the smallest model, then the name.
"""

from collections.abc import Mapping
from difflib import get_close_matches

import msgspec

from freehold.errors import Invalid, Missing, NoCapacity
from freehold.store.snapshot import Route

AUTO = "auto"
PLACES = ("local", "site", "cloud")
_ABLE = {
    "chat": ("chat",),
    "completion": ("chat", "completion"),
    "embedding": ("embedding",),
    "rerank": ("rerank",),
}
_STATES = {"ready": 0, "loading": 1, "idle": 2}


class Choice(msgspec.Struct, frozen=True):
    """A deployment worth trying, and why it stands where it does."""

    route: Route
    why: str


def choose(
    requested: str, task: str, tokens: int, routes: Mapping[str, Route]
) -> tuple[Choice, ...]:
    """Return at least one choice, best first.

    ``task`` is ``chat``, ``completion``, ``embedding`` or ``rerank``; ``tokens`` is an estimate of
    what the call needs of the context, 0 when unknown.
    """
    if requested == AUTO:
        return _automatic(task, tokens, routes)
    named = routes.get(requested)
    if named is None:
        raise _unknown(requested, routes)
    writes = task in ("chat", "completion")
    if named.adapts and not writes:
        raise Invalid(
            "invalid.adapter",
            f"{requested} is an adapter, which changes what is written and nothing else: ask its "
            "base for this",
            param="model",
        )
    known = [routes[name] for name in named.fallbacks if name in routes]
    fallbacks = [route for route in known if writes or not route.adapts]
    return (
        Choice(named, "named by the request"),
        *(Choice(route, f"fallback of {requested}") for route in fallbacks),
    )


def _automatic(task: str, tokens: int, routes: Mapping[str, Route]) -> tuple[Choice, ...]:
    kind = [r for r in routes.values() if not r.adapts and r.task in _ABLE[task]]
    if not kind:
        raise _nothing(task, routes)
    wide = [route for route in kind if route.context is None or tokens <= route.context]
    if not wide:
        most = max(route.context or 0 for route in kind)
        raise Invalid(
            "context_length_exceeded",
            f"this {task} call needs a context of about {tokens} tokens, no deployment has more "
            f"than {most}: shorten it, or ask for fewer tokens",
            param="model",
        )
    able = [route for route in wide if route.state in _STATES]
    if not able:
        raise NoCapacity(
            "unavailable.no_deployment",
            f"no deployment that takes {task} calls is up: see freehold status",
            retry_after=5,
        )
    return tuple(
        Choice(route, f"{route.place}, {route.state}, {route.parameters or 'unknown'} parameters")
        for route in sorted(able, key=_rank)
    )


def _rank(route: Route) -> tuple[int, int, int, str]:
    unknown_size = 1 << 62
    return (
        PLACES.index(route.place),
        _STATES[route.state],
        route.parameters or unknown_size,
        route.deployment,
    )


def _nothing(task: str, routes: Mapping[str, Route]) -> Missing:
    """Return the error for ``auto`` where nothing does this kind of call, whatever its state."""
    if not routes:
        text = (
            "nothing is deployed: freehold deploy NAME, of a model that freehold model list shows"
        )
    else:
        text = f"nothing that is deployed takes {task} calls: deploy a model that does"
    return Missing("missing.deployment", text, param="model")


def _unknown(requested: str, routes: Mapping[str, Route]) -> Missing:
    near = get_close_matches(requested, routes, 1)
    hint = f"did you mean {near[0]}?" if near else "GET /v1/models lists what there is"
    return Missing("missing.deployment", f"no deployment {requested!r:.80}: {hint}", param="model")
