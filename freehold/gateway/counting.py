"""Count the tokens of a request: by the engine, or estimated, which the answer says."""

from collections.abc import Awaitable, Callable

import msgspec

from freehold.gateway.exchange import Exchange, Last, Whole
from freehold.gateway.faults import EngineFault
from freehold.gateway.parts import Parts
from freehold.gateway.pipeline import complete, response_headers
from freehold.gateway.upstream import ABSENT
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.count import Count, Counted
from freehold.gateway.wire.dialect import Dialect, Reply
from freehold.gateway.wire.events import EventWriter
from freehold.record.entry import Entry


def counted(count: Count) -> Callable[[Exchange, Parts, Entry], Awaitable[Last]]:
    """Return the handler of a route that counts."""

    def render(_call: Call, reply: Reply, _request_id: str) -> bytes:
        return count.write(msgspec.json.decode(reply.data, type=Counted).input_tokens)

    async def answer(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
        calls: list[Call] = []

        def read(body: bytes) -> Call:
            calls.append(count.read(body))
            return calls[0]

        dialect = Dialect(name=count.name, read=read, writer=EventWriter, render=render)
        try:
            return await complete(exchange, dialect, parts, entry)
        except EngineFault as error:
            if error.status not in ABSENT:
                raise
        headers = [*response_headers(exchange, entry), ("content-type", "application/json")]
        return Whole(200, headers, count.write(calls[0].tokens, estimated=True))

    return answer
