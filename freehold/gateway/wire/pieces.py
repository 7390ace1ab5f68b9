"""What an engine's chat answer is made of, in an order that dialects with blocks can write.

Chat completions may tell several tool calls at once, by index; other APIs finish one part before
the next begins. ``Pieces`` turns the one into the other without holding back what need not wait:
a call is over when its arguments are whole JSON, and until then others wait for it.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from freehold.errors import EngineLost
from freehold.gateway.faults import NO_JSON


class Thought(msgspec.Struct, frozen=True):
    """A part of the reasoning."""

    text: str


class Text(msgspec.Struct, frozen=True):
    """A part of the answer's text, and the token probabilities that came with it, as they came."""

    text: str
    logprobs: Sequence[msgspec.Raw] = ()


class Refusal(msgspec.Struct, frozen=True):
    """A part of the model's refusal."""

    text: str


class CallBegin(msgspec.Struct, frozen=True):
    """A tool call begins; ``id`` is the engine's, if it gave one."""

    index: int
    id: str | None
    name: str


class Arguments(msgspec.Struct, frozen=True):
    """A part of the JSON text that the tool call which began last is given."""

    text: str


Piece = Thought | Text | Refusal | CallBegin | Arguments


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Logprobs(msgspec.Struct):
    content: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: _Logprobs | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []


_EVENT = msgspec.json.Decoder(_Event)


class _Open:
    """A tool call whose arguments are still coming."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.text = ""

    @property
    def whole(self) -> bool:
        try:
            msgspec.json.decode(self.text)
        except NO_JSON:
            return False
        return True


class Pieces:
    """Feed it the events of an answer, or the whole of it; it gives pieces back in order.

    ``finish`` is the engine's finish reason once there is one, ``stop`` the stop sequence that was
    met, where an engine says so, ``calls`` how many tool calls have begun.
    """

    def __init__(self) -> None:
        self.finish: str | None = None
        self.stop: str | None = None
        self.calls = 0
        self._open: _Open | None = None
        self._begun: set[int] = set()
        self._waiting: list[Thought | Text | Refusal | _Call] = []

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Take one event, or a whole answer; only its first choice counts."""
        try:
            event = _EVENT.decode(data)
        except NO_JSON as error:
            raise _nonsense(str(error)) from error
        for choice in event.choices:
            if choice.index == 0:
                self._note(choice)
                yield from self._take(self._parts(choice))

    def end(self) -> Iterator[Piece]:
        """Return what still waits, now that nothing can come any more."""
        while self._waiting:
            self._open = None
            waiting, self._waiting = self._waiting, []
            yield from self._take(waiting)

    def _note(self, choice: _Choice) -> None:
        self.finish = choice.finish_reason or self.finish
        if isinstance(choice.stop_reason, str):
            self.stop = choice.stop_reason

    def _parts(self, choice: _Choice) -> Iterator[Thought | Text | Refusal | _Call]:
        delta = choice.delta or choice.message or _Delta()
        if thought := delta.reasoning_content or delta.reasoning:
            yield Thought(thought)
        if delta.content:
            yield Text(delta.content, (choice.logprobs and choice.logprobs.content) or ())
        if delta.refusal:
            yield Refusal(delta.refusal)
        for call in delta.tool_calls or ():
            if call.index is None:
                call.index = self._number(call)
            yield call

    def _number(self, call: _Call) -> int:
        """Number a call that came without: a name begins the next, its absence goes on."""
        if call.function.name or self._open is None:
            return len(self._begun | {c.index for c in self._waiting if isinstance(c, _Call)})
        return self._open.index

    def _take(self, parts: Iterable[Thought | Text | Refusal | _Call]) -> Iterator[Piece]:
        for part in parts:
            now = self._open
            if isinstance(part, _Call) and now is not None and part.index == now.index:
                yield from self._continue(now, part)
            elif isinstance(part, _Call) and part.index in self._begun:
                if (part.function.arguments or "").strip():
                    raise _nonsense("arguments for a tool call that is over")
            elif now is not None and not now.whole:
                self._waiting.append(part)
            elif isinstance(part, _Call):
                yield from self._begin(part)
            else:
                self._open = None
                yield part

    def _begin(self, call: _Call) -> Iterator[Piece]:
        if not call.function.name:
            raise _nonsense("a tool call without a name")
        index = call.index or 0
        self._open = now = _Open(index)
        self._begun.add(index)
        self.calls += 1
        yield CallBegin(index, call.id, call.function.name)
        yield from self._continue(now, call)

    def _continue(self, now: _Open, call: _Call) -> Iterator[Piece]:
        if text := call.function.arguments:
            now.text += text
            yield Arguments(text)
        if self._waiting and now.whole:
            waiting, self._waiting = self._waiting, []
            yield from self._take(waiting)


def _nonsense(what: str) -> EngineLost:
    return EngineLost(
        "unavailable.engine_protocol", f"the engine's answer is not what it should be: {what}"
    )
