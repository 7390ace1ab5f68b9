"""``freehold model ...``: bring in, show, verify, promote, roll back, remove."""

from pathlib import Path
from typing import Any

import click

from freehold.cli import papers, push, signing
from freehold.cli.agreement import agreed, can_ask
from freehold.cli.client import connected, part
from freehold.cli.command import Options, command
from freehold.cli.compress import compress, report, trial
from freehold.cli.names import complete
from freehold.cli.output import emit, follow, table
from freehold.cli.registry import gc, storage
from freehold.cli.signing import read_bundle
from freehold.cli.template import described, show_template
from freehold.cli.versions import number_of, resolve
from freehold.cli.words import big, counted, moment, size
from freehold.errors import Invalid


@click.group()
def model() -> None:
    """Models: bring them in, look at them, move their aliases."""


for _each in (compress, report, trial):
    model.add_command(_each)


@command(model, "import")
@click.argument("source")
@click.option("--name", help="What to call it [from the source].")
@click.option("--sha256", help="Keep nothing unless the bytes have this digest.")
@click.option("--licence", help="Its licence, where the file does not say.")
@click.option("--base", help="The model it was made from, recorded as a dependency.")
@click.option("--signature", metavar="FILE", help="An OpenSSF signature over it, kept with it.")
def import_(
    options: Options,
    source: str,
    name: str | None,
    sha256: str | None,
    licence: str | None,
    base: str | None,
    signature: str | None,
) -> None:
    """Bring a model in.

    SOURCE is a folder or file, hf:ORG/REPO[/FILE][@REV], pypi:NAME[==VERSION],
    oci://HOST/REPO[:TAG], s3://, gs:// or az://BUCKET/PATH, freehold://HOST/NAME[:VERSION], or a
    name of the catalog.
    """
    body = {
        "source": _absolute(source),
        "name": name,
        "sha256": _sha256(sha256) if sha256 else None,
        "licence": licence,
        "dependencies": [{"kind": "base", "target": base}] if base else [],
        "signature": read_bundle(signature) if signature else None,
    }
    with connected(options, creates=True) as client:
        job = client.post("/api/models", body)
        result = follow(client, job, name or source.rpartition("/")[2])
        shown = client.get(f"/api/models/{part(result['model'])}")
    version = next(v for v in shown["versions"] if v["number"] == result["version"])
    fields = ("digest", "bytes", "licence", "notice", "quarantine", "left_out")
    document = {**result, **{name: version[name] for name in fields}}
    state = "imported" if result["new"] else "already there:"
    lines = [f"{state} {result['model']}:{result['version']}  sha256:{version['digest']}"]
    lines.append(f"licence {_licence(version)}")
    if version["left_out"]:
        lines.append(f"left out: {_left_out(version)}")
    lines += _quarantine(version["quarantine"], f"{result['model']}:{result['version']}")
    emit(options, document, "\n".join(lines))
    if version["quarantine"] and version["quarantine"]["open"]:
        click.get_current_context().exit(1)


@command(model, "list")
def list_(options: Options) -> None:
    """List the models of the registry."""
    with connected(options) as client:
        found = client.get("/api/models")
    rows = [
        (m["name"], [f"{n}!" if n in m["quarantined"] else n for n in m["versions"]],
         [f"{a}={n}" for a, n in m["aliases"].items()],
         big(m["parameters"]), m["quantisation"], size(m["bytes"]), m["licence"])
        for m in found
    ]  # fmt: skip
    head = ("NAME", "VERSIONS", "ALIASES", "PARAMETERS", "QUANT", "SIZE", "LICENCE")
    shown = table(head, rows, "no models yet: freehold model catalog")
    if any(m["quarantined"] for m in found):
        shown += "\n! in quarantine: see freehold model show"
    emit(options, found, shown)


@command(model)
@click.argument("name", shell_complete=complete("model", "version"))
@click.option("--template", is_flag=True, help="Print the chat template of one version only.")
def show(options: Options, name: str, template: bool) -> None:
    """Show a model: versions, digests, size, licence, dependencies, lineage, quality."""
    if template:
        show_template(options, name)
        return
    name, _, label = name.partition(":")
    with connected(options) as client:
        found = client.get(f"/api/models/{part(name)}")
        if label:
            number = number_of(found, label)
            found["versions"] = [v for v in found["versions"] if v["number"] == number]
    emit(
        options,
        found,
        "\n\n".join([_aliases(found), *(_describe(v, name) for v in found["versions"])]),
    )


model.add_command(gc)
model.add_command(storage)


