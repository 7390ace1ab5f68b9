"""Token counts: added up over the parts of an answer, estimated where an engine gives none."""

from typing import Annotated, Protocol

import msgspec

from freehold.errors import EngineLost
from freehold.gateway.wire.call import Call
from freehold.record.entry import MOST_TOKENS

Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]


class Details(msgspec.Struct, frozen=True):
    """``prompt_tokens_details``."""

    cached_tokens: Tokens | None = 0


class Spent(msgspec.Struct, frozen=True):
    """``completion_tokens_details``."""

    reasoning_tokens: Tokens | None = 0


class Usage(msgspec.Struct):
    """``usage`` as engines send it."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    total_tokens: Tokens = 0
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Spent | None = None


class Counts(Protocol):
    """Token counts of an answer; ``estimated`` says that they are ours and not the engine's."""

    @property
    def prompt(self) -> int:
        """Tokens read."""
        ...

    @property
    def completion(self) -> int:
        """Tokens written."""
        ...

    @property
    def cached(self) -> int:
        """Tokens of the prompt that the engine had in its cache."""
        ...

    @property
    def reasoning(self) -> int:
        """Tokens written that were reasoning."""
        ...

    @property
    def estimated(self) -> bool:
        """Whether these are our own counts."""
        ...


class _Told(msgspec.Struct, frozen=True):
    prompt: int
    completion: int
    cached: int
    reasoning: int
    estimated: bool


class _Usage(Usage):
    estimated: bool = False


class _Document(msgspec.Struct):
    usage: _Usage = msgspec.field(default_factory=_Usage)


_DOCUMENT = msgspec.json.Decoder(_Document)


def read_counts(data: bytes) -> Counts:
    """Return the counts that an answer's document tells, as it goes to the client."""
    usage = _DOCUMENT.decode(data).usage
    details, spent = usage.prompt_tokens_details, usage.completion_tokens_details
    return _Told(
        usage.prompt_tokens,
        usage.completion_tokens,
        (details.cached_tokens if details else 0) or 0,
        (spent.reasoning_tokens if spent else 0) or 0,
        usage.estimated,
    )


def read_usage(value: object) -> Usage:
    """Check an engine's ``usage`` object."""
    try:
        return msgspec.convert(value, Usage)
    except msgspec.ValidationError as error:
        raise EngineLost(
            "unavailable.engine_protocol", f"the engine's usage is malformed: {error}"
        ) from error


class Tally:
    """Adds up one call's usage. An engine reports once for every prompt and choice; where there is
    one of each, it may report again and again what it has counted so far.

    ``carried`` are tokens that another engine had written before this one went on: they were part
    of its prompt, and are part of the answer. They were counted by us.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._reports = 0
        self._prompt = 0
        self._cached = 0
        self._completion = 0
        self._reasoning = 0
        self.frames = 0
        self.carried = 0

    def add(self, usage: Usage) -> None:
        """Take one report. Choices share their prompt, prompts of a list add up."""
        self._reports += 1
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
        if self._call.prompts > 1:
            self._prompt += usage.prompt_tokens
        else:
            self._prompt = max(self._prompt, usage.prompt_tokens)
        self._cached = max(self._cached, cached or 0)
        details = usage.completion_tokens_details
        reasoning = (details.reasoning_tokens if details else 0) or 0
        if self._call.prompts == self._call.choices == 1:
            self._completion = max(self._completion, usage.completion_tokens)
            self._reasoning = max(self._reasoning, reasoning)
        else:
            self._completion += usage.completion_tokens
            self._reasoning += reasoning

    @property
    def estimated(self) -> bool:
        """True when counts are ours: the engine reported nothing (yet), or not all was its own."""
        return self._reports == 0 or self.carried > 0

    @property
    def prompt(self) -> int:
        """Tokens read."""
        said = self._prompt - self.carried if self._reports else self._call.prompt
        return max(0, min(said, MOST_TOKENS))

    @property
    def completion(self) -> int:
        """Tokens written; every event of a stream counts as one where nothing was reported."""
        said = self._completion if self._reports else self.frames
        return min(self.carried + said, MOST_TOKENS)

    @property
    def cached(self) -> int:
        """Tokens of the prompt that the engine had in its cache."""
        return self._cached

    @property
    def reasoning(self) -> int:
        """Tokens written of which the engine says that they were reasoning."""
        return self._reasoning

    def document(self) -> dict[str, object]:
        """Return the ``usage`` object for the client."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self._cached},
            **(
                {"completion_tokens_details": {"reasoning_tokens": self._reasoning}}
                if self._reasoning
                else {}
            ),
            **({"estimated": True} if self.estimated else {}),
        }
