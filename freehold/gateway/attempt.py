"""One replica asked once: what comes is checked and counted, and only a whole answer ends well."""

from typing import Any

import msgspec

from freehold.errors import EngineLost, FreeholdError
from freehold.gateway.blame import blame_error
from freehold.gateway.faults import NO_JSON, EngineFault
from freehold.gateway.seam import Seam
from freehold.gateway.upstream import Answer, Headers, Upstream
from freehold.gateway.watch import Watch
from freehold.gateway.wire.assemble import Assembly, decode_event
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.dialect import Chunk, Reply
from freehold.gateway.wire.usage import Tally, Usage, read_usage
from freehold.store.snapshot import Route, Target

_encode = msgspec.json.encode

LONGEST_SILENCE = 1 << 20
"""Bytes of events before the first word."""

Piece = list[Chunk] | Reply
"""What an attempt yields: batches of chunks, or one whole answer."""


class Blank(EngineLost):
    """An answer without a word in it. ``piece`` is that answer, should nobody know better."""

    def __init__(self, piece: Piece) -> None:
        super().__init__("unavailable.engine_blank", "the engine's answer is empty", retry_after=1)
        self.piece = piece


class Attempt:
    """``tally`` is right at every moment, also when the attempt breaks off.

    ``seam`` joins the stream to what the client has; ``blank`` lets an answer without words pass.
    ``begin`` comes first, then ``more`` for a stream; ``close`` must be called.
    """

    def __init__(
        self,
        call: Call,
        route: Route,
        target: Target,
        watch: Watch,
        *,
        seam: Seam | None = None,
        blank: bool = False,
    ) -> None:
        self.route = route
        self.target = target
        self.tally = Tally(call)
        self._call = call
        self._watch = watch
        self._seam = seam
        self._blank = blank or seam is not None
        self._unfinished = call.choices * call.prompts
        self._finished: set[int] = set()
        self._spoken = False
        self._silence = 0
        self._closing = False
        self._answer: Answer | None = None
        self._ended = False

    async def begin(self, upstream: Upstream, trace: Headers, *, stream: bool) -> Piece:
        """Ask; return the whole answer, or of a stream the batch with its first word in it.

        ``trace`` are headers that tell the engine which trace it works for.
        """
        if not stream and not (self.target.streams_only and self._call.streams):
            body = await upstream.document(self._call, self.target, self._watch, trace)
            return self._checked(body)
        self._answer = await upstream.events(self._call, self.target, self._watch, trace)
        if stream:
            return await self.more() or []
        return await self._assembled()

    async def more(self) -> list[Chunk] | None:
        """Return the stream's next chunks; None once every choice has finished."""
        if self._ended or self._answer is None:
            return None
        held: list[Chunk] = []
        try:
            self._mark()
            while (batch := await self._answer.batch()) is not None:
                self._read(batch, held)
                if self._spoken and held:
                    return held
                self._mark()
        except (FreeholdError, EngineFault):
            if not self._whole:  # else nothing was lost but the counts
                raise
        self._ended = True
        if not self._whole:
            raise EngineLost(
                "unavailable.engine_cut", "the engine broke off in mid-answer", retry_after=1
            )
        if not self._spoken and not self._blank and self._stopped(held):
            raise Blank(held)
        return held or None

    def close(self) -> None:
        """Let go of the engine, whatever it still says."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def _assembled(self) -> Reply:
        """Return one whole answer, put together from a stream."""
        assembly = Assembly()
        try:
            while (batch := await self.more()) is not None:
                _feed(assembly, batch)
        except Blank as error:
            _feed(assembly, error.piece)
            raise Blank(self._reply(assembly)) from error
        return self._reply(assembly)

    def _mark(self) -> None:
        """Tell which deadline is next: from here on somebody waits."""
        if self._whole:
            if not self._closing:
                self._closing = True
                self._watch.closing()
        elif self._spoken:
            self._watch.progressed()

    @property
    def _whole(self) -> bool:
        return len(self._finished) >= self._unfinished

    def _read(self, batch: list[bytes], held: list[Chunk]) -> None:
        """Check and count events; decoded only where there is something to see."""
        for data in batch:
            chunk, ended = self._chunk(data)
            joined = self._seam.join(chunk) if self._seam is not None else chunk
            if joined is not None:
                held.append(joined)
            self._finished |= ended
        if not self._spoken:
            self._silence += sum(map(len, batch))
            if self._silence > LONGEST_SILENCE:
                raise EngineLost("unavailable.engine_protocol", "the engine says nothing at length")

    def _chunk(self, data: bytes) -> tuple[Chunk, set[int]]:
        """Return an event, and the choices that it ends.

        What comes after the end of all choices only tells about the answer, as usage does.
        """
        try:
            event = _EVENT.decode(data)
            if not data.isascii():
                data.decode()
            if not self._spoken:
                self._spoken = any(choice.speaks for choice in event.choices or ())
        except NO_JSON as error:
            raise EngineLost(
                "unavailable.engine_protocol", "the engine sent an event that is none"
            ) from error
        if _given(event.error):
            raise blame_error(data)
        choices = event.choices or ()
        ended = {choice.index for choice in choices if choice.finish_reason}
        decoded: dict[str, Any] | None = None
        if _given(event.usage):
            decoded = decode_event(data)
            self.tally.add(read_usage(decoded.pop("usage")))
            if not choices:
                return Chunk(data, decoded, closing=True), ended
            data = _encode(decoded)
        if self._finished and self._whole:
            decoded = {**(decoded or decode_event(data)), "choices": []}
            return Chunk(_encode(decoded), decoded, closing=True), set()
        self.tally.frames += 1
        return Chunk(data, decoded, finished=bool(ended)), ended

    def _stopped(self, chunks: list[Chunk]) -> bool:
        """Say whether an engine that said nothing pretends to have said all."""
        found = [c for chunk in chunks for c in chunk.decoded().get("choices") or ()]
        return any(choice.get("finish_reason") == "stop" for choice in found)

    def _reply(self, assembly: Assembly) -> Reply:
        return Reply(_encode({**assembly.document(), "usage": self.tally.document()}))

    def _checked(self, body: bytes) -> Reply:
        """Check and count a whole answer."""
        try:
            outline = _OUTLINE.decode(body)
        except NO_JSON as error:
            raise EngineLost(
                "unavailable.engine_protocol", "the engine's answer is not what it should be"
            ) from error
        if _given(outline.error):
            raise blame_error(body)
        if not self._call.streams:
            if not (outline.data or outline.results or outline.input_tokens):
                raise EngineLost("unavailable.engine_protocol", "the engine's answer is empty")
        elif not outline.choices or any(not c.is_whole(self._call) for c in outline.choices):
            raise EngineLost("unavailable.engine_protocol", "the engine's answer is not whole")
        reply = self._counted(body, outline.usage)
        if outline.choices and not self._blank and all(c.blank for c in outline.choices):
            raise Blank(reply)
        return reply

    def _counted(self, body: bytes, usage: Usage | None) -> Reply:
        if usage is None:
            return Reply(_encode({**msgspec.json.decode(body), "usage": self.tally.document()}))
        self.tally.add(usage)
        return Reply(body)


class _Part(msgspec.Struct):
    """As much of a choice in a stream's event as must be understood to pass it on."""

    index: int = 0
    finish_reason: str | None = None
    text: str | None = None
    delta: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    @property
    def speaks(self) -> bool:
        if self.text:
            return True
        delta = None if self.delta is msgspec.UNSET else msgspec.json.decode(self.delta)
        return isinstance(delta, dict) and any(v for name, v in delta.items() if name != "role")


