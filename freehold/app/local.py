"""Administration inside the caller's own process, for a home on which no Freehold runs."""

import asyncio
import getpass
from contextlib import AsyncExitStack

from freehold.app.control import opened
from freehold.control.control import Control
from freehold.control.home import Home
from freehold.errors import FreeholdError
from freehold.gateway.admin.application import perform
from freehold.gateway.admin.ask import Ask
from freehold.gateway.exchange import Whole
from freehold.gateway.faults import fault
from freehold.gateway.ids import Ids
from freehold.identity.keys import Principal
from freehold.record.entry import Entry, encode
from freehold.settings import Settings


class Local:
    """Answers as the HTTP API would; whoever can write the home is its administrator."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        try:
            self._control: Control = self._runner.run(
                self._stack.enter_async_context(opened(home, settings))
            )
        except FreeholdError:
            self._runner.close()
            raise
        self._principal = Principal(name=f"local:{_user()}", role="admin", key="")

    def ask(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Do what is asked, keep a record of it, and return (status, body)."""
        return self._runner.run(self._ask(method, path, query, body))

    def close(self) -> None:
        """Let go of the home."""
        self._runner.run(self._stack.aclose())
        self._runner.close()

    async def _ask(
        self, method: str, path: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        control = self._control
        entry = Entry(id=Ids().request(), at=control.clock(), action="administer", client="local")
        entry.principal, entry.role = self._principal.name, self._principal.role
        ask = Ask(principal=self._principal, params={}, query=query, body=body)
        try:
            last = await perform(ask, method, path, control, entry)
            assert isinstance(last, Whole)
            status, answer = last.status, last.body
            entry.outcome, entry.status = "ok", status
        except FreeholdError as error:
            found = fault(error, entry.id)
            status, answer = found.status, found.body
            entry.outcome = "refused" if status < 500 else "failed"
            entry.status, entry.error = status, found.code
        await control.journal.append(encode(entry))
        return status, answer


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
