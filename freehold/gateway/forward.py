"""Pass administration on to control, which alone may change things."""

from datetime import timedelta

from pyreqwest.exceptions import PyreqwestError

from freehold.errors import Unavailable
from freehold.gateway.exchange import Exchange, Last, Whole
from freehold.gateway.parts import Parts
from freehold.gateway.proof import NONCE, PROOF, challenge

PATIENCE = 60.0
CLIENT = "x-freehold-client"
_PASSED_ON = ("authorization", "content-type", "accept", "traceparent", "tracestate")
_PASSED_BACK = ("content-type", "x-freehold-request", "retry-after", "www-authenticate", "allow")


async def forward(exchange: Exchange, parts: Parts) -> Last:
    """Return control's answer; control keeps the record of it."""
    await parts.follower.asked()
    snapshot = parts.follower.snapshot
    if not parts.follower.has_control:
        # Never to an address that may be somebody else's by now: the key would go with it.
        raise _away()
    body = await exchange.body(parts.settings.server.body_limit)
    target = f"{snapshot.control_url}{exchange.path}"
    if exchange.query:
        target += f"?{exchange.query}"
    try:
        request = parts.client.request(exchange.method, target).body_bytes(body)
        for name in _PASSED_ON:
            if (value := exchange.header(name)) is not None:
                request = request.header(name, value, is_sensitive=name == "authorization")
        own = challenge(snapshot.control_secret)
        request = request.header(CLIENT, exchange.client).header(NONCE, own.nonce)
        request = request.header(PROOF, own.ask(exchange.client.encode()))
        response = await request.timeout(timedelta(seconds=PATIENCE)).build().send()
        answer = (await response.bytes()).to_bytes()
    except (PyreqwestError, ValueError) as error:
        raise _away() from error
    headers = [
        (name, value) for name in _PASSED_BACK if (value := response.get_header(name)) is not None
    ]
    return Whole(response.status, headers, answer)


def _away() -> Unavailable:
    return Unavailable(
        "unavailable.control",
        "the control process is not running: deployments go on answering, but nothing can be "
        "administered until freehold up is started again",
        retry_after=5,
    )
