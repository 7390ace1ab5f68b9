"""``freehold model sign`` and ``freehold model verify``: signatures, made where the key is."""

from pathlib import Path
from typing import Any

import click

from freehold.cli.client import Client, connected, part
from freehold.cli.command import Options, command
from freehold.cli.names import complete
from freehold.cli.output import emit, follow
from freehold.cli.versions import path_of
from freehold.errors import Forbidden, Invalid
from freehold.models.signing import statement
from freehold.models.signing.signer import check_extra
from freehold.models.signing.signer import sign as make_signature
from freehold.models.signing.trust import Trust, read_certificates, read_public_key
from freehold.secret import resolve_secret
from freehold.settings import Signing


@command()
@click.argument("name", shell_complete=complete("model", "alias", "version"))
@click.option("--key", "key_file", metavar="FILE", required=True, help="Private key, ECDSA, PEM.")
@click.option("--key-password", metavar="REF", help="Its password: file:PATH or env:NAME.")
@click.option("--certificate", "signer", metavar="FILE", help="Certificate of the key, PEM.")
@click.option("--chain", metavar="FILE", multiple=True, help="Certificates up to the authority.")
@click.option("--out", metavar="FILE", help="Write the signature there too.")
def sign(
    options: Options,
    name: str,
    key_file: str,
    key_password: str | None,
    signer: str | None,
    chain: tuple[str, ...],
    out: str | None,
) -> None:
    """Sign a version with a private key of yours.

    The key is read here and sent nowhere; Freehold keeps the signature (OpenSSF Model Signing
    v1.0) with the version.
    """
    password = resolve_secret(key_password) if key_password else None
    with connected(options) as client:
        title, path = path_of(client, name)
        said = statement.make_statement(title.partition(":")[0], _files(client, title))
        made = make_signature(
            said, Path(key_file), password, Path(signer) if signer else None, list(map(Path, chain))
        )
        found = client.post(f"{path}/signatures", {"bundle": made.decode()})
    if out is not None:
        Path(out).write_bytes(made)
    document = {"version": title, **found, "file": out}
    told = f"signed {title} by {found['signer']}" if found["signer"] else (
        f"signed {title}; it does not count here yet: {found['reason']}\n"
        "name the public key in keys of [signing] in freehold.toml (an authority in certificates), "
        f"or verify with it: freehold model verify {title} --trust-key FILE"
    )  # fmt: skip
    emit(options, document, told)


@command()
@click.argument("name", required=False, shell_complete=complete("model", "alias", "version"))
@click.option("--all", "everything", is_flag=True, help="Every version there is: bytes only.")
@click.option("--signature", metavar="FILE", help="Hold this signature against it.")
@click.option("--signed", is_flag=True, help="Want a signature that is kept with it.")
@click.option("--trust-key", metavar="FILE", multiple=True, help="Public key to trust, PEM.")
@click.option("--trust-ca", metavar="FILE", multiple=True, help="Authority to trust, PEM.")
def verify(
    options: Options,
    name: str | None,
    everything: bool,
    signature: str | None,
    signed: bool,
    trust_key: tuple[str, ...],
    trust_ca: tuple[str, ...],
) -> None:
    """Read a version's bytes again and hold them against its digest, and its signature.

    Whom to trust is what [signing] in the settings says, unless it is said here.
    """
    trust = Trust(Signing(keys=trust_key, certificates=trust_ca)) if trust_key or trust_ca else None
    _check_files(trust_key, trust_ca)
    if (name is None) != everything:
        raise click.UsageError("give either a model's NAME or --all")
    with connected(options) as client:
        if name is None:
            if signature or signed or trust:
                raise click.UsageError("a signature is of one version: give its NAME")
            result = follow(client, client.post("/api/registry/verify"), "all versions")
            emit(options, result, f"{result['files']} files are intact")
            return
        title, path = path_of(client, name)
        signer = None
        if signature or signed or trust:
            signer = _signer(client, title, path, signature, trust)
        result = follow(client, client.post(f"{path}/verify"), name)
    digests = ", ".join(f"sha256:{digest}" for digest in result["digests"])
    text = f"{title} is intact: {digests}" + (f"\nsigned by {signer}" if signer else "")
    emit(options, {**result, "signer": signer}, text)


def read_bundle(file: str) -> str:
    """Return the text of a signature's file."""
    try:
        return Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("invalid.usage", f"cannot read {file}: {error}") from error


def _check_files(keys: tuple[str, ...], authorities: tuple[str, ...]) -> None:
    """Say what is wrong with whom to trust, before anything is held against it."""
    if keys or authorities:
        check_extra()
    for file in keys:
        read_public_key(Path(file))
    for file in authorities:
        read_certificates(Path(file))


def _signer(
    client: Client, title: str, path: str, signature: str | None, trust: Trust | None
) -> str:
    """Return who signed a version, by a file or by what is kept; ``Forbidden`` for nobody."""
    kept: list[dict[str, Any]] = []
    if signature is None:
        kept = client.get(f"{path}/signatures")
    if trust is None:
        if signature is not None:
            raise Invalid("invalid.usage", "say whom to trust: --trust-key FILE or --trust-ca FILE")
        signers = [each["signer"] for each in kept if each["signer"]]
        if not signers:
            why = "; ".join(each["reason"] for each in kept) or "it has no signature"
            raise Forbidden("forbidden.unsigned", f"{title}: {why}")
        return str(signers[0])
    bundles = [read_bundle(signature).encode()] if signature else []
    bundles += [each["bundle"].encode() for each in kept]
    advice = "give the public key, or the authority, of who signed it"
    return trust.find(bundles, list(_files(client, title).values()), advice).signer


def _files(client: Client, title: str) -> dict[str, str]:
    """Return the digests of a version's files by their names."""
    name, _, number = title.partition(":")
    versions = client.get(f"/api/models/{part(name)}")["versions"]
    found = next(version for version in versions if str(version["number"]) == number)
    return {each["name"]: each["digest"] for each in found["artifacts"]}


COMMANDS = (sign, verify)
