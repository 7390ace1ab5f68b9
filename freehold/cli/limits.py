"""``freehold limit ...``: how much keys, principals, teams and deployments may use."""

from typing import Any

import click

from freehold.cli.client import connected
from freehold.cli.command import Options, command
from freehold.cli.output import emit, table
from freehold.cli.words import moment
from freehold.policy.quotas import MEASURES
from freehold.record.windows import WINDOWS


@click.group()
def limit() -> None:
    """Limits and budgets: how much may they use?"""


@command(limit, "set")
@click.argument("of", metavar="OF")
@click.argument("limits", metavar="LIMIT...", nargs=-1, required=True)
def set_(options: Options, of: str, limits: tuple[str, ...]) -> None:
    """Set limits of OF: key:ID, principal:NAME, team:NAME or deployment:NAME.

    A LIMIT reads MEASURE=AMOUNT/WINDOW, as tokens=100000/day, money=25.50/month or
    requests=60/minute; without a window, as money=100 or concurrency=4, it is a hard cap.
    Measures: requests, tokens_in, tokens_out, tokens, money, concurrency. Windows are minutes, days
    and months of the UTC calendar.
    """
    body = {"limits": [entry(of, text) for text in limits]}
    with connected(options, creates=True) as client:
        found = client.put("/api/limits", body)
    emit(options, found, _table(found))


@command(limit, "list")
@click.argument("of", metavar="[OF]", required=False)
def list_(options: Options, of: str | None) -> None:
    """List limits, and what is used of them."""
    with connected(options) as client:
        found = client.get("/api/limits", of=of)
    emit(options, found, _table(found))


@command(limit)
@click.argument("of", metavar="OF")
@click.argument("which", metavar="[MEASURE[/WINDOW]]", required=False)
def remove(options: Options, of: str, which: str | None) -> None:
    """Remove the limits of OF, or those of a measure, or one."""
    measure, _, per = (which or "").partition("/")
    with connected(options) as client:
        found = client.delete("/api/limits", of=of, measure=measure or None, per=per or None)
    emit(options, found, f"{len(found)} removed")


def entry(of: str, text: str) -> dict[str, Any]:
    """Return the entry that ``MEASURE=AMOUNT/WINDOW`` stands for; checked by who takes it."""
    measure, equals, rest = text.partition("=")
    amount, slash, per = rest.partition("/")
    try:
        number = float(amount) if "." in amount or "e" in amount else int(amount)
    except ValueError:
        number = None
    if not equals or number is None or (slash and not per):
        raise click.BadParameter(
            f"{text!r:.80} is no limit: write MEASURE=AMOUNT or MEASURE=AMOUNT/WINDOW"
        )
    for word, known, what in ((measure, MEASURES, "measure"), (per or "total", WINDOWS, "window")):
        if word not in known:
            raise click.BadParameter(f"{word!r:.40} is no {what}: it is one of {', '.join(known)}")
    return {"of": of, "measure": measure, "amount": number, "per": per or "total"}


def _table(found: list[dict[str, Any]]) -> str:
    rows = [
        (
            each["of"], each["measure"], each["per"], f"{each['amount']:,}", f"{each['spent']:,}",
            f"{each['reserved']:,}", moment(each["resets"]),
        )
        for each in found
    ]  # fmt: skip
    head = ("OF", "MEASURE", "PER", "AMOUNT", "SPENT", "RESERVED", "RESETS")
    return table(head, rows, "no limits")
