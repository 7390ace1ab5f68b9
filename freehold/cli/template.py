"""A version's chat template: what its engine makes a prompt of a conversation with."""

import hashlib

from freehold.cli.client import connected, part
from freehold.cli.command import Options
from freehold.cli.output import emit
from freehold.cli.versions import number_of, resolve
from freehold.cli.words import plain
from freehold.errors import Missing


def show_template(options: Options, name: str) -> None:
    """Print the template of NAME, NAME:NUMBER or NAME:ALIAS as it is; ``Missing`` for none."""
    with connected(options) as client:
        model_name, number = resolve(client, name)
        found = client.get(f"/api/models/{part(model_name)}")
    number = number_of(found, str(number))
    version = next(each for each in found["versions"] if each["number"] == number)
    text = version["manifest"]["chat_template"]
    title = f"{model_name}:{number}"
    if not text:
        raise Missing("missing.template", f"{title} has no chat template: it is not tuned for chat")
    document = {"version": title, "sha256": _digest(text), "template": text}
    # As it is, but for what would be a command to a terminal.
    emit(options, document, plain(text))


def described(text: str | None) -> str:
    """Return how a template is told apart from another at a glance."""
    if not text:
        return "none: not tuned for chat"
    return f"sha256:{_digest(text)[:12]}, {len(text)} characters: --template prints it"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
