"""How a broken-off answer goes on elsewhere, and whether it may at all. Pure.

``restart``: ask again, skip what the client has, as long as it is the same to the letter. Exact, so
it is for answers that come out the same each time (temperature 0, or a seed).
``continue``: show another replica what has been said and let it go on. For plain text only: what a
grammar, a tool call or log probabilities would need of the first engine's state, no engine takes.
"""

from typing import Any, Literal

import msgspec

from freehold.gateway.transcript import Transcript
from freehold.gateway.wire.call import Call
from freehold.store.snapshot import Target

Way = Literal["restart", "continue"]

_STATEFUL = ("tools", "functions", "grammar", "json_schema", "logprobs", "suffix", "echo",
             "guided_json", "guided_regex", "guided_choice", "guided_grammar", "prompt_logprobs",
             "structured_outputs", "min_tokens")  # fmt: skip
_LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")
_NOTHING = (b"null", b"false", b"[]", b"{}", b"0")


def way(call: Call, said: Transcript, target: Target, *, exact: bool) -> Way | None:
    """Return how ``target`` goes on, None where it cannot.

    ``exact`` is False once a replica was seen to say something else.
    """
    if exact and deterministic(call):
        return "restart"
    return "continue" if continues(call, said, target) else None


def deterministic(call: Call) -> bool:
    """Say whether the answer should come out the same each time."""
    if _value(call, "seed") is not None:
        return True
    return _value(call, "temperature") in (0, 0.0)


def continues(call: Call, said: Transcript, target: Target) -> bool:
    """Say whether ``target`` can go on from the text so far, and soundly."""
    if not said.plain or not said.text or call.choices != 1 or call.prompts != 1:
        return False
    if any(bytes(call.fields[name]) not in _NOTHING for name in _STATEFUL if name in call.fields):
        return False
    form = _value(call, "response_format")
    if isinstance(form, dict) and form.get("type") not in (None, "text"):
        return False
    if call.task == "completion":
        return isinstance(_value(call, "prompt"), str)
    return target.continues is not None and _beginning(call, target) is not None


def continuation(call: Call, said: Transcript, target: Target) -> Call:
    """Return the call that goes on; ``continues`` was asked before."""
    fields: dict[str, Any] = {}
    if call.task == "completion":
        fields["prompt"] = _value(call, "prompt") + said.text
    else:
        beginning = _beginning(call, target)
        assert beginning is not None
        messages, prefix = beginning
        fields["messages"] = [*messages, {"role": "assistant", "content": prefix + said.text}]
        if target.continues == "final_message":
            fields |= {"continue_final_message": True, "add_generation_prompt": False}
    for name in _LIMITS:
        limit = _value(call, name)
        if isinstance(limit, int) and limit > 0:
            fields[name] = max(1, limit - said.tokens)
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    return msgspec.structs.replace(call, fields={**call.fields, **raw})


def spent(call: Call, said: Transcript) -> bool:
    """Say whether all the tokens that were asked for are out: nothing is missing but the end."""
    if call.choices != 1 or call.prompts != 1:
        return False
    limits = [_value(call, name) for name in _LIMITS]
    return any(isinstance(limit, int) and 0 < limit <= said.tokens for limit in limits)


def _beginning(call: Call, target: Target) -> tuple[list[Any], str] | None:
    """Return the messages, and what the client has put into the assistant's mouth already."""
    messages = _value(call, "messages")
    last = messages[-1]
    if last.get("role") != "assistant":
        return messages, ""
    only = set(last) == {"role", "content"} and isinstance(last["content"], str)
    return (messages[:-1], last["content"]) if only and target.continues == "prefill" else None


def _value(call: Call, name: str) -> Any:
    raw = call.fields.get(name)
    return None if raw is None else msgspec.json.decode(raw)
