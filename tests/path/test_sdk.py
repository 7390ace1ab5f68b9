"""The official SDK, unmodified."""

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
