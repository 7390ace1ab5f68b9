"""Download one file over HTTP: resumed where it broke off, checked before it has its name."""

import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.request import SyncRequestBuilder
from pyreqwest.response import SyncResponse

from freehold.errors import DigestMismatch, Invalid, Missing, Unavailable
from freehold.models.connections import CutOff, Unranged, fetch_ranges
from freehold.models.partial import Partial
from freehold.models.ranges import Span, is_answer, is_worth
from freehold.settings import Sources

TRIES = 4
PIECE = 64 * 1024
"""Read at once of each connection. Larger ones are no faster and take memory several times over."""
BUSY = (408, 429, 500, 502, 503, 504)
"""What a source says that may serve the same range in a moment, or to fewer connections."""


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

    A large file comes by several connections, where its source gives ranges. A part left by an
    earlier try, also of a killed process, is gone on with. Raises ``Missing``, ``Unavailable`` or
    ``DigestMismatch``; after the last nothing is left behind.
    """
    part = target.with_name(target.name + ".part")
    partial = Partial(part, wanted.bytes)
    _check_space(part, partial, wanted)
    try:
        found = _by_ranges(client, wanted, partial, progress)
        if found is None:
            _by_one(client, wanted, part, progress)
            found = _digest(part)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        partial.forget()
        raise no_space(part) from error
    if found != wanted.sha256:
        partial.forget()
        raise DigestMismatch(
            "broken.digest",
            f"{_file_name(wanted.url)} is not what its digest promises: nothing was kept; the "
            "source is damaged or tampered with, choose another one",
        )
    partial.settle()
    part.replace(target)


def _by_ranges(
    client: SyncClient, wanted: Wanted, partial: Partial, progress: Callable[[int], None]
) -> str | None:
    """Return the SHA-256 of what came by ranges, or None: then it has to come by one connection."""
    if not is_worth(wanted.bytes):
        if not partial.is_beginning:
            partial.forget()
        return None
    try:
        return fetch_ranges(partial, _Ranges(client, wanted, partial).open, progress)
    except Unranged:
        partial.forget()
        return None
    except CutOff as error:
        raise _broke_off(wanted, str(error)) from error


class _Ranges:
    """Ranges of one state of a file: another one's bytes are seen by their ETag, and not taken."""

    def __init__(self, client: SyncClient, wanted: Wanted, partial: Partial) -> None:
        self._client = client
        self._wanted = wanted
        self._partial = partial

    def open(self, span: Span) -> Generator[memoryview, None, None]:
        """Ask for a range and yield its bytes."""
        request = _request(self._client, self._wanted)
        request = request.header("range", f"bytes={span[0]}-{span[1] - 1}")
        state = self._partial.state
        if state is not None and state.startswith('"'):  # weak ones may not be asked for
            request = request.header("if-range", state)
        try:
            with request.build_streamed() as response:
                self._check(response, span)
                while (piece := response.body_reader.read(PIECE)) is not None:
                    yield memoryview(piece)
        except PyreqwestError as error:
            raise CutOff(error.message) from error

    def _check(self, response: SyncResponse, span: Span) -> None:
        if response.status in BUSY:
            raise CutOff(f"the source answered {response.status}")
        told = response.get_header("content-range")
        if response.status in (200, 416) or (
            response.status == 206 and not is_answer(told, span, self._partial.size)
        ):
            raise Unranged
        _check_status(response, self._wanted)
        if not self._partial.agree(response.get_header("etag")):
            raise Unranged


def _by_one(
    client: SyncClient, wanted: Wanted, part: Path, progress: Callable[[int], None]
) -> None:
    for attempt in range(TRIES):
        try:
            _go_on(client, wanted, part, progress)
            return
        except PyreqwestError as error:
            if attempt == TRIES - 1:
                raise _broke_off(wanted, error.message) from error
            time.sleep(0.2 * 2**attempt)


def _broke_off(wanted: Wanted, why: str) -> Unavailable:
    return Unavailable(
        "unavailable.source",
        f"cannot download {_file_name(wanted.url)}: {why}; what has come is kept: run the same "
        "command again to go on",
    )


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
    request = _request(client, wanted)
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


def _request(client: SyncClient, wanted: Wanted) -> SyncRequestBuilder:
    request = client.get(wanted.url).header("accept-encoding", "identity")
    for name, value in wanted.headers:
        request = request.header(name, value, is_sensitive=True)
    return request.streamed_read_buffer_limit(0)


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


def _check_space(part: Path, partial: Partial, wanted: Wanted) -> None:
    if wanted.bytes and shutil.disk_usage(part.parent).free < wanted.bytes - partial.bytes:
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