@command(model)
@click.argument("name", shell_complete=complete("model", "alias", "version"))
@click.option("--yes", is_flag=True, help="Remove it without asking.")
def remove(options: Options, name: str, yes: bool) -> None:
    """Remove NAME:VERSION, or NAME with all its versions.

    On a terminal you are asked first; elsewhere that needs --yes.
    """
    model_name, _, label = name.partition(":")
    path = f"/api/models/{part(model_name)}"
    with connected(options) as client:
        found = client.get(path)
        number = number_of(found, label) if label else None
        doomed = [v for v in found["versions"] if number in (None, v["number"])]
        if not yes:
            title = f"{model_name}:{number}" if label else model_name
            what = f"{title} ({counted(len(doomed), 'version')}, {_bytes(doomed)})"
            if not can_ask(options):
                raise click.UsageError(f"this removes {what}: add --yes")
            agreed(what)
        if label:
            path += f"/versions/{number}"
        result = client.delete(path)
    numbers = ", ".join(map(str, result["versions"]))
    emit(options, result, f"removed {model_name}:{numbers}, {size(result['freed_bytes'])} freed")


@command(model)
def catalog(options: Options) -> None:
    """List the models that can be imported by name."""
    with connected(options) as client:
        found = client.get("/api/catalog")
    rows = [(e["name"], e["title"], e["quantisation"], size(e["bytes"]), e["licence"])
            for e in found]  # fmt: skip
    head = ("NAME", "TITLE", "QUANT", "SIZE", "LICENCE")
    emit(options, found, table(head, rows, "the catalog is empty"))


@command(model)
@click.argument("name", shell_complete=complete("version"))
@click.option("--alias", default="production", show_default=True, help="The alias to move.")
def promote(options: Options, name: str, alias: str) -> None:
    """Point an alias at NAME:VERSION; deployments that follow it change over."""
    if ":" not in name:
        raise Invalid("invalid.usage", "say which version: NAME:VERSION")
    with connected(options) as client:
        model_name, number = resolve(client, name)
        path = f"/api/models/{part(model_name)}/aliases/{part(alias)}"
        result = client.put(path, {"version": number})
    emit(options, result, f"{model_name}:{alias} is version {number}")


@command(model)
@click.argument("name", shell_complete=complete("model"))
@click.option("--alias", default="production", show_default=True, help="The alias to move back.")
def rollback(options: Options, name: str, alias: str) -> None:
    """Point an alias back to the version it had before.

    A second rollback undoes the first.
    """
    with connected(options) as client:
        result = client.post(f"/api/models/{part(name)}/aliases/{part(alias)}/rollback")
    emit(options, result, f"{name}:{alias} is version {result['version']} again")


@command(model)
@click.argument("name", shell_complete=complete("model", "alias", "version"))
@click.option("--context", type=int, help="Context in tokens.")
@click.option("--slots", type=int, help="Requests answered at once.")
@click.option("--threads", type=int, help="Processor threads.")
@click.option("--cache-type", type=click.Choice(["f16", "q8_0", "q4_0"]),
              help="Type of the key-value cache.")  # fmt: skip
@click.option("--draft", metavar="NAME", help="A smaller model that guesses ahead; none for none.")
@click.option("--drafted", type=int, help="How many tokens it guesses.")
def settings(options: Options, name: str, **given: int | str | None) -> None:
    """Show or change how a version is launched; every change is kept as a revision."""
    with connected(options) as client:
        model_name, number = resolve(client, name)
        path = f"/api/models/{part(model_name)}/versions/{number}/settings"
        found = client.get(path)
        wanted: dict[str, Any] = {k: value for k, value in given.items() if value is not None}
        if wanted.get("draft") == "none":
            wanted["draft"] = None
        if wanted:
            found = client.put(path, {**found["settings"], **wanted})
    rows = [
        (r["revision"], _set(r["settings"]) or "defaults", r["created_by"])
        for r in found["revisions"]
    ]
    emit(options, found, table(("REVISION", "SETTINGS", "BY"), rows, "all at their defaults"))


for _more in (papers.COMMANDS, push.COMMANDS, signing.COMMANDS):
    for _command in _more:
        model.add_command(_command)


def _bytes(versions: list[dict[str, Any]]) -> str:
    """Return the size of versions, what they have in common counted once."""
    held = {a["digest"]: a["bytes"] for version in versions for a in version["artifacts"]}
    return size(sum(held.values()))


def _sha256(text: str) -> str:
    digits = text.lower().removeprefix("sha256:")
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise Invalid(
            "invalid.usage",
            f"--sha256 wants the 64 hexadecimal digits that sha256sum prints: {text!r:.80} is not",
        )
    return digits


