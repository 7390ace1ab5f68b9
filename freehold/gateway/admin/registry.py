"""The registry in the control process: who may, what there is, and where gateways find its bytes.

Only gateways are answered. Bytes do not pass through here: a gateway is told which file to send,
or to append a body to, and what it did comes back as a second question.
"""

import asyncio
import base64
import binascii
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlencode

from freehold.control.control import Control
from freehold.control.repositories import check_digest, check_repository, failing
from freehold.errors import (
    DigestMismatch,
    Invalid,
    Missing,
    OutOfRange,
    Unauthenticated,
    Unavailable,
    WrongMethod,
)
from freehold.gateway.admin.ask import read_query
from freehold.gateway.exchange import Exchange, Last, Whole, document
from freehold.gateway.oci.routes import METHODS, Operation
from freehold.gateway.oci.steps import (
    ASK,
    FILE,
    HASHED,
    LENGTH,
    LONGEST_IMPORT,
    METHOD,
    START,
    STEP,
    VERSION,
)
from freehold.identity.keys import Principal, authenticate
from freehold.models.oci.manifest import INDEX, MOST_BYTES, digest_of
from freehold.models.source import Progress
from freehold.policy.repositories import Act, may, permit_repository
from freehold.record.entry import Entry
from freehold.store.snapshot import KeyGrant

MOST_LISTED = 10_000