class _Event(msgspec.Struct):
    choices: list[_Part] | None = None
    usage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Message(msgspec.Struct):
    content: str | list[msgspec.Raw] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    function_call: Any = None
    audio: Any = None


class _Choice(msgspec.Struct):
    """As much of a choice in a whole answer."""

    finish_reason: str | None = None
    message: _Message | None = None
    text: str | None = None

    def is_whole(self, call: Call) -> bool:
        said = self.text if call.task == "completion" else self.message
        return self.finish_reason is not None and said is not None

    @property
    def blank(self) -> bool:
        said = self.text or (
            self.message is not None and any(msgspec.structs.astuple(self.message))
        )
        return not said and self.finish_reason == "stop"


class _Outline(msgspec.Struct):
    """As much of an engine's answer as we must understand to pass it on."""

    choices: list[_Choice] = []
    data: list[msgspec.Raw] = []
    results: list[msgspec.Raw] = []
    input_tokens: int | None = None
    usage: Usage | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_EVENT = msgspec.json.Decoder(_Event)
_OUTLINE = msgspec.json.Decoder(_Outline)


def _given(raw: msgspec.Raw | msgspec.UnsetType) -> bool:
    return raw is not msgspec.UNSET and bytes(raw) != b"null"


def _feed(assembly: Assembly, batch: Piece) -> None:
    assert isinstance(batch, list)
    for chunk in batch:
        assembly.feed(chunk.decoded())
