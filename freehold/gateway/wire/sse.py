"""Server-sent events: cut an engine's bytes into the data of its events."""

from collections.abc import Iterator

from freehold.errors import EngineLost

LONGEST_EVENT = 8 * 1024 * 1024
DONE = b"[DONE]"
NOTHING = b"null"
"""llama.cpp opens the stream of a request with several prompts with this event."""


_MARK = "\N{BYTE ORDER MARK}".encode()
_OTHERS = (b":", b"event:", b"id:", b"retry:")


class Events:
    """Feed it chunks as they come; it gives back the ``data`` of every event that is whole."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._size = 0
        self._half = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that this chunk completes."""
        data, self._half = self._half + chunk if self._half else chunk, b""
        if b"\r" in data:  # at the end it may be half of a line's
            self._half = b"\r" if data.endswith(b"\r") else b""
            data = data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._held:
            if b"\n\n" not in self._held[-1][-1:] + data:
                self._hold(data)
                return []
            data = b"".join((*self._held, data))
            self._held, self._size = [], 0
        *whole, rest = data.split(b"\n\n")
        if rest:
            self._hold(rest)
        return [found for event in whole if (found := _data(event)) is not None]

    def _hold(self, piece: bytes) -> None:
        """Keep a part of an event as it came: put together each time, long ones would cost dear."""
        if piece:
            self._held.append(piece)
        self._size += len(piece)
        if self._size > LONGEST_EVENT:
            raise EngineLost("unavailable.engine_protocol", "the engine sent an endless event")

    @property
    def torn(self) -> bool:
        """Say whether the stream ended inside an event."""
        return any(piece.strip() for piece in self._held)


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        data = event[6:]
    else:
        # Between lines JSON may have blanks, and inside of strings no line can end.
        data = b" ".join(_lines(event.removeprefix(_MARK)))
    return data if data and data != NOTHING else None


def _lines(event: bytes) -> Iterator[bytes]:
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            yield line[5:].lstrip(b" ")
        elif line and not line.startswith(_OTHERS):
            # The standard ignores it. But it was a token once, and the answer would lack it.
            raise EngineLost("unavailable.engine_protocol", "the engine sent a garbled event")
