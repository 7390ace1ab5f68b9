"""Pass administration on to control, which alone may change things."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

import msgspec
from pyreqwest.exceptions import PyreqwestError

from freehold.errors import Unavailable
from freehold.gateway.exchange import Exchange, Last, Whole
from freehold.gateway.parts import Parts
from freehold.gateway.proof import NONCE, PROOF, challenge

PATIENCE = 60.0
CLIENT = "x-freehold-client"
_PASSED_ON = ("authorization", "content-type", "accept", "traceparent", "tracestate")
_PASSED_BACK = ("content-type", "x-freehold-request", "retry-after", "www-authenticate", "allow")


class Answer(msgspec.Struct, frozen=True):
    """What control says: status, headers by their lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def forward(exchange: Exchange, parts: Parts) -> Last:
    """Return control's answer; control keeps the record of it."""
    body = await exchange.body(parts.settings.server.body_limit)
    answer = await ask_control(exchange, parts, exchange.method, exchange.path, body)
    headers = [(name, answer.headers[name]) for name in _PASSED_BACK if name in answer.headers]
    return Whole(answer.status, headers, answer.body)


async def ask_control(
    exchange: Exchange,
    parts: Parts,
    method: str,
    path: str,
    body: bytes,
    *,
    also: Iterable[tuple[str, str]] = (),
    patience: float = PATIENCE,
) -> Answer:
    """Put a request to control in the client's name, with ``also`` as further headers."""
    found = await parts.follower.finds_control()
    snapshot = parts.follower.snapshot
    if not found:
        # Never to an address that may be somebody else's by now: the key would go with it.
        raise _away()
    target = f"{snapshot.control_url}{path}"
    if exchange.query:
        target += f"?{exchange.query}"
    try:
        request = parts.client.request(method, target).body_bytes(body)
        for name in _PASSED_ON:
            if (value := exchange.header(name)) is not None:
                request = request.header(name, value, is_sensitive=name == "authorization")
        for name, value in also:
            request = request.header(name, value)
        own = challenge(snapshot.control_secret)
        request = request.header(CLIENT, exchange.client).header(NONCE, own.nonce)
        request = request.header(PROOF, own.ask(exchange.client.encode()))
        response = await request.timeout(timedelta(seconds=patience)).build().send()
        answer = (await response.bytes()).to_bytes()
    except (PyreqwestError, ValueError) as error:
        raise _away() from error
    return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, answer)


def _away() -> Unavailable:
    return Unavailable(
        "unavailable.control",
        "the control process is not running: deployments go on answering, but nothing can be "
        "administered until freehold up is started again",
        retry_after=5,
    )
