"""``freehold model gc, storage``: the bytes of all models together."""

import click

from freehold.cli.client import connected
from freehold.cli.command import Options, command
from freehold.cli.output import emit, follow, table
from freehold.cli.words import moment, size


@command()
@click.option("--plan", is_flag=True, help="Only say what would be done.")
@click.option("--pack-after", type=float, metavar="SECONDS",
              help="Pack what nobody has used for so long [registry.pack_after].")  # fmt: skip
def gc(options: Options, plan: bool, pack_after: float | None) -> None:
    """Delete what no version needs, and pack versions nobody uses.

    A packed version is kept as chunks, which it shares with its family; deploying it puts it
    together again.
    """
    with connected(options) as client:
        job = client.post("/api/registry/gc", {"plan": plan, "pack_after": pack_after})
        result = follow(client, job, "gc")
    rows = [("delete" if plan else "deleted", e["kind"], e["name"][:16], size(e["bytes"]), "-")
            for e in result["loose"]]  # fmt: skip
    rows += [
        ("pack" if plan else "packed" if e["packed"] else "kept whole", "blob", e["digest"][:16],
         size(e["bytes"]), size(e["shared"]))
        for e in result["packing"]
    ]  # fmt: skip
    head = ("ACT", "KIND", "WHAT", "SIZE", "SHARED")
    freed = max(0, result["before"] - result["after"])
    total = "nothing was changed" if plan else f"{size(freed)} freed"
    emit(options, result, f"{table(head, rows, 'nothing to do')}\n{total}")


@command()
def storage(options: Options) -> None:
    """Show what models take on disk, what sharing saves, and who has how much."""
    with connected(options) as client:
        found = client.get("/api/registry")
    stored = found["storage"]
    saved = 1 - stored["stored"] / stored["logical"] if stored["logical"] else 0.0
    lines = [
        f"{stored['versions']} versions, {stored['files']} files, {stored['packed']} packed",
        f"{size(stored['stored'])} on disk for {size(stored['logical'])}: "
        f"{max(0.0, saved):.0%} saved",
        f"longest unread since {moment(stored['oldest_check']) or 'never'} UTC, "
        f"{stored['unchecked']} never read",
        *(f"DAMAGED sha256:{digest}" for digest in stored["damaged"]),
    ]
    rows = [(u["subject"], size(u["bytes"]), size(u["quota"]) if u["quota"] else "any")
            for u in found["uses"]]  # fmt: skip
    lines.append(table(("WHOSE", "HAVE", "MAY HAVE"), rows, ""))
    emit(options, found, "\n".join(lines))
