"""One repository of a registry elsewhere: read from it, write to it.

Distribution v2: anonymous, with a password, or with a token that the password is exchanged for.
Redirects are followed by hand, so that no credential goes where it does not belong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from pyreqwest.client import SyncClient
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.request import SyncRequestBuilder
from pyreqwest.response import SyncResponse

from freehold.errors import DigestMismatch, Forbidden, Invalid, Missing, Unavailable
from freehold.models.download import Wanted, download
from freehold.models.oci.access import Access, check_realm, read_challenge
from freehold.models.oci.answer import document_in, explanation, read, told_size
from freehold.models.oci.manifest import (
    INDEX,
    INDEXES,
    MANIFESTS,
    MOST_BYTES,
    Descriptor,
    Index,
    digest_of,
    read_manifest,
)
from freehold.secret import resolve_secret
from freehold.settings import IN_FORCE

REDIRECTS = 5
TOKEN_BYTES = 64 * 1024
PIECE = 4 * 1024 * 1024
TRIES = 4
Change = Callable[[SyncRequestBuilder], SyncRequestBuilder]


class Repository:
    """A repository, with what we may do there: ``pull``, or ``pull,push``."""

    def __init__(self, client: SyncClient, access: Access, name: str, actions: str) -> None:
        """Reach ``name``; ``client`` must not follow redirects by itself."""
        self._client = client
        self._access = access
        self._name = name
        self._actions = actions
        self._authorization: str | None = None

    def manifest(self, label: str) -> tuple[bytes, str, str | None]:
        """Return the bytes of a manifest, their digest, and the kind the server says it is.

        ``label`` is a tag or a digest; what comes for a digest is held against it.
        """
        accept = ", ".join((*MANIFESTS, *INDEXES))
        with self._ask(
            "GET", self._url(f"manifests/{label}"), lambda request: request.header("accept", accept)
        ) as response:
            self._check(response, f"{self._name}:{label}", 200)
            data = read(response, MOST_BYTES)
            kind = response.get_header("content-type")
        found = digest_of(data)
        if label.startswith("sha256:") and found != label:
            raise DigestMismatch(
                "broken.digest",
                f"{self._access.host} serves a manifest {found} under the digest {label}: nothing "
                "was kept; the registry is damaged or lies",
            )
        return data, found, kind

    def tag_digest(self, tag: str) -> str | None:
        """Return the digest that a tag has there, None where there is no such tag."""
        try:
            return self.manifest(tag)[1]
        except Missing:
            return None

    def blob(self, blob: Descriptor, target: Path, progress: Callable[[int], None]) -> None:
        """Bring a blob to ``target``, whole and with its digest; goes on where it broke off."""
        if blob.size == 0:
            if blob.digest != digest_of(b""):
                raise DigestMismatch("broken.digest", f"{blob.digest} is not the digest of nothing")
            target.write_bytes(b"")
            return
        for attempt in range(TRIES):
            wanted = self._locate(blob)
            try:
                download(self._client, wanted, target, progress)
                return
            except Unavailable as error:
                # A token may end before a long download does: the next one goes on with it.
                if error.details.get("status") != 401 or attempt == TRIES - 1:
                    raise
                self._authorization = None

    def _locate(self, blob: Descriptor) -> Wanted:
        """Return where a blob is to be had, and what to show there."""
        url = self._url(f"blobs/{blob.digest}")
        # The first byte tells who serves the rest, and how much they say it is.
        with self._ask("GET", url, lambda request: request.header("range", "bytes=0-0")) as first:
            self._check(first, blob.digest, 200, 206)
            place, headers = self._place, self._headers(self._place)
            told = told_size(first)
        if told is not None and told != blob.size:
            raise Invalid(
                "invalid.size",
                f"{self._access.host} says {blob.digest} has {told} bytes, its manifest says "
                f"{blob.size}: nothing was fetched",
            )
        return Wanted(url=place, sha256=blob.sha256, bytes=blob.size, headers=headers)

    def small(self, blob: Descriptor, limit: int) -> bytes:
        """Return a blob of at most ``limit`` bytes."""
        if blob.size > limit:
            raise Invalid("invalid.size", f"{blob.digest} has {blob.size} bytes: {limit} is most")
        with self._ask("GET", self._url(f"blobs/{blob.digest}")) as response:
            self._check(response, blob.digest, 200)
            data = read(response, blob.size)
        if digest_of(data) != blob.digest:
            raise DigestMismatch(
                "broken.digest", f"{self._access.host} serves other bytes as {blob.digest}"
            )
        return data

    def referrers(self, digest: str, kind: str) -> list[Descriptor]:
        """Return what of a kind refers to a manifest; a registry may know no such list."""
        query = urlencode({"artifactType": kind})
        with self._ask("GET", f"{self._url(f'referrers/{digest}')}?{query}") as response:
            if 400 <= response.status < 500:
                return []
            self._check(response, f"list of what refers to {digest}", 200)
            found = read_manifest(read(response, MOST_BYTES), INDEX)
        listed = found.manifests if isinstance(found, Index) else ()
        return [each for each in listed if each.artifact_type == kind]

    def has(self, digest: str) -> bool:
        """Say whether the repository has a blob."""
        with self._ask("HEAD", self._url(f"blobs/{digest}")) as response:
            return response.status == 200

    def put_bytes(self, data: bytes) -> None:
        """Store a small blob."""
        digest = digest_of(data)
        if not self.has(digest):
            place = self._begin()
            self._finish(place, digest, data)

    def put_file(self, path: Path, digest: str, progress: Callable[[int], None]) -> None:
        """Store a file as a blob; an upload that breaks off goes on where the registry has it."""
        if self.has(digest):
            progress(path.stat().st_size)
            return
        place, done, size = self._begin(), 0, path.stat().st_size
        for attempt in range(TRIES):
            try:
                place = self._send(place, path, done, progress)
                break
            except PyreqwestError as error:
                if attempt == TRIES - 1:
                    raise self._away(error) from error
                place, done = self._standing(place)
        self._finish(place, digest, b"")
        progress(size)

    def put_manifest(self, data: bytes, media_type: str, label: str) -> None:
        """Store a manifest under a tag or its digest."""

        def change(request: SyncRequestBuilder) -> SyncRequestBuilder:
            return request.header("content-type", media_type).body_bytes(data)

        with self._ask("PUT", self._url(f"manifests/{label}"), change) as response:
            self._check(response, f"{self._name}:{label}", 201)
            told = response.get_header("docker-content-digest")
        if told is not None and told != digest_of(data):
            raise DigestMismatch("broken.digest", f"{self._access.host} stored {told} for it")

    def _url(self, rest: str) -> str:
        return f"{self._access.base}/v2/{self._name}/{rest}"

    def _begin(self) -> str:
        with self._ask(
            "POST", self._url("blobs/uploads/"), lambda request: request.body_bytes(b"")
        ) as response:
            self._check(response, "an upload", 202)
            return self._location(response)

    def _send(self, place: str, path: Path, start: int, progress: Callable[[int], None]) -> str:
        size = path.stat().st_size

        def change(request: SyncRequestBuilder) -> SyncRequestBuilder:
            request = request.header("content-type", "application/octet-stream")
            request = request.header("content-length", str(size - start))
            if start:
                request = request.header("content-range", f"{start}-{size - 1}")
            return request.body_stream(_pieces(path, start, progress))

        if start == size:
            return place
        with self._ask("PATCH", place, change, explained=False) as response:
            self._check(response, "an upload", 202, 201, 204)
            return self._location(response)

    def _standing(self, place: str) -> tuple[str, int]:
        """Return where an upload goes on, and from which byte."""
        with self._ask("GET", place) as response:
            self._check(response, "an upload that broke off", 204)
            last = (response.get_header("range") or "0-0").rpartition("-")[2]
            have = int(last) + 1 if last.isdigit() and last != "0" else 0
            return self._location(response), have

    def _finish(self, place: str, digest: str, data: bytes) -> None:
        found = urlsplit(place)
        query = "&".join(filter(None, (found.query, urlencode({"digest": digest}))))

        def change(request: SyncRequestBuilder) -> SyncRequestBuilder:
            return request.header("content-type", "application/octet-stream").body_bytes(data)

        with self._ask("PUT", urlunsplit(found._replace(query=query)), change) as response:
            self._check(response, digest, 201)

    def _location(self, response: SyncResponse) -> str:
        told = response.get_header("location")
        if not told:
            raise Unavailable("unavailable.registry", f"{self._access.host} gives no Location")
        place = urljoin(self._place, told)
        if not self._access.is_own(place):
            raise Unavailable(
                "unavailable.redirect",
                f"{self._access.host} wants uploads sent to {urlsplit(place).netloc:.100}: refused",
            )
        return place

    @contextmanager
    def _ask(
        self, method: str, url: str, change: Change | None = None, *, explained: bool = True
    ) -> Iterator[SyncResponse]:
        """Send a request, also after the proof the registry wants, and where it sends us to."""
        try:
            with self._redirected(method, url, change) as response:
                if response.status != 401 or self._authorization is not None:
                    yield response
                    return
                self._authorization = self._proof(response)
            with self._redirected(method, url, change) as response:
                yield response
        except PyreqwestError as error:
            if not explained:
                raise
            raise self._away(error) from error

    @contextmanager
    def _redirected(self, method: str, url: str, change: Change | None) -> Iterator[SyncResponse]:
        for _ in range(REDIRECTS):
            self._place = url
            request = self._client.request(method, url)
            for name, value in self._headers(url):
                request = request.header(name, value, is_sensitive=True)
            request = change(request) if change else request
            request = request.header("accept-encoding", "identity").streamed_read_buffer_limit(0)
            with request.build_streamed() as response:
                if response.status not in (301, 302, 303, 307, 308):
                    yield response
                    return
                url = urljoin(url, response.get_header("location") or "")
            if method not in ("GET", "HEAD"):
                raise Unavailable(
                    "unavailable.redirect", f"{self._access.host} sends a {method} elsewhere"
                )
            self._access.check_redirect(url)
        raise Unavailable("unavailable.redirect", f"{self._access.host} sends us round in circles")

    def _headers(self, url: str) -> tuple[tuple[str, str], ...]:
        if self._authorization and self._access.is_own(url):
            return (("authorization", self._authorization),)
        return ()

    def _proof(self, response: SyncResponse) -> str:
        """Return what answers a challenge: the password itself, or a token it is good for."""
        scheme, told = read_challenge(response.get_header("www-authenticate"))
        basic = self._access.basic()
        if scheme == "bearer" and told.get("realm"):
            return self._token(told, basic)
        if scheme == "basic" and basic is not None:
            return basic
        raise self._refused("it wants a password")

    def _token(self, told: dict[str, str], basic: str | None) -> str:
        realm = told["realm"]
        check_realm(self._access, realm)
        query = {"scope": f"repository:{self._name}:{self._actions}"}
        if "service" in told:
            query["service"] = told["service"]
        request = self._client.get(f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}")
        if basic is not None and self._access.may_know(realm):
            request = request.header("authorization", basic, is_sensitive=True)
        with request.streamed_read_buffer_limit(0).build_streamed() as response:
            if response.status != 200:
                hint = ""
                if basic is not None and not self._access.may_know(realm):
                    host = urlsplit(realm).netloc
                    hint = f", and gets no password from us: allow it as token_host = {host!r:.100}"
                raise self._refused(f"its token server answers {response.status}{hint}")
            document = document_in(read(response, TOKEN_BYTES))
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._refused("its token server gives no token")
        return f"Bearer {token}"

    def _refused(self, why: str) -> Forbidden:
        hint = (
            "check the password" if self._access.settings.password
            else f'name one, [sources.hosts."{self._access.host}"] in {IN_FORCE}'
        )  # fmt: skip
        return Forbidden("forbidden.registry", f"{self._access.host} refuses us: {why}; {hint}")

    def _away(self, error: PyreqwestError) -> Unavailable:
        return Unavailable(
            "unavailable.source",
            f"cannot reach {self._access.host}: {self._hidden(error.message)}; what has come is "
            "kept: run the same command again to go on",
        )

    def _hidden(self, text: str) -> str:
        if self._access.settings.password:
            text = text.replace(resolve_secret(self._access.settings.password), "...")
        return text[:300]

    def _check(self, response: SyncResponse, what: str, *expected: int) -> None:
        status = response.status
        if status in expected:
            return
        text = explanation(response)
        if status in (401, 403):
            raise self._refused(text or f"it answers {status} for {what}")
        if status == 404:
            raise Missing("missing.source", f"{self._access.host} has no {what}", param="source")
        if 400 <= status < 500 and status not in (408, 429):
            raise Invalid("invalid.registry", f"{self._access.host} refuses {what}: {text}")
        raise Unavailable(
            "unavailable.source", f"{self._access.host} answers {status} for {what}: {text}"
        )


def _pieces(path: Path, start: int, progress: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        done = start
        while piece := file.read(PIECE):
            yield piece
            done += len(piece)
            progress(done)
