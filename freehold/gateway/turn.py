"""A replica's turn: one attempt, with what it holds while it runs.

It counts as load of the replica, has a span, and in the end the replica's circuit hears of it.
"""

from collections.abc import Callable

from freehold.gateway.attempt import Attempt, Piece
from freehold.gateway.parts import Parts
from freehold.gateway.wire.call import Call
from freehold.record.entry import Entry

Report = Callable[[str, str], None]


class Turn:
    """``piece`` is what came last. ``end`` must be called, and may be called again."""

    def __init__(self, attempt: Attempt, call: Call, entry: Entry, parts: Parts) -> None:
        self.attempt = attempt
        self.piece: Piece = []
        self._upstream = parts.upstream
        route, target = attempt.route, attempt.target
        self._held = parts.dispatch.take(call, route.deployment, target)
        self._span = parts.books.telemetry.ask(entry, route, target)
        self._over = False
        entry.attempts += 1

    async def begin(self, *, stream: bool) -> None:
        """Ask the replica; ``piece`` is the first of its answer then."""
        headers = self._span.headers
        self.piece = await self.attempt.begin(self._upstream, headers, stream=stream)

    async def more(self) -> bool:
        """Wait for the next piece; False when there is none."""
        piece = None if self._over else await self.attempt.more()
        if piece is None:
            return False
        self.piece = piece
        return True

    def end(self, report: Report, error: BaseException | None = None) -> None:
        """Give back what is held; ``report`` tells the circuit."""
        if self._over:
            return
        self._over = True
        self.attempt.close()
        self._held.end(error)
        self._span.end(error)
        report(self.attempt.target.replica, self.attempt.target.url)
