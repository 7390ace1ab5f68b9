"""The certificate that gateways serve with: read, held against its key, kept while it is in force.

Whoever renews a certificate replaces two files one after the other, and sometimes wrongly. Gateways
therefore never read those files: they get copies of a pair that fits, and go on with it, also after
a crash, until control has seen another that does.
"""

import hashlib
import ipaddress
import shutil
import ssl
from pathlib import Path

import msgspec

from freehold.control.home import write_secret
from freehold.errors import FreeholdError, Invalid
from freehold.secret import check_secret_reference, resolve_secret
from freehold.settings import Server

CERTIFICATE, KEY, CLIENT_CA = "certificate.pem", "key.pem", "client_ca.pem"
ENCRYPTED = "-----BEGIN ENCRYPTED PRIVATE KEY-----"


class Certificate(msgspec.Struct, frozen=True):
    """A pair that fits, in a folder of its own named by what is in it."""

    digest: str
    folder: Path


def check_exposure(settings: Server) -> None:
    """Raise ``Invalid`` for an address that other machines reach, without TLS."""
    if settings.tls_certificate or settings.insecure or _is_loopback(settings.host):
        return
    raise Invalid(
        "invalid.exposure",
        f"{settings.host} can be reached from other machines, and keys would cross the network in "
        "the clear: set server.tls_certificate and server.tls_key; or, where a proxy on this "
        "machine or a network of your own protects it, server.insecure = true",
        param="host",
    )


def stamp(settings: Server) -> tuple[tuple[int, int, int], ...]:
    """Return what changes when one of the files does."""
    found = []
    for path in _files(settings).values():
        try:
            status = path.stat()
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def take(settings: Server, kept: Path) -> Certificate | None:
    """Copy the files into ``kept`` and return them; None where TLS is not asked for.

    ``Invalid`` when they do not fit together; nothing has changed then.
    """
    files = _files(settings)
    if not files:
        if settings.client_ca:
            raise _wrong("client_ca needs tls_certificate and tls_key too")
        return None
    texts = {name: _read(path) for name, path in files.items()}
    digest = hashlib.sha256(msgspec.json.encode(texts)).hexdigest()[:16]
    folder = kept / digest
    if not folder.is_dir():
        shutil.rmtree(partial := kept / "incoming", ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        for name, text in texts.items():
            write_secret(partial / name, text)
        _check(partial, settings)
        partial.rename(folder)
    return Certificate(digest, folder)


def forget_others(kept: Path, used: set[str]) -> None:
    """Delete the copies that nobody serves with."""
    if kept.is_dir():
        for folder in kept.iterdir():
            if folder.name not in used:
                shutil.rmtree(folder, ignore_errors=True)


def _check(folder: Path, settings: Server) -> None:
    password = None
    if settings.tls_key_password:
        check_secret_reference(settings.tls_key_password)
        password = resolve_secret(settings.tls_key_password)
        if ENCRYPTED not in (folder / KEY).read_text(encoding="utf-8"):
            raise _wrong("a key with a password must be PKCS#8 (BEGIN ENCRYPTED PRIVATE KEY)")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Never ask at a terminal for a password that was not given.
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password or (lambda: ""))
    except (ssl.SSLError, ValueError, OSError) as error:
        raise _wrong(
            f"the key {settings.tls_key} does not fit the certificate {settings.tls_certificate}, "
            f"or one of them is damaged ({error})"
        ) from error
    if settings.client_ca:
        try:
            context.load_verify_locations(folder / CLIENT_CA)
        except (ssl.SSLError, OSError) as error:
            text = f"{settings.client_ca} has no certificate of an authority ({error})"
            raise _wrong(text) from error


def _files(settings: Server) -> dict[str, Path]:
    if not settings.tls_certificate and not settings.tls_key:
        return {}
    if not settings.tls_certificate or not settings.tls_key:
        raise _wrong("set both tls_certificate and tls_key")
    named = {
        CERTIFICATE: settings.tls_certificate,
        KEY: settings.tls_key,
        CLIENT_CA: settings.client_ca,
    }
    return {name: Path(path).expanduser() for name, path in named.items() if path}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(f"cannot read {path}: {error}") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _wrong(text: str) -> FreeholdError:
    return Invalid("invalid.certificate", f"TLS: {text}", param="tls_certificate")
