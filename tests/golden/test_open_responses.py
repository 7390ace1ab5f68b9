"""What the Responses API answers is what Open Responses (2026-04-24) says, by its own types."""

import json
from pathlib import Path
from typing import Any

import openresponses_types as spec
import pytest
from pydantic import BaseModel

CASES = [
    (path, case)
    for path in sorted((Path(__file__).parent / "responses").glob("*.json"))
    if (case := json.loads(path.read_text()))["status"] == 200 and "count" not in path.stem
]
EVENTS: dict[str, type[BaseModel]] = {
    "response.created": spec.ResponseCreatedStreamingEvent,
    "response.in_progress": spec.ResponseInProgressStreamingEvent,
    "response.completed": spec.ResponseCompletedStreamingEvent,
    "response.failed": spec.ResponseFailedStreamingEvent,
    "response.incomplete": spec.ResponseIncompleteStreamingEvent,
    "response.output_item.added": spec.ResponseOutputItemAddedStreamingEvent,
    "response.output_item.done": spec.ResponseOutputItemDoneStreamingEvent,
    "response.content_part.added": spec.ResponseContentPartAddedStreamingEvent,
    "response.content_part.done": spec.ResponseContentPartDoneStreamingEvent,
    "response.output_text.delta": spec.ResponseOutputTextDeltaStreamingEvent,
    "response.output_text.done": spec.ResponseOutputTextDoneStreamingEvent,
    "response.refusal.delta": spec.ResponseRefusalDeltaStreamingEvent,
    "response.refusal.done": spec.ResponseRefusalDoneStreamingEvent,
    "response.reasoning.delta": spec.ResponseReasoningDeltaStreamingEvent,
    "response.reasoning.done": spec.ResponseReasoningDoneStreamingEvent,
    "response.function_call_arguments.delta": spec.ResponseFunctionCallArgumentsDeltaStreamingEvent,
    "response.function_call_arguments.done": spec.ResponseFunctionCallArgumentsDoneStreamingEvent,
}
FINAL = ("response.completed", "response.incomplete", "response.failed")


@pytest.mark.parametrize(("path", "case"), CASES, ids=[path.stem for path, _ in CASES])
def test_case_is_of_the_specification(path: Path, case: dict[str, Any]) -> None:
    answer = case["answer"]
    if isinstance(answer, dict):
        spec.ResponseResource.model_validate(_as_specified(answer))
        return
    *told, done = answer
    assert done == "data: [DONE]"
    events = [json.loads(text.partition("\ndata: ")[2]) for text in told]
    assert [text.partition("\n")[0] for text in told] == [f"event: {e['type']}" for e in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events if event["type"] in FINAL] == [events[-1]["type"]]
    for event in events:
        if "response" in event:
            event["response"] = _as_specified(event["response"])
        EVENTS[event["type"]].model_validate(event)
    _adds_up(events)


def _adds_up(events: list[dict[str, Any]]) -> None:
    """Every part of the final response was told by the deltas before."""
    said: dict[tuple[int, int], str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            key = event["output_index"], event.get("content_index", 0)
            said[key] = said.get(key, "") + event["delta"]
    for index, item in enumerate(events[-1]["response"]["output"]):
        if item["type"] == "function_call":
            assert said[index, 0] == item["arguments"]
        for place, part in enumerate(item.get("content", ())):
            assert said[index, place] == part.get("text", part.get("refusal"))


def _as_specified(response: dict[str, Any]) -> dict[str, Any]:
    """The specification knows an echoed schema as null only; we echo it, as OpenAI does."""
    form = response["text"]["format"]
    if form["type"] != "json_schema":
        return response
    assert form["schema"]
    return {**response, "text": {"format": {**form, "schema": None}}}
