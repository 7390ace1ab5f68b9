"""The cases of the Open Responses compliance suite, checked by the specification's own types."""

import json
import os
import urllib.request
from typing import Any

import openresponses_types as spec

from tests.golden.test_open_responses import EVENTS

URL, KEY = os.environ["FREEHOLD_URL"], os.environ["FREEHOLD_KEY"]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}


def says(text: object, role: str = "user") -> dict[str, object]:
    return {"type": "message", "role": role, "content": text}


WEATHER = {"model": "tools", "input": [says("Weather in San Francisco?")], "tools": [TOOL]}
IMAGE = [
    {"type": "input_text", "text": "What is it?"},
    {"type": "input_image", "image_url": PIXEL},
]
CASES: dict[str, dict[str, Any]] = {
    "basic-response": {"input": [says("Say hello in exactly 3 words.")]},
    "streaming-response": {"input": [says("Count from 1 to 5.")], "stream": True},
    "system-prompt": {"input": [says("You are a pirate.", "system"), says("Say hello.")]},
    "tool-calling": WEATHER,
    "tool-calling-streaming": {**WEATHER, "stream": True},
    "image-input": {"model": "texts", "input": [says(IMAGE)]},
    "multi-turn": {
        "input": [says("My name is Alice."), says("Hello Alice!", "assistant"), says("My name?")]
    },
}


def ask(body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(f"{URL}/v1/responses", json.dumps(body).encode())
    request.add_header("authorization", f"Bearer {KEY}")
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=300) as response:
        found: bytes = response.read()
    return found


def final_of(body: bytes) -> tuple[dict[str, Any], list[str]]:
    *told, done, _ = body.decode().split("\n\n")
    assert done == "data: [DONE]"
    events = [json.loads(text.partition("\ndata: ")[2]) for text in told]
    for event in events:
        EVENTS[event["type"]].model_validate(event)
    return events[-1]["response"], [event["type"] for event in events]


for name, case in CASES.items():
    body = ask({"model": "smol", **case})
    response, kinds = final_of(body) if case.get("stream") else (json.loads(body), [])
    spec.ResponseResource.model_validate(response)
    assert response["output"], name
    assert response["status"] == "completed", name
    if "tools" in case:
        assert "function_call" in [item["type"] for item in response["output"]]
    if "tools" in case and kinds:
        wanted = {
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
        }
        assert wanted <= set(kinds)
print(f"{len(CASES)} cases: {', '.join(CASES)}")
