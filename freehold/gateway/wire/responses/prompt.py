"""A Responses request as a chat request."""

from collections.abc import Iterable, Mapping
from typing import Any

from freehold.errors import Invalid
from freehold.gateway.wire import message
from freehold.gateway.wire.call import Call, Fields
from freehold.gateway.wire.message import cannot
from freehold.gateway.wire.responses.items import chat_messages
from freehold.gateway.wire.responses.request import (
    INCLUDABLE,
    KNOWN,
    REFUSED,
    Allowed,
    JsonObject,
    JsonSchema,
    Named,
    Request,
    Tool,
)


def check(request: Request, fields: Fields) -> None:
    """Refuse what no engine could be asked for."""
    for name in REFUSED:
        if name in fields and bytes(fields[name]) not in (b"null", b"[]", b"{}"):
            raise cannot(name, "only OpenAI's own service has this")
    if request.background:
        raise cannot("background", "answers are not made in the background here")
    if request.truncation == "auto":
        raise cannot("truncation", "nothing is left out here: shorten the input")
    for index, name in enumerate(request.include or ()):
        if name not in INCLUDABLE:
            raise cannot(f"include[{index}]", f"there is no {name:.80} here")
    if not request.input and not request.previous_response_id:
        raise Invalid("invalid.request", "input must be given", param="input")


def translate(request: Request, fields: Fields, items: Iterable[dict[str, Any]], size: int) -> Call:
    """Return the call for a whole conversation; ``size`` estimates it in bytes."""
    through = {
        name: value
        for name, value in fields.items()
        if name not in KNOWN and name not in REFUSED and name != "input"
    }
    return Call(
        task="chat",
        path="/chat/completions",
        model=request.model,
        stream=bool(request.stream),
        wants_usage=True,
        prompt=size // 4,
        tokens=size // 4 + (request.max_output_tokens or 0),
        fields=message.fields_of(_values(request, fields, items), through),
    )


def _values(
    request: Request, fields: Fields, items: Iterable[dict[str, Any]]
) -> Mapping[str, object]:
    same = ("temperature", "top_p", "presence_penalty", "frequency_penalty",
            "parallel_tool_calls", "safety_identifier", "prompt_cache_key")  # fmt: skip
    logprobs = request.wants_logprobs
    return {
        "messages": message.with_system([request.instructions or ""], chat_messages(items)),
        "max_tokens": request.max_output_tokens,
        **{name: fields.get(name) for name in same if getattr(request, name) is not None},
        "logprobs": True if logprobs else None,
        "top_logprobs": (request.top_logprobs or 0) if logprobs else None,
        "verbosity": request.text.verbosity if request.text else None,
        **_tools(request),
        **_reasoning(request),
        **_form(request),
    }


def _tools(request: Request) -> dict[str, object]:
    tools, choice = request.tools or [], request.tool_choice
    if not tools:
        return {}
    if isinstance(choice, Allowed):
        names = {tool.name for tool in choice.tools}
        made: object = choice.mode
        tools = [tool for tool in tools if tool.name in names]
        if not tools:
            raise Invalid(
                "invalid.request", "tool_choice allows no tool there is", param="tool_choice.tools"
            )
    elif isinstance(choice, Named):
        made = {"type": "function", "function": {"name": choice.name}}
    else:
        made = choice
    return {"tools": [_tool(tool) for tool in tools], "tool_choice": made}


def _tool(tool: Tool) -> dict[str, object]:
    given = {
        "description": tool.description,
        "parameters": None if bytes(tool.parameters) == b"null" else tool.parameters,
        "strict": tool.strict,
    }
    function = {name: value for name, value in given.items() if value is not None}
    return {"type": "function", "function": {"name": tool.name, **function}}


def _reasoning(request: Request) -> dict[str, object]:
    effort = request.reasoning.effort if request.reasoning else None
    # The template's own switch is what local engines understand.
    off = {"chat_template_kwargs": {"enable_thinking": False}} if effort == "none" else {}
    return {"reasoning_effort": effort, **off}


def _form(request: Request) -> dict[str, object]:
    form = request.text.format if request.text else None
    if isinstance(form, JsonObject):
        return {"response_format": {"type": "json_object"}}
    if isinstance(form, JsonSchema):
        given = {"description": form.description, "strict": form.strict}
        extra = {name: value for name, value in given.items() if value is not None}
        schema = {"name": form.name, "schema": form.schema, **extra}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {}
