"""A Messages request as a chat request."""

from collections.abc import Mapping

import msgspec

from freehold.errors import Invalid
from freehold.gateway.wire import message
from freehold.gateway.wire.call import Call, Fields
from freehold.gateway.wire.message import Message, Part, cannot, content_of, text_part
from freehold.gateway.wire.messages.request import (
    KNOWN,
    REFUSED,
    Base64,
    Block,
    Document,
    Image,
    Request,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    Turn,
    Url,
)

SAME = ("temperature", "top_p", "top_k")
NOTHING = msgspec.Raw(b"null")


def translate(request: Request, fields: Fields, size: int) -> Call:
    """Return the call; ``size`` is that of the request in bytes."""
    through = {name: value for name, value in fields.items() if name not in KNOWN}
    for name in REFUSED:
        if bytes(through.pop(name, NOTHING)) not in (b"null", b"[]", b"{}"):
            raise cannot(name, "only Anthropic's own service has this")
    _check_edits(request)
    return Call(
        task="chat",
        path="/chat/completions",
        model=request.model,
        stream=bool(request.stream),
        wants_usage=True,
        prompt=size // 4,
        tokens=size // 4 + (request.max_tokens or 0),
        fields=message.fields_of(_values(request, fields), through),
    )


def _check_edits(request: Request) -> None:
    """Let through what changes nothing, which some clients always send."""
    edits = request.context_management.edits if request.context_management else None
    for index, edit in enumerate(edits or ()):
        if not edit.type.startswith("clear_thinking") or edit.keep != "all":
            raise cannot(f"context_management.edits[{index}]", "nothing is left out here")


def _values(request: Request, fields: Fields) -> Mapping[str, object]:
    system = request.system or ""
    texts = [system] if isinstance(system, str) else [block.text for block in system]
    turns = [made for index, turn in enumerate(request.messages) for made in _turn(turn, index)]
    metadata = request.metadata
    return {
        "messages": message.with_system(texts, turns),
        "max_tokens": request.max_tokens,
        "stop": request.stop_sequences or None,
        **{name: fields[name] for name in SAME if getattr(request, name) is not None},
        "tools": [_tool(tool) for tool in request.tools] if request.tools else None,
        "user": metadata.user_id if metadata else None,
        **_choice(request),
        **_reasoning(request),
        **_form(request),
    }


def _turn(turn: Turn, index: int) -> list[Message]:
    if isinstance(turn.content, str):
        return [{"role": turn.role, "content": turn.content}]
    if turn.role == "assistant":
        return [_assistant(turn.content, index)]
    return _user(turn.role, turn.content, index)


def _user(role: str, blocks: list[Block], index: int) -> list[Message]:
    results, parts = [], []
    for number, block in enumerate(blocks):
        where = f"messages[{index}].content[{number}]"
        if isinstance(block, ToolResult):
            results.append((block.tool_use_id, _result(block, where)))
        else:
            parts.append(_part(block, where))
    made, shown = message.tool_results(results)
    parts = shown + parts
    return [*made, {"role": role, "content": content_of(parts)}] if parts or not made else made


def _assistant(blocks: list[Block], index: int) -> Message:
    parts: list[Part] = []
    calls, thoughts = [], []
    for number, block in enumerate(blocks):
        if isinstance(block, ToolUse):
            arguments = bytes(block.input).decode()
            calls.append(message.tool_call(block.id, block.name, arguments))
        elif isinstance(block, Thinking):
            thoughts.append(block.thinking)
        else:
            parts.append(_part(block, f"messages[{index}].content[{number}]"))
    return {
        "role": "assistant",
        "content": content_of(parts) if parts or not calls else None,
        **({"reasoning_content": "\n\n".join(thoughts)} if thoughts else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def _result(block: ToolResult, where: str) -> list[Part]:
    content = block.content or []
    parts = (
        [text_part(content)]
        if isinstance(content, str)
        else [_part(part, f"{where}.content[{number}]") for number, part in enumerate(content)]
    )
    # Chat has no field for it, and the model must know.
    return [text_part("The tool failed:"), *parts] if block.is_error else parts


def _part(block: Block, where: str) -> Part:
    if isinstance(block, Text):
        return text_part(block.text)
    if isinstance(block, Image):
        source = block.source
        return message.image_part(source.url if isinstance(source, Url) else _data_url(source))
    if isinstance(block, Document):
        return _document(block, where)
    raise Invalid("invalid.request", f"{where}: it cannot stand here", param=where)


def _document(block: Document, where: str) -> Part:
    if block.citations and block.citations.enabled:
        raise cannot(f"{where}.citations", "engines do not cite")
    if isinstance(block.source, Base64):
        file = {"file_data": _data_url(block.source), "filename": block.title or "document"}
        return {"type": "file", "file": file}
    return text_part(
        "\n\n".join(text for text in (block.title, block.context, block.source.data) if text)
    )


def _data_url(source: Base64) -> str:
    return f"data:{source.media_type};base64,{source.data}"


def _tool(tool: Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(request: Request) -> dict[str, object]:
    choice = request.tool_choice
    if choice is None or not request.tools:
        return {}
    if choice.type == "tool" and not choice.name:
        raise Invalid("invalid.request", "tool_choice names no tool", param="tool_choice.name")
    named = {"type": "function", "function": {"name": choice.name}}
    words = {"auto": "auto", "any": "required", "none": "none"}
    parallel = {"parallel_tool_calls": False} if choice.disable_parallel_tool_use else {}
    return {"tool_choice": words.get(choice.type, named), **parallel}


def _reasoning(request: Request) -> dict[str, object]:
    """Say it the ways local engines understand: the template's own switch, and a budget."""
    effort = request.output_config.effort if request.output_config else None
    thinking = request.thinking
    if thinking is None or thinking.type == "adaptive":
        return {"reasoning_effort": effort}
    return {
        "reasoning_effort": effort,
        "chat_template_kwargs": {"enable_thinking": thinking.type == "enabled"},
        "thinking_budget_tokens": thinking.budget_tokens,
    }


def _form(request: Request) -> dict[str, object]:
    form = request.output_format or (request.output_config and request.output_config.format)
    if not form:
        return {}
    schema = {"name": "answer", "schema": form.schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}
