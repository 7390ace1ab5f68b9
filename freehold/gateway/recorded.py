"""Every request is recorded: durable before its last byte leaves, whatever happens to it."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from freehold.errors import FreeholdError
from freehold.gateway.exchange import Exchange, Last, Tail, Whole
from freehold.gateway.faults import EngineFault, Fault, engine_fault, fault
from freehold.gateway.log import Log
from freehold.record.entry import Entry, encode
from freehold.record.journal import Journal

Work = Callable[[Entry], Awaitable[Last]]


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What a process keeps its record with."""

    journal: Journal
    log: Log
    clock: Callable[[], float]


async def recorded(exchange: Exchange, action: str, work: Work, books: Books) -> None:
    """Do the work, make its record durable, and only then let the last bytes go."""
    entry = Entry(id=exchange.id, at=books.clock(), action=action, client=exchange.client)
    begun = time.perf_counter()
    last = await _attended(exchange, entry, work(entry), books)
    entry.total_ms = round((time.perf_counter() - begun) * 1000, 3)
    try:
        await books.journal.append(encode(entry))
    except FreeholdError as error:
        last = _failed(exchange, fault(error, exchange.id)) if last is not None else None
    books.log.request(exchange, entry)
    if last is not None:
        await exchange.finish(last)
    elif exchange.stream is not None:
        exchange.stream.close()


async def _attended(
    exchange: Exchange, entry: Entry, work: Awaitable[Last], books: Books
) -> Last | None:
    """Run the work while the client is there; ending it closes the engine's connection too."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(exchange.gone())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            entry.outcome, entry.status = "cancelled", 499
            task.cancel()
            await asyncio.wait((task,))
            return None
    finally:
        gone.cancel()
    entry.outcome, entry.status = "ok", 200
    try:
        return task.result()
    except FreeholdError as error:
        return _refused(exchange, entry, fault(error, exchange.id))
    except EngineFault as error:
        return _refused(exchange, entry, engine_fault(error, exchange.id))
    except Exception as error:  # noqa: BLE001 - the outermost wrapper: nothing may escape unrecorded
        books.log.crash(exchange, error)
        problem = FreeholdError("broken.internal", f"internal error, see the log for {exchange.id}")
        return _refused(exchange, entry, fault(problem, exchange.id))


def _refused(exchange: Exchange, entry: Entry, found: Fault) -> Last:
    entry.outcome = "refused" if found.status < 500 else "failed"
    entry.status, entry.error = found.status, found.code
    return _failed(exchange, found)


def _failed(exchange: Exchange, found: Fault) -> Last:
    """Return an error as the whole answer, or as the last event of one that has begun."""
    if exchange.stream is None:
        return Whole(found.status, found.headers, found.body)
    return Tail(exchange.stream, b"data: %b\n\n" % found.body)
