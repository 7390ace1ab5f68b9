"""What ``freehold up`` does for the person at the terminal: a starter model, a first answer."""

import shlex
import textwrap
from typing import Any

import click
import msgspec
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from freehold import __version__
from freehold.cli.output import say
from freehold.cli.progress import progress
from freehold.cli.question import messages
from freehold.cli.words import counted
from freehold.control.control import Control
from freehold.errors import FreeholdError
from freehold.models.catalog import CatalogEntry, read_catalog
from freehold.models.deployment import Deployment
from freehold.models.pipeline import Arrival

QUESTION = "What is the capital of France?"
LONGEST = 100


class Welcome:
    """Brings the starter model into an empty home; asks it a question; shows how to repeat it."""

    def __init__(self, *, starter: bool, as_json: bool) -> None:
        self._starter = starter
        self._as_json = as_json

    async def prepare(self, control: Control) -> None:
        """Fetch and deploy the starter model when the home has nothing yet."""
        say(f"Freehold {__version__} starts on {control.home.root}")
        entry = _starter(control)
        if not self._starter or entry is None:
            return
        if control.deployments.all() or entry.name in control.registry.names():
            return
        if await self._bring_in(entry, control):
            deployment = Deployment(name=entry.name, model=entry.name)
            control.deployments.put(deployment, control.clock(), "admin")
            control.reconcile()

    async def greet(self, control: Control) -> None:
        """Print a real answer, the URL, and how to ask again."""
        await control.came_up.wait()
        name = _chosen(control)
        answer = await _ask(name, control) if name else None
        if self._as_json:
            document = {
                "url": control.public_url,
                "home": str(control.home.root),
                "admin_key": str(control.home.admin_key),
                "deployment": name,
                "answer": answer,
            }
            click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
            return
        click.echo(_text(control, name, answer))

    def stopping(self, control: Control) -> None:
        """Say what a clean stop waits for."""
        doors = (sighting.door for sighting in control.publisher.sightings.values())
        running = sum(door.requests for door in doors)
        grace = control.settings.server.shutdown_grace
        if running:
            what = f"finishing {counted(running, 'request')}, up to {grace:.0f} s"
            say(f"\n{what}; Ctrl-C again to stop at once")
        else:
            say("\nstopping")

    async def _bring_in(self, entry: CatalogEntry, control: Control) -> bool:
        job = control.start_import(Arrival(source=entry.name, name=entry.name), "admin")
        with progress(entry.name) as shown:
            while job.state == "running":
                shown.show(job.stage, job.done, job.total)
                await control.jobs.wait(job.id, 0.1)
        if job.error is not None:
            say(
                f"the starter model could not be fetched: {job.error.message}\n"
                "everything else works: bring a model in with freehold model import"
            )
        return job.error is None


def _starter(control: Control) -> CatalogEntry | None:
    entries = read_catalog(control.settings.sources.catalog).values()
    return next((entry for entry in entries if entry.starter), None)


def _chosen(control: Control) -> str | None:
    entry = _starter(control)
    ready = [
        route
        for route in control.publisher.snapshot.routes.values()
        if route.state == "ready" and route.task == "chat" and route.digest is not None
    ]
    names = sorted(route.deployment for route in ready)
    if entry is not None and entry.name in names:
        return entry.name
    return names[0] if names else None


async def _ask(name: str, control: Control) -> str | None:
    try:
        key = control.home.admin_key.read_text(encoding="ascii").strip()
        # It is our own port: who answers there needs no proof.
        builder = ClientBuilder().no_proxy().danger_accept_invalid_certs(True)
        client = builder.build() if control.public_url.startswith("https") else control.client
        request = client.post(f"{control.public_url}/v1/chat/completions")
        request = request.bearer_auth(key).header("prefer", "wait=60")
        response = await request.body_bytes(_question(name)).build().send()
        found: dict[str, Any] = msgspec.json.decode((await response.bytes()).to_bytes())
        if response.status != 200:
            say(f"{name} does not answer: {found['error']['message']}")
            return None
        return str(found["choices"][0]["message"]["content"]).strip()
    except (PyreqwestError, msgspec.DecodeError, FreeholdError, OSError) as error:
        say(f"{name} does not answer: {error}")
        return None


def _question(name: str) -> bytes:
    """Return the body that is sent here and shown for others to send: nothing is added to it."""
    return msgspec.json.encode(
        {
            "model": name,
            "temperature": 0,
            "max_tokens": LONGEST,
            "messages": messages(QUESTION),
        }
    )


def _listed() -> str:
    lines = [msgspec.json.encode(each).decode() for each in messages(QUESTION)]
    return "\n".join(f"        {line}," for line in lines)


def _text(control: Control, name: str | None, answer: str | None) -> str:
    url, key_file = control.public_url, str(control.home.admin_key)
    head = f"\nFreehold serves {url}\n"
    if name is None and (there := sorted(each.name for each in control.deployments.all())):
        names = ", ".join(there[:5]) + (" ..." if there[5:] else "")
        return f"{head}\nNo answer to show yet: see freehold status for {names}.\n\nCtrl-C stops."
    if name is None:
        return head + (
            "\nNothing is deployed yet. See freehold model catalog, then\n"
            "  freehold model import NAME\n  freehold deploy NAME\n\nCtrl-C stops."
        )
    told = textwrap.indent(textwrap.fill(answer, 90), "  ") if answer else "  (no answer)"
    return f"""{head}
You:  {QUESTION}
{name}:
{told}

Ask again with curl:

curl {url}/v1/chat/completions \\
  -H "Authorization: Bearer $(cat {shlex.quote(key_file)})" \\
  -H "Content-Type: application/json" \\
  -d {shlex.quote(_question(name).decode())}

or with the OpenAI SDK (pip install openai):

from pathlib import Path
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key=Path({key_file!r}).read_text().strip())
answer = client.chat.completions.create(
    model="{name}",
    temperature=0,
    max_tokens={LONGEST},
    messages=[
{_listed()}
    ],
)
print(answer.choices[0].message.content)

Ctrl-C stops."""
