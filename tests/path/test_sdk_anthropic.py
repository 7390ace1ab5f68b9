"""Anthropic's SDK, unmodified."""

from collections.abc import Iterator

import anthropic
import pytest
from pydantic import BaseModel

from tests.house import QUESTION, House
from tests.scripted import scripted

TOOL = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture
def client(house: House) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=house.url, api_key=house.key, max_retries=0) as made:
        yield made


def test_message(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(
        model="smol", messages=QUESTION, max_tokens=8, system="Be kind."
    )
    assert answer.content[0].type == "text"
    assert answer.content[0].text
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 8)
    assert answer._request_id
    assert answer._request_id.startswith("req-")


def test_stream_helper(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="smol", messages=QUESTION, max_tokens=8) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 8)
    assert final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0) > 10


def test_tokens_are_counted_by_the_engine(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="smol", messages=QUESTION).input_tokens
    answer = client.messages.create(model="smol", messages=QUESTION, max_tokens=1)
    read = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert counted == read


def test_parsed_answers(client: anthropic.Anthropic) -> None:
    class Colour(BaseModel):
        red: bool

    answer = client.messages.parse(
        model="smol", messages=QUESTION, max_tokens=40, output_format=Colour
    )
    assert isinstance(answer.parsed_output, Colour)


def test_tools_of_an_engine_that_has_them(house: House) -> None:
    begin = {"index": 0, "id": "call_a", "function": {"name": "weather", "arguments": '{"ci'}}
    rest = {"index": 0, "function": {"arguments": 'ty": "Bonn"}'}}
    with scripted() as script:
        script.events = [
            {"choices": [{"index": 0, "delta": {"tool_calls": [begin]}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {"tool_calls": [rest]}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        ]
        document = {"name": "tools", "urls": [script.url]}
        assert house.call("PUT", "/api/deployments/tools", document).status == 200
        try:
            with (
                anthropic.Anthropic(base_url=house.url, auth_token=house.key) as client,
                client.messages.stream(
                    model="tools", messages=QUESTION, max_tokens=8, tools=[TOOL]
                ) as stream,
            ):
                final = stream.get_final_message()
        finally:
            house.call("DELETE", "/api/deployments/tools")
    assert final.stop_reason == "tool_use"
    assert (final.content[0].name, final.content[0].input) == ("weather", {"city": "Bonn"})


def test_errors_are_the_sdks_own(client: anthropic.Anthropic, house: House) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model="none", messages=QUESTION, max_tokens=1)
    assert caught.value.request_id
    assert caught.value.request_id.startswith("req-")
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="smol", messages=[], max_tokens=1)
    with (
        anthropic.Anthropic(base_url=house.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model="smol", messages=QUESTION, max_tokens=1)
