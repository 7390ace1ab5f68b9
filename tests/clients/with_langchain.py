"""LangChain, by OpenAI's API (chat and responses) and by Anthropic's."""

import os

from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

URL, KEY = os.environ["FREEHOLD_URL"], os.environ["FREEHOLD_KEY"]
OPENAI = {"model": "smol", "base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0}


class Colour(BaseModel):
    """A colour."""

    red: bool


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return city


for model in (
    ChatOpenAI(**OPENAI, max_tokens=12),
    ChatOpenAI(**OPENAI, max_tokens=20, use_responses_api=True),
    ChatAnthropic(model="smol", base_url=URL, api_key=KEY, max_tokens=12),
):
    answer = model.invoke("What is gravity?")
    assert answer.text, answer
    assert answer.usage_metadata["output_tokens"] > 0
    chunks = list(model.stream("What is gravity?"))
    assert "".join(chunk.text for chunk in chunks)
structured = ChatOpenAI(**OPENAI, max_tokens=40).with_structured_output(Colour)
assert isinstance(structured.invoke("Red?"), Colour)
for model in (
    ChatOpenAI(**{**OPENAI, "model": "tools"}),
    ChatOpenAI(**{**OPENAI, "model": "tools"}, use_responses_api=True),
    ChatAnthropic(model="tools", base_url=URL, api_key=KEY, max_tokens=64),
):
    bound = model.bind_tools([weather])
    assert bound.invoke("Weather?").tool_calls[0]["args"] == {"city": "Bonn"}
    total = None
    for chunk in bound.stream("Weather?"):
        total = chunk if total is None else total + chunk
    assert total is not None
    assert total.tool_calls[0]["args"] == {"city": "Bonn"}, total
vectors = OpenAIEmbeddings(
    model="smol", base_url=f"{URL}/v1", api_key=KEY, check_embedding_ctx_length=False
).embed_documents(["a", "b"])
assert len(vectors[1]) == 576
print("chat, responses, messages; streams; tools; structured; embeddings")
