"""LlamaIndex, by its class for servers that are like OpenAI's."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

URL, KEY = os.environ["FREEHOLD_URL"], os.environ["FREEHOLD_KEY"]
model = OpenAILike(
    model="smol", api_base=f"{URL}/v1", api_key=KEY, is_chat_model=True, max_tokens=12,
    max_retries=0,
)  # fmt: skip
message = ChatMessage(role="user", content="What is gravity?")
assert model.chat([message]).message.content
assert "".join(part.delta or "" for part in model.stream_chat([message]))
assert model.complete("One, two,").text
print("chat, stream, complete")