class Request:
    """One question of a gateway about the registry."""

    def __init__(self, exchange: Exchange, operation: Operation, control: Control) -> None:
        self.exchange = exchange
        self.operation = operation
        self.control = control
        self.method = exchange.header(METHOD) or exchange.method
        self.query = read_query(exchange.query)
        self.repositories = control.repositories
        self.name = operation.repository
        self.now = control.clock()

    async def answer(self, entry: Entry, pepper: bytes) -> Last:
        """Do what is asked, if the asker may."""
        exchange, kind = self.exchange, self.operation.kind
        if not self.control.settings.registry.enabled:
            raise Missing("missing.route", "there is no registry here: registry.enabled is false")
        entry.subject = f"{self.method} {exchange.path[:200]}"
        entry.action = "repository:read" if self.method in ("GET", "HEAD") else "repository:write"
        self.principal = authenticate_basic(self.control, pepper, exchange, self.now)
        entry.principal, entry.role = self.principal.name, self.principal.role
        entry.key = self.principal.key
        if self.method not in METHODS[kind]:
            raise WrongMethod("invalid.method", f"this takes {', '.join(METHODS[kind])}")
        if kind == "base":
            return Whole(200, [VERSION, ("content-type", "application/json")], b"{}")
        if kind == "catalog":
            return self._catalog()
        check_repository(self.name)
        self._permit("read" if self.method in ("GET", "HEAD") and kind != "upload" else "write")
        if kind in ("uploads", "upload"):
            return await self._upload()
        if kind == "tags":
            return self._tags()
        if kind == "referrers":
            return self._referrers()
        return await self._manifest() if kind == "manifest" else self._blob()

    def _permit(self, act: Act) -> None:
        permit_repository(self.principal, self.name, act, self.repositories.grants())

    def _catalog(self) -> Last:
        grants = self.repositories.grants()
        names = [n for n in self.repositories.names() if may(self.principal, n, "read", grants)]
        return self._page("repositories", names, {})

    def _tags(self) -> Last:
        return self._page("tags", self.repositories.tags(self.name), {"name": self.name})

    def _page(self, field: str, names: list[str], more: dict[str, str]) -> Last:
        last, text = self.query.get("last"), self.query.get("n")
        if text is not None and not (text.isascii() and text.isdigit()):
            raise Invalid("invalid.request", "n must be a number", param="n")
        count = min(int(text), MOST_LISTED) if text is not None else MOST_LISTED
        rest = [name for name in names if last is None or name > last]
        shown = rest[:count]
        answer = document({**more, field: shown})
        if len(rest) > len(shown) and shown:
            query = urlencode({"n": count, "last": shown[-1]})
            answer.headers.append(("link", f'<{self.exchange.path}?{query}>; rel="next"'))
        return answer

    def _referrers(self) -> Last:
        listed = self.repositories.referrers(self.name, self.operation.label)
        kind = self.query.get("artifactType")
        if kind is not None:
            listed = [each for each in listed if each.get("artifactType") == kind]
        answer = document({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})
        headers = [("content-type", INDEX)]
        if kind is not None:
            headers.append(("oci-filters-applied", "artifactType"))
        return Whole(200, headers, answer.body)

    async def _manifest(self) -> Last:
        label = self.operation.label
        if self.method == "PUT":
            return await self._put_manifest(label)
        if self.method == "DELETE":
            self._permit("remove")
            await asyncio.to_thread(self.repositories.remove, self.name, label)
            return Whole(202, [("content-length", "0")], b"")
        found = await asyncio.to_thread(self.repositories.manifest, self.name, label)
        headers = [
            ("content-type", found.media_type),
            ("content-length", str(len(found.content))),
            ("docker-content-digest", found.digest),
            ("etag", f'"{found.digest}"'),
        ]
        return Whole(200, headers, found.content)

    async def _put_manifest(self, label: str) -> Last:
        data = await self.exchange.body(MOST_BYTES)
        kind = self.exchange.header("content-type")
        control = self.control
        found, chosen = await asyncio.to_thread(control.pushes.check, self.name, label, data, kind)
        loop, by = asyncio.get_running_loop(), self.principal.name

        def work(progress: Progress) -> dict[str, object]:
            number = control.pushes.take(
                self.name, label, data, found, chosen, control.workshop, progress, self.now, by
            )
            loop.call_soon_threadsafe(control.deployments.forget_plans)
            return {"model": self.name, "version": number, "digest": digest_of(data)}

        # The client may go: what it has sent becomes a version all the same, or does not.
        job = control.jobs.start("push", f"{self.name}:{label}", work, same=(digest_of(data), by))
        job = await control.jobs.wait(job.id, LONGEST_IMPORT)
        if job.error is not None:
            raise failing(job.error.code, job.error.message)
        if job.result is None:
            raise Unavailable("unavailable.jobs", "taking it in takes long: ask for it later")
        digest = digest_of(data)
        headers = [
            ("location", f"/v2/{self.name}/manifests/{digest}"),
            ("docker-content-digest", digest),
            ("content-length", "0"),
        ]
        if found.subject is not None:
            headers.append(("oci-subject", found.subject.digest))
        if job.result["version"] is not None:
            headers.append(("x-freehold-version", str(job.result["version"])))
        return Whole(201, headers, b"")

    def _blob(self) -> Last:
        digest = self.operation.label
        if self.method == "GET":  # who only asks whether it is here may be about to push it
            self.repositories.check_leaving(self.name, digest)
        place, size = self.repositories.blob(self.name, digest)
        headers = [
            ("content-type", "application/octet-stream"),
            ("docker-content-digest", digest),
            ("etag", f'"{digest}"'),
            ("accept-ranges", "bytes"),
            (LENGTH, str(size)),
        ]
        if isinstance(place, bytes):
            return Whole(200, headers, place)
        return Whole(200, [*headers, (FILE, quote(str(place)))], b"")

    async def _upload(self) -> Last:
        repositories, upload = self.repositories, self.operation.label
        if self.operation.kind == "uploads":
            return await self._begin()
        path = repositories.uploads.path(self.name, upload)
        size = path.stat().st_size
        if self.method == "GET":
            return Whole(204, self._standing(upload, size), b"")
        if self.method == "DELETE":
            path.unlink(missing_ok=True)
            return Whole(204, [], b"")
        if self.exchange.header(STEP) == ASK:
            if self.method == "PUT":
                check_digest(self.query.get("digest", ""))
            self._check_range(size)
            limit = self.control.settings.registry.blob_limit
            left = await asyncio.to_thread(self._left)
            if left is not None:
                limit = min(limit, size + left)
            told = [(FILE, quote(str(path))), (START, str(size)), (LENGTH, str(limit))]
            return Whole(200, told, b"")
        if self.method == "PATCH":
            return Whole(202, self._standing(upload, size), b"")
        return await self._finish(path, self.query.get("digest", ""))

    def _left(self) -> int | None:
        """Return how many bytes the asker may still send, None for any number."""
        settings = self.control.settings.registry
        waiting = self.repositories.uploads.stored() if settings.quota else 0
        return self.control.room.left(self.principal.name, waiting)

    async def _begin(self) -> Last:
        digest, origin = self.query.get("mount"), self.query.get("from")
        if digest is not None:
            check_digest(digest)
            if origin is not None and await asyncio.to_thread(self._mount, digest, origin):
                return Whole(201, self._made(digest), b"")
        upload = self.repositories.uploads.begin(self.name)
        return Whole(202, self._standing(upload, 0), b"")

    def _mount(self, digest: str, origin: str) -> bool:
        if not may(self.principal, origin, "read", self.repositories.grants()):
            return False
        return self.repositories.mount(self.name, digest, origin, self.now)

    async def _finish(self, path: Path, digest: str) -> Last:
        check_digest(digest)
        known = self.exchange.header(HASHED) or ""
        finish = partial(self.repositories.finish, self.name, path, digest, self.now, known)
        try:
            await asyncio.to_thread(finish)
        except DigestMismatch as error:  # of what was sent, not of what we have
            raise Invalid("invalid.digest", error.message, param="digest") from error
        return Whole(201, self._made(digest), b"")

    def _check_range(self, size: int) -> None:
        text = self.exchange.header("content-range")
        if text is None:
            return
        start, dash, end = text.removeprefix("bytes ").partition("-")
        end = end.partition("/")[0]
        if not (dash and start.isdigit() and end.isdigit()) or int(start) != size:
            raise OutOfRange(
                "invalid.range", f"the upload has {size} bytes: go on there, not at {text:.60}"
            )

    def _standing(self, upload: str, size: int) -> list[tuple[str, str]]:
        return [
            ("location", f"/v2/{self.name}/blobs/uploads/{upload}"),
            ("range", f"0-{max(0, size - 1)}"),
            ("docker-upload-uuid", upload),
            ("content-length", "0"),
        ]

    def _made(self, digest: str) -> list[tuple[str, str]]:
        return [
            ("location", f"/v2/{self.name}/blobs/{digest}"),
            ("docker-content-digest", digest),
            ("content-length", "0"),
        ]


def authenticate_basic(
    control: Control, pepper: bytes, exchange: Exchange, now: float
) -> Principal:
    """Return who asks: by a key as token, or as the password of any user."""
    grants: dict[str, KeyGrant] = dict(control.grants)
    header = exchange.header("authorization")
    scheme, _, rest = (header or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(rest.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise Unauthenticated(
                "unauthenticated.malformed_key", "log in with any user, and a key as password"
            ) from None
        header = f"Bearer {pair.partition(':')[2]}"
    return authenticate(grants, pepper, header, now)