def _absolute(source: str) -> str:
    """Return a path as a path from the root: who reads it may work in another folder."""
    path = Path(source).expanduser()
    named = source.startswith(("./", "../", "~")) or source.endswith(".gguf")
    return str(path.absolute()) if named and path.exists() else source


def _checked(at: float | None, damage: str | None) -> str:
    if damage is not None:
        return f"DAMAGED, not loaded: {damage}"
    return f"intact on {moment(at)} UTC" if at is not None else "not since it was imported"


def _set(settings: dict[str, int | str | None]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def _left_out(version: dict[str, Any]) -> str:
    names = version["left_out"]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{len(names)} files beside it: {', '.join(names[:8])}{more}"


def _tokenizer(manifest: dict[str, Any]) -> str:
    told = manifest["tokenizer"]
    if told is None:
        return "its base's" if manifest["adapter"] else "none"
    return f"{told['model'] or 'of no named kind'}, {told['tokens'] or 'unknown'} tokens"


def _signature(kept: dict[str, Any]) -> str:
    return f"by {kept['signer']}" if kept["signer"] else f"does not count here: {kept['reason']}"


def _quality(measured: dict[str, float] | None) -> str:
    if not measured:
        return "not measured"
    return ", ".join(f"{name} {value:.4g}" for name, value in measured.items())


def _licence(version: dict[str, Any]) -> str:
    named = version["licence"] or "unknown"
    return f"{named}: {version['notice']}" if version["notice"] else named


def _quarantine(held: dict[str, Any] | None, title: str) -> list[str]:
    """Return why a version is in quarantine, a finding a line; who let it out, if two have."""
    if held is None:
        return []
    asked = held["release"] or {}
    told = (
        "IN QUARANTINE: it cannot be deployed until two people release it, each with "
        f"freehold model release {title}"
    )
    if not held["open"]:
        told = f"released by {asked['asked_by']} and {asked['confirmed_by']}: {asked['reason']}"
    elif asked:
        told += f"; {asked['asked_by']} has asked: {asked['reason']}"
    return [f"  {told}", *(f"    {f['file']}: {f['says']} [{f['rule']}, {f['by']}]"
                           for f in held["findings"])]  # fmt: skip


def _aliases(found: dict[str, Any]) -> str:
    rows = [(alias, number) for alias, number in found["aliases"].items()]
    return f"{found['name']}\n" + table(("ALIAS", "VERSION"), rows, "no aliases")


def _describe(version: dict[str, Any], name: str) -> str:
    manifest = version["manifest"]
    adapter = manifest["adapter"]
    depends = [
        d["kind"] + " " + d["target"] + (f" sha256:{d['digest'][:12]}" if d["digest"] else "")
        for d in version["dependencies"]
    ]
    facts = (
        ("digest", f"sha256:{version['digest']}"),
        ("size", f"{size(version['bytes'])}, {version['format']}"),
        ("architecture", manifest["architecture"]),
        ("parameters", big(manifest["parameters"])),
        ("quantisation", f"{manifest['quantisation']} ({manifest['bits_per_weight']:.2f} bits)"),
        ("context", manifest["context"] or ("its base's" if adapter else "not said")),
        ("tokenizer", _tokenizer(manifest)),
        ("chat template", described(manifest["chat_template"])),
        ("licence", _licence(version)),
        ("source", version["resolved"]),
        ("dependencies", "; ".join(depends) or "none"),
        ("lineage", " <- ".join(version["lineage"]) or "none"),
        ("signatures", "; ".join(map(_signature, version["signatures"])) or "none"),
        ("quality", _quality(version["quality"])),
        ("settings", _set(version["settings"]) or "defaults"),
        ("verified", _checked(version["checked"], version["damage"])),
        ("imported", f"{moment(version['created'])} UTC by {version['created_by']}"),
    )
    lines = [f"  {what:<14}{value}" for what, value in facts]
    if version["left_out"]:
        lines.append(f"  {'left out':<14}{_left_out(version)}")
    if adapter:
        known = [f"{d['target']}:{d['target_number']}" for d in version["dependencies"]
                 if d["kind"] == "base" and d["target_number"] is not None]  # fmt: skip
        base = (known or manifest["base_models"] or ["a model it does not name"])[0]
        lines.insert(
            2, f"  {'adapter':<14}{adapter['method']} of rank {adapter['rank']} for {base}"
        )
    lines += _quarantine(version["quarantine"], f"{name}:{version['number']}")
    return f"version {version['number']}\n" + "\n".join(lines)
