"""``freehold chat``: one question, one streamed answer."""

import sys
from datetime import timedelta
from typing import Any

import click
import msgspec
from pyreqwest.exceptions import PyreqwestError

from freehold.cli.client import read_error, running, unreachable
from freehold.cli.command import Options, command
from freehold.cli.output import emit
from freehold.errors import Unavailable

LOAD_WAIT = 300


@command()
@click.argument("prompt")
@click.option("--model", default="auto", show_default=True, help="A deployment, or auto.")
@click.option("--max-tokens", type=click.IntRange(1), help="Stop after so many.")
def chat(options: Options, prompt: str, model: str, max_tokens: int | None) -> None:
    """Ask PROMPT and print the answer as it comes."""
    if prompt == "-":
        prompt = sys.stdin.read()
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
    }
    if max_tokens:
        body["max_tokens"] = max_tokens
    door = running(options)
    request = door.client.post(f"{door.url}/v1/chat/completions").bearer_auth(door.key)
    request = request.streamed_read_buffer_limit(0)
    request = request.header("prefer", f"wait={LOAD_WAIT}")
    request = request.body_bytes(msgspec.json.encode(body))
    answer = _Answer(echo=not options.as_json)
    try:
        with request.timeout(timedelta(hours=1)).build_streamed() as response:
            if response.status != 200:
                found = msgspec.json.decode(response.bytes().to_bytes())
                raise read_error(response.status, found)
            document: dict[str, Any] = {
                "request": response.get_header("x-freehold-request"),
                "deployment": response.get_header("x-freehold-deployment"),
            }
            rest = b""
            while (chunk := response.body_reader.read_chunk()) is not None:
                *lines, rest = (rest + chunk.to_bytes()).split(b"\n\n")
                for line in lines:
                    answer.take(line)
    except PyreqwestError as error:
        raise unreachable(door.url) from error
    finally:
        door.close()
    document |= {"content": answer.text, "usage": answer.usage}
    emit(options, document, "" if answer.text.endswith("\n") else " ")


class _Answer:
    def __init__(self, *, echo: bool) -> None:
        self.text = ""
        self.usage: dict[str, Any] | None = None
        self._echo = echo

    def take(self, line: bytes) -> None:
        data = line.removeprefix(b"data: ")
        if data == b"[DONE]":
            return
        event = msgspec.json.decode(data)
        if event.get("error"):
            raise Unavailable("unavailable.answer", str(event["error"].get("message")))
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices", ()):
            piece = choice.get("delta", {}).get("content") or ""
            self.text += piece
            if self._echo:
                click.echo(piece, nl=False)
