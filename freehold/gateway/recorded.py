"""Every request is recorded: durable before its last byte leaves, whatever happens to it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from freehold.errors import FreeholdError, Unavailable
from freehold.gateway.exchange import Exchange, Gone, Last, Tail, Whole
from freehold.gateway.faults import EngineFault, Fault, engine_fault, fault
from freehold.gateway.log import Log
from freehold.gateway.telemetry import Telemetry
from freehold.record.entry import Entry, encode
from freehold.record.journal import Journal
from freehold.record.refusals import WINDOW, Refusals

Work = Callable[[Entry], Awaitable[Last]]


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What a process keeps its record with."""

    journal: Journal
    log: Log
    clock: Callable[[], float]
    telemetry: Telemetry
    refusals: Refusals = msgspec.field(default_factory=Refusals)


class Followed(Protocol):
    """Who asks the same again and again to hear how far it is is on record once."""

    def again(self, entry: Entry) -> bool:
        """Say whether that is on record already."""
        ...

    def recorded(self, entry: Entry) -> None:
        """Hear that it is now."""
        ...


async def recorded(
    exchange: Exchange, action: str, work: Work, books: Books, followed: Followed | None = None
) -> None:
    """Do the work, make its record durable, and only then let the last bytes go."""
    entry = Entry(id=exchange.id, at=books.clock(), action=action, client=exchange.client)
    trace = books.telemetry.begin(exchange, entry)
    begun = time.perf_counter()
    last = await _attended(exchange, entry, work(entry), books)
    done = time.perf_counter()
    entry.total_ms = round((done - begun) * 1000, 3)
    if entry.principal is None and entry.outcome == "refused" and not books.refusals.admit():
        if books.refusals.left == 1:
            asyncio.get_running_loop().call_later(WINDOW, _sum_up, books)
        books.telemetry.end(exchange, entry, trace, 0.0)
        if last is not None:
            await exchange.finish(last)
        return
    if followed is not None and followed.again(entry):
        books.telemetry.end(exchange, entry, trace, 0.0)
        if last is not None:
            await exchange.finish(last)
        return
    try:
        await books.journal.append(encode(entry), entry)
        if followed is not None:
            followed.recorded(entry)
    except FreeholdError as error:
        # Numbers and log tell how it ended for the client, which the record cannot any more.
        refusal = _refused(exchange, entry, fault(error, exchange.id))
        last = refusal if last is not None else None
    books.telemetry.end(exchange, entry, trace, time.perf_counter() - done)
    books.log.request(exchange, entry)
    if last is not None:
        await exchange.finish(last)
    elif exchange.stream is not None:
        exchange.stream.close()


def _sum_up(books: Books) -> None:
    """Record how many refusals were not recorded one by one."""
    text = f"{books.refusals.take()} more refusals without a valid key"
    entry = Entry(
        id=books.telemetry.ids.request(),
        at=books.clock(),
        action="none",
        outcome="refused",
        subject=text,
    )
    written = books.journal.append(encode(entry), entry)
    written.add_done_callback(lambda future: future.cancelled() or future.exception())


async def _attended(
    exchange: Exchange, entry: Entry, work: Awaitable[Last], books: Books
) -> Last | None:
    """Run the work while the client is there; ending it closes the engine's connection too."""
    attendance = exchange.attend()
    try:
        last = await work
        entry.outcome, entry.status = "ok", 200
        return last
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not attendance.left or task is None:
            raise
        task.uncancel()
        entry.outcome, entry.status = "cancelled", 499
        return _stopped(exchange, entry) if exchange.is_let_go else None
    except Gone:
        entry.outcome, entry.status = "cancelled", 499
        return None
    except FreeholdError as error:
        return _refused(exchange, entry, fault(error, exchange.id))
    except EngineFault as error:
        return _refused(exchange, entry, engine_fault(error, exchange.id))
    except Exception as error:  # noqa: BLE001 - the outermost wrapper: nothing may escape unrecorded
        books.log.crash(exchange, error)
        problem = FreeholdError("broken.internal", f"internal error, see the log for {exchange.id}")
        return _refused(exchange, entry, fault(problem, exchange.id))
    finally:
        attendance.end()


def _stopped(exchange: Exchange, entry: Entry) -> Last:
    """Tell a client that is still there why its answer ends here."""
    error = Unavailable("unavailable.stopping", "this gateway stops: ask again", retry_after=1)
    return _refused(exchange, entry, fault(error, exchange.id))


def _refused(exchange: Exchange, entry: Entry, found: Fault) -> Last:
    entry.outcome = "refused" if found.status < 500 else "failed"
    entry.status, entry.error = found.status, found.code
    return _failed(exchange, found)


def _failed(exchange: Exchange, found: Fault) -> Last:
    """Return an error as the whole answer, or as the last event of one that has begun."""
    if exchange.stream is None:
        headers = [*found.headers, (exchange.form.id_header, exchange.id)]
        return Whole(found.status, headers, exchange.form.body(found))
    return Tail(exchange.stream, exchange.broken(found))
