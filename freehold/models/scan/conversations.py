"""Conversations to try a chat template with: system or not, tools or not, thinking or not."""

from typing import Any

_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "description": "Where?"}},
            "required": ["place"],
        },
    },
}
_CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "weather", "arguments": {"place": "Basel"}},
}
_ASKED = {"role": "user", "content": "What is gravity?"}
_SAID = {"role": "assistant", "content": "What makes apples fall."}
_RULES = {"role": "system", "content": "Be brief."}
_TOKENS: dict[str, Any] = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "add_generation_prompt": True,
}

CONVERSATIONS: tuple[dict[str, Any], ...] = (
    {**_TOKENS, "messages": [_ASKED]},
    {**_TOKENS, "messages": [_RULES, _ASKED, _SAID, _ASKED], "enable_thinking": True},
    {
        **_TOKENS,
        "messages": [
            _RULES,
            _ASKED,
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "content": "rain", "name": "weather", "tool_call_id": "call00001"},
        ],
        "tools": [_TOOL],
        "documents": [],
    },
    {**_TOKENS, "messages": [], "add_generation_prompt": False},
)
