"""Download one file over HTTP: resumed where it broke off, checked before it has its name."""

import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import SyncResponse

from freehold.errors import DigestMismatch, Invalid, Missing, Unavailable
from freehold.settings import Sources

TRIES = 4


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A file at a URL. ``bytes`` is what the server said of its size, if it did.

    ``headers`` go with every question for it: they may hold credentials.
    """

    url: str
    sha256: str
    bytes: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


def open_client(
    settings: Sources, environment: Mapping[str, str], *, redirects: bool = True
) -> SyncClient:
    """Return a client that trusts the system's certificates and those of ``sources.ca_bundle``."""
    builder = (
        SyncClientBuilder()
        .follow_redirects(redirects)
        .user_agent("freehold")
        .connect_timeout(timedelta(seconds=settings.timeout))
        .read_timeout(timedelta(seconds=settings.timeout))
    )
    for bundle in {settings.ca_bundle, environment.get("SSL_CERT_FILE", "")} - {""}:
        try:
            pem = Path(bundle).expanduser().read_bytes()
            builder = builder.add_root_certificate_pem(pem)
        except (OSError, PyreqwestError) as error:
            raise Invalid(
                "invalid.ca_bundle", f"cannot use the certificates in {bundle}: {error}"
            ) from error
    return builder.build()


def download(
    client: SyncClient, wanted: Wanted, target: Path, progress: Callable[[int], None]
) -> None:
    """Bring the file to ``target``; it appears there only whole and with the right digest.

    A part left by an earlier try, also of a killed process, is gone on with. Raises ``Missing``,
    ``Unavailable`` or ``DigestMismatch``; after the last nothing is left behind.
    """
    part = target.with_name(target.name + ".part")
    _check_space(part, wanted)
    for attempt in range(TRIES):
        try:
            _go_on(client, wanted, part, progress)
            break
        except PyreqwestError as error:
            if attempt == TRIES - 1:
                raise Unavailable(
                    "unavailable.source",
                    f"cannot download {_file_name(wanted.url)}: {error.message}; what has come is "
                    "kept: run the same command again to go on",
                ) from error
            time.sleep(0.2 * 2**attempt)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            part.unlink(missing_ok=True)
            raise no_space(part) from error
    if _digest(part) != wanted.sha256:
        part.unlink()
        raise DigestMismatch(
            "broken.digest",
            f"{_file_name(wanted.url)} is not what its digest promises: nothing was kept; the "
            "source is damaged or tampered with, choose another one",
        )
    part.replace(target)


def _go_on(client: SyncClient, wanted: Wanted, part: Path, progress: Callable[[int], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    while wanted.bytes is None or have < wanted.bytes:
        done = _one_answer(client, wanted, part, have, progress)
        if wanted.bytes is None or done >= wanted.bytes:
            return
        if done <= have:  # some servers close early without an error, but never at nothing
            _stalled(wanted)
        have = done
    progress(have)


def _one_answer(
    client: SyncClient, wanted: Wanted, part: Path, have: int, progress: Callable[[int], None]
) -> int:
    """Append what one answer brings, every byte as it comes; return the bytes there are now."""
    request = client.get(wanted.url).header("accept-encoding", "identity")
    request = request.streamed_read_buffer_limit(0)
    for name, value in wanted.headers:
        request = request.header(name, value, is_sensitive=True)
    if have:
        request = request.header("range", f"bytes={have}-")
    with request.build_streamed() as response:
        if response.status == 416:
            part.unlink(missing_ok=True)
            raise Unavailable("unavailable.source", "the file has changed: run it again")
        _check_status(response, wanted)
        resumed = response.status == 206 and _starts_at(response, have)
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            while (chunk := response.body_reader.read_chunk()) is not None:
                done += file.write(chunk.to_bytes())
                if wanted.bytes is not None and done > wanted.bytes:
                    break
                progress(done)
    return done


def _stalled(wanted: Wanted) -> None:
    raise Unavailable(
        "unavailable.source",
        f"{_file_name(wanted.url)} breaks off early: run the same command again to go on",
    )


def _check_status(response: SyncResponse, wanted: Wanted) -> None:
    if response.status in (200, 206):
        return
    name = _file_name(wanted.url)
    if response.status in (404, 410):
        raise Missing("missing.source", f"there is no {name} at the source any more")
    raise Unavailable(
        "unavailable.source",
        f"the source answered {response.status} for {name}",
        details={"status": response.status},
    )


def _starts_at(response: SyncResponse, have: int) -> bool:
    return (response.get_header("content-range") or "").startswith(f"bytes {have}-")


def _check_space(part: Path, wanted: Wanted) -> None:
    have = part.stat().st_size if part.exists() else 0
    if wanted.bytes and shutil.disk_usage(part.parent).free < wanted.bytes - have:
        raise no_space(part)


def no_space(part: Path) -> Unavailable:
    """Return the error for a disk that is full."""
    return Unavailable(
        "unavailable.disk", f"no space left in {part.parent}: free some and import again"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_name(url: str) -> str:
    return url.rpartition("/")[2].partition("#")[0].partition("?")[0]
