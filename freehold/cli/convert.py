"""``freehold model convert``: a GGUF version of a safetensors one."""

import click

from freehold.cli.client import connected, part
from freehold.cli.command import Options, command
from freehold.cli.models import model
from freehold.cli.names import complete
from freehold.cli.output import emit, follow
from freehold.cli.versions import resolve
from freehold.cli.words import size


@command(model)
@click.argument("name", shell_complete=complete("model", "alias", "version"))
@click.option(
    "--type",
    "kind",
    type=click.Choice(["f16", "bf16", "f32"]),
    help="What matrices are written as [as they are stored].",
)
def convert(options: Options, name: str, kind: str | None) -> None:
    """Make a GGUF version of NAME[:VERSION], which was imported as safetensors.

    The original is kept; the new version names it in its lineage.
    """
    with connected(options) as client:
        named, number = resolve(client, name)
        path = f"/api/models/{part(named)}/versions/{number}/convert"
        result = follow(client, client.post(path, {"type": kind}), name)
        shown = client.get(f"/api/models/{part(named)}")
    version = next(v for v in shown["versions"] if v["number"] == result["version"])
    document = {**result, **{k: version[k] for k in ("digest", "bytes", "lineage")}}
    state = "converted to" if result["new"] else "already there:"
    text = f"{state} {named}:{result['version']}  {size(version['bytes'])}, "
    emit(options, document, text + f"sha256:{version['digest']}")
