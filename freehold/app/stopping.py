"""How control is asked to stop: once to finish what runs, once more to stop at once."""

import asyncio
from collections.abc import Callable

from freehold.control.control import Control


class Stopping:
    """Takes the signals. ``tell`` is called at the first one."""

    def __init__(
        self, stop: asyncio.Event, control: Control, tell: Callable[[Control], None]
    ) -> None:
        self._stop = stop
        self._control = control
        self._tell = tell

    def asked(self) -> None:
        """Stop cleanly, giving running requests their grace."""
        if not self._stop.is_set():
            self._tell(self._control)
            self._stop.set()

    def interrupted(self) -> None:
        """Ctrl-C: stop cleanly, or at once where that is under way already."""
        if self._stop.is_set():
            self._control.gateways.kill_all()
        else:
            self.asked()
