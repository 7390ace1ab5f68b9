"""``freehold chat``: one question, one streamed answer."""

import sys
from datetime import timedelta
from typing import Any

import click
import msgspec
from pyreqwest.exceptions import PyreqwestError

from freehold.cli.client import Remote, answering, unreachable
from freehold.cli.command import Options, command
from freehold.cli.names import complete
from freehold.cli.output import emit, say
from freehold.cli.question import SYSTEM, messages
from freehold.errors import FreeholdError, Unavailable

LOAD_WAIT = 300
AUTO = "auto"


@command()
@click.argument("prompt")
@click.option("--model", default=AUTO, show_default=True, shell_complete=complete("deployment"),
              help="A deployment, or auto.")  # fmt: skip
@click.option("--system", default=SYSTEM, show_default=True, help="Who it is; '' says nothing.")
@click.option("--temperature", type=click.FloatRange(0, 2),
              help="0 is the likeliest answer, and the same again; more is livelier.")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(1), help="Stop after so many.")
def chat(
    options: Options,
    prompt: str,
    model: str,
    system: str,
    temperature: float | None,
    max_tokens: int | None,
) -> None:
    """Ask PROMPT, or what - reads from standard input, and print the answer as it comes."""
    if prompt == "-":
        prompt = sys.stdin.read()
    body = {"model": model, "messages": messages(prompt, system), "stream": True}
    body |= {"temperature": temperature} if temperature is not None else {}
    body |= {"max_tokens": max_tokens} if max_tokens else {}
    door = answering(options)
    answer = _Answer(echo=not options.as_json)
    try:
        _ask(door, body, answer)
    except FreeholdError:
        answer.break_off()
        raise
    finally:
        door.close()
    emit(options, answer.document(), "" if answer.text.endswith("\n") else " ")
    _remark(answer, model)


def _ask(door: Remote, body: dict[str, Any], answer: "_Answer") -> None:
    request = door.client.post(f"{door.url}/v1/chat/completions").bearer_auth(door.key)
    request = request.streamed_read_buffer_limit(0)
    request = request.header("prefer", f"wait={LOAD_WAIT}")
    request = request.body_bytes(msgspec.json.encode(body))
    try:
        with request.timeout(timedelta(hours=1)).build_streamed() as response:
            if response.status != 200:
                raise door.refusal(response.status, _decoded(response.bytes().to_bytes()))
            answer.request = response.get_header("x-freehold-request")
            answer.deployment = response.get_header("x-freehold-deployment")
            rest = b""
            while (chunk := response.body_reader.read_chunk()) is not None:
                *lines, rest = (rest + chunk.to_bytes()).split(b"\n\n")
                for line in lines:
                    answer.take(line)
    except PyreqwestError as error:
        if answer.text:
            raise _cut("the connection ended") from error
        raise unreachable(door.url, error) from error
    if not answer.whole:
        raise _cut("the connection ended")


def _remark(answer: "_Answer", model: str) -> None:
    """Say what the answer itself does not tell."""
    if model not in (AUTO, answer.deployment):
        say(f"{answer.deployment} answered: {model} could not")
    if answer.finish == "length":
        say("cut: the most tokens were reached (--max-tokens, or the context)")


def _cut(why: str) -> FreeholdError:
    return Unavailable("unavailable.answer", f"the answer was cut: {why}")


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None


class _Answer:
    def __init__(self, *, echo: bool) -> None:
        self.text = ""
        self.usage: dict[str, Any] | None = None
        self.request: str | None = None
        self.deployment: str | None = None
        self.finish: str | None = None
        self.whole = False
        self._echo = echo

    def take(self, line: bytes) -> None:
        data = line.removeprefix(b"data: ")
        if data == b"[DONE]":
            self.whole = True
            return
        event = msgspec.json.decode(data)
        if event.get("error"):
            raise _cut(str(event["error"].get("message")))
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices", ()):
            self.finish = choice.get("finish_reason") or self.finish
            piece = choice.get("delta", {}).get("content") or ""
            self.text += piece
            if self._echo:
                click.echo(piece, nl=False)

    def break_off(self) -> None:
        """End the line that was begun, so that what went wrong stands on one of its own."""
        if self._echo and self.text and not self.text.endswith("\n"):
            click.echo()

    def document(self) -> dict[str, Any]:
        return {
            "request": self.request,
            "deployment": self.deployment,
            "content": self.text,
            "finish_reason": self.finish,
            "usage": self.usage,
        }
