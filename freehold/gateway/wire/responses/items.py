"""Items: the units of a conversation, as clients send them and as they are kept."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from freehold.gateway.wire import message
from freehold.gateway.wire.call import decode
from freehold.gateway.wire.message import Message, Part, cannot, content_of, text_part


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    """A text."""

    text: str


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """A text of the model's."""

    text: str


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal"):
    """A refusal of the model's."""

    refusal: str


class InputImage(msgspec.Struct, tag_field="type", tag="input_image"):
    """An image, by URL or data URL."""

    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class InputFile(msgspec.Struct, tag_field="type", tag="input_file"):
    """A file, in the request itself."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None


class InputAudio(msgspec.Struct, tag_field="type", tag="input_audio"):
    """Sound, in the request itself."""

    input_audio: msgspec.Raw


Content = InputText | OutputText | RefusalPart | InputImage | InputFile | InputAudio


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    """A message."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Content]


class CallItem(msgspec.Struct, tag_field="type", tag="function_call"):
    """A tool call that the model made."""

    call_id: str
    name: str
    arguments: str


class ResultItem(msgspec.Struct, tag_field="type", tag="function_call_output"):
    """What the tool answered."""

    call_id: str
    output: str | list[InputText | InputImage | InputFile]


class ReasoningText(msgspec.Struct):
    """A part of reasoning or of its summary."""

    text: str


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning"):
    """Reasoning of an earlier turn."""

    summary: list[ReasoningText] = []
    content: list[ReasoningText] | None = None


Item = MessageItem | CallItem | ResultItem | ReasoningItem

_ITEM: msgspec.json.Decoder[Item] = msgspec.json.Decoder(Item)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def normalised(given: str | Sequence[msgspec.Raw] | None, prefix: str) -> list[dict[str, Any]]:
    """Return input items in full: with type, id, status, and content as parts."""
    if isinstance(given, str):
        given = [msgspec.Raw(msgspec.json.encode({"role": "user", "content": given}))]
    return [_full(raw, index, prefix) for index, raw in enumerate(given or ())]


def _full(raw: msgspec.Raw, index: int, prefix: str) -> dict[str, Any]:
    item = decode(bytes(raw), _OBJECT, f"input[{index}]")
    kind = item["type"] = item.get("type") or "message"
    if not item.get("id"):
        item["id"] = f"{'msg' if kind == 'message' else 'it'}_{prefix}_in{index}"
    if kind != "reasoning" and not item.get("status"):
        item["status"] = "completed"
    if kind == "message" and isinstance(item.get("content"), str):
        text = {"text": item["content"]}
        own = item.get("role") == "assistant"
        part = {"type": "output_text", **text, "annotations": [], "logprobs": []}
        item["content"] = [part if own else {"type": "input_text", **text}]
    return item


def chat_messages(items: Iterable[dict[str, Any]]) -> list[Message]:
    """Return the chat messages that items come to; those of one turn of the model become one."""
    turns = _Turns()
    for index, item in enumerate(items):
        where = f"input[{index}]"
        turns.take(decode(msgspec.json.encode(item), _ITEM, where), where)
    return turns.done()


class _Turns:
    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._turn: Message | None = None
        self._results: list[tuple[str, list[Part]]] = []
        self._shown: list[Part] = []

    def take(self, item: Item, where: str) -> None:
        if isinstance(item, ResultItem):
            self._turn = None
            self._results.append((item.call_id, _parts(item.output, f"{where}.output")))
            return
        self._answered(within=isinstance(item, MessageItem) and item.role == "user")
        if isinstance(item, ReasoningItem):
            thought = "\n\n".join(part.text for part in (item.content or item.summary))
            if thought:
                self._model(fresh=True)["reasoning_content"] = thought
        elif isinstance(item, CallItem):
            calls = self._model().setdefault("tool_calls", [])
            calls.append(message.tool_call(item.call_id, item.name, item.arguments))
        elif item.role == "assistant":
            self._model(fresh=True)["content"] = content_of(_parts(item.content, where))
        else:
            self._turn = None
            role = "user" if item.role == "user" else "system"
            parts = self._shown + _parts(item.content, f"{where}.content")
            self._shown = []
            self._messages.append({"role": role, "content": content_of(parts)})

    def done(self) -> list[Message]:
        self._answered()
        return self._messages

    def _answered(self, *, within: bool = False) -> None:
        """Write tool results; ``within``: the user's message that comes has what they show."""
        made, shown = message.tool_results(self._results)
        self._messages += made
        self._results = []
        if within:
            self._shown = shown
        elif shown:
            self._messages.append({"role": "user", "content": shown})

    def _model(self, *, fresh: bool = False) -> Message:
        """Return the model's message under way; ``fresh`` starts another if it has said things."""
        turn = self._turn
        if turn is None or (fresh and (turn["content"] is not None or "tool_calls" in turn)):
            turn = self._turn = {"role": "assistant", "content": None}
            self._messages.append(turn)
        return turn


def _parts(content: str | Sequence[Content], where: str) -> list[Part]:
    if isinstance(content, str):
        return [text_part(content)]
    return [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]


def _part(part: Content, where: str) -> Part:
    if isinstance(part, RefusalPart):
        return text_part(part.refusal)
    if isinstance(part, InputImage):
        if part.image_url is None:
            raise cannot(f"{where}.file_id", "no files are kept here: send image_url")
        return message.image_part(part.image_url, part.detail)
    if isinstance(part, InputFile):
        if part.file_data is None:
            raise cannot(f"{where}.file_id", "no files are kept or fetched here: send file_data")
        name = {"filename": part.filename} if part.filename else {}
        return {"type": "file", "file": {"file_data": part.file_data, **name}}
    if isinstance(part, InputAudio):
        return {"type": "input_audio", "input_audio": part.input_audio}
    return text_part(part.text)
