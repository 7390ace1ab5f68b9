"""Token counts: added up over the parts of an answer, estimated where an engine gives none."""

import msgspec

from freehold.errors import EngineLost
from freehold.gateway.wire.call import Call


class Details(msgspec.Struct, frozen=True):
    """``prompt_tokens_details``."""

    cached_tokens: int | None = 0


class Usage(msgspec.Struct):
    """``usage`` as engines send it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: Details | None = None


def read_usage(value: object) -> Usage:
    """Check an engine's ``usage`` object."""
    try:
        return msgspec.convert(value, Usage)
    except msgspec.ValidationError as error:
        raise EngineLost(
            "unavailable.engine_protocol", f"the engine's usage is malformed: {error}"
        ) from error


class Tally:
    """Adds up one call's usage. An engine reports once for every prompt and choice."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._reports = 0
        self._prompt = 0
        self._cached = 0
        self._completion = 0
        self.frames = 0

    def add(self, usage: Usage) -> None:
        """Take one report. Choices share their prompt, prompts of a list add up."""
        self._reports += 1
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
        if self._call.prompts > 1:
            self._prompt += usage.prompt_tokens
        else:
            self._prompt = max(self._prompt, usage.prompt_tokens)
        self._cached = max(self._cached, cached or 0)
        self._completion += usage.completion_tokens

    @property
    def estimated(self) -> bool:
        """True when the engine reported nothing (yet) and the counts are ours."""
        return self._reports == 0

    @property
    def prompt(self) -> int:
        """Tokens read."""
        return self._call.prompt if self.estimated else self._prompt

    @property
    def completion(self) -> int:
        """Tokens written; every event of a stream counts as one where nothing was reported."""
        return self.frames if self.estimated else self._completion

    @property
    def cached(self) -> int:
        """Tokens of the prompt that the engine had in its cache."""
        return self._cached

    def document(self) -> dict[str, object]:
        """Return the ``usage`` object for the client."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self._cached},
            **({"estimated": True} if self.estimated else {}),
        }
