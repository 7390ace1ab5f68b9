"""``freehold repository ...``: who may pull from our own registry, and push to it."""

from datetime import UTC, datetime

import click

from freehold.cli.client import connected, part
from freehold.cli.command import Options, command
from freehold.cli.names import complete
from freehold.cli.output import emit, table


@click.group()
def repository() -> None:
    """Repositories of our own registry: what is there, and who may."""


@command(repository, "list")
def list_(options: Options) -> None:
    """List the repositories: every model is one."""
    with connected(options) as client:
        found = client.get("/api/repositories")
    rows = [
        (each["name"], each["tags"], [f"{g['subject']} {g['access']}" for g in each["grants"]]
         or "by role")
        for each in found
    ]  # fmt: skip
    emit(options, found, table(("NAME", "TAGS", "WHO"), rows, "no repositories yet"))


@command(repository)
def grants(options: Options) -> None:
    """List what is granted."""
    with connected(options) as client:
        found = client.get("/api/grants")
    rows = [
        (each["repository"], each["subject"], each["access"],
         datetime.fromtimestamp(each["created"], UTC).date(), each["created_by"])
        for each in found
    ]  # fmt: skip
    head = ("REPOSITORY", "TO", "ACCESS", "SINCE", "BY")
    emit(options, found, table(head, rows, "nothing is granted: roles decide"))


@command(repository)
@click.argument("name", shell_complete=complete("model"))
@click.option("--to", "subject", required=True, help="principal:NAME, team:NAME or key:ID.")
@click.option("--access", type=click.Choice(["read", "write"]), default="read", show_default=True)
def grant(options: Options, name: str, subject: str, access: str) -> None:
    """Let somebody pull from (read), or push to (write), a repository.

    From the first grant on a repository is theirs who are named in it, and administrators'.
    """
    body = {"repository": name, "subject": subject, "access": access}
    with connected(options) as client:
        found = client.put("/api/grants", body)
    emit(options, found, f"{subject} may {access} {name}")


@command(repository)
@click.argument("name", shell_complete=complete("model"))
@click.option("--to", "subject", required=True, help="principal:NAME, team:NAME or key:ID.")
def revoke(options: Options, name: str, subject: str) -> None:
    """Take back what was granted."""
    with connected(options) as client:
        found = client.delete(f"/api/grants/{part(name)}/{part(subject)}")
    emit(options, found, f"{subject} was taken out of {name}")
