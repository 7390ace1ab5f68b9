"""OpenAI's SDK, unmodified."""

from collections.abc import Iterator

import openai
import pytest
from pydantic import BaseModel

from tests.house import QUESTION, House


@pytest.fixture
def client(house: House) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=house.key, max_retries=0) as made:
        yield made


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.completion_tokens == 8


def test_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="smol", messages=QUESTION, max_tokens=8, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    *events, last = list(stream)
    assert "".join(event.choices[0].delta.content or "" for event in events)
    assert last.choices == []
    assert last.usage
    assert last.usage.completion_tokens == 8


def test_stream_helper(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Write one sentence about the sea."}]
    with client.chat.completions.stream(model="smol", messages=messages, temperature=0) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content


def test_parsed_answers(client: openai.OpenAI) -> None:
    class Colour(BaseModel):
        red: bool

    answer = client.chat.completions.parse(
        model="smol", messages=QUESTION, response_format=Colour, max_tokens=40
    )
    assert isinstance(answer.choices[0].message.parsed, Colour)


def test_completions_embeddings_and_models(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="smol", prompt="One, two,", max_tokens=4)
    assert answer.choices[0].text
    vectors = client.embeddings.create(model="smol", input=["a", "b"])
    assert len(vectors.data[1].embedding) == 576
    assert [model.id for model in client.models.list()] == ["auto", "smol"]
    assert client.models.retrieve("smol").id == "smol"


def test_raw_headers_name_the_request(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=QUESTION, max_tokens=2
    )
    assert raw.headers["x-freehold-deployment"] == "smol"


def test_errors_are_the_sdks_own(client: openai.OpenAI, house: House) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="none", messages=QUESTION)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="smol", messages=[])
    with (
        openai.OpenAI(base_url=f"{house.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


async def test_async_client(house: House) -> None:
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=house.key) as client:
        stream = await client.chat.completions.create(
            model="smol", messages=QUESTION, max_tokens=4, stream=True
        )
        pieces = [event.choices[0].delta.content or "" async for event in stream]
    assert "".join(pieces)


TOOL = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def test_responses_stored_and_continued(client: openai.OpenAI) -> None:
    first = client.responses.create(
        model="smol", input="My name is Ada.", max_output_tokens=16, temperature=0
    )
    assert first.output_text
    assert (first.status, first.usage and first.usage.output_tokens) == ("incomplete", 16)
    second = client.responses.create(
        model="smol", input="What is my name?", previous_response_id=first.id, max_output_tokens=30
    )
    assert second.usage
    assert first.usage
    assert second.usage.input_tokens > first.usage.input_tokens + 16
    assert client.responses.retrieve(first.id).output_text == first.output_text
    items = client.responses.input_items.list(first.id).data
    assert [item.type for item in items] == ["message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_responses_stream_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="smol", input="Write one sentence about the sea.", temperature=0, store=False
    ) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text
    assert text


def test_responses_parse(client: openai.OpenAI) -> None:
    class Colour(BaseModel):
        red: bool

    answer = client.responses.parse(
        model="smol", input="Red?", text_format=Colour, max_output_tokens=40, store=False
    )
    assert isinstance(answer.output_parsed, Colour)
    assert client.responses.input_tokens.count(model="smol", input="Red?").input_tokens > 5


def test_tools_may_be_sent_and_streamed(client: openai.OpenAI) -> None:
    chat_tool = {"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}
    with client.chat.completions.stream(
        model="smol", messages=QUESTION, tools=[chat_tool], max_tokens=16
    ) as stream:
        for _ in stream:
            pass
    events = list(
        client.responses.create(
            model="smol", input="Weather in Bonn?", tools=[TOOL], tool_choice="required",
            max_output_tokens=24, stream=True, store=False,
        )
    )  # fmt: skip
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
