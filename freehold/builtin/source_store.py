"""``source.store``: an object, or a folder of them, in S3, Google Cloud Storage or Azure Blob.

All three through ``obstore``, which comes with ``pip install 'freehold[stores]'``.
"""

import errno
import hashlib
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from freehold.errors import Forbidden, Invalid, Missing, Unavailable
from freehold.models.connections import CutOff, fetch_ranges
from freehold.models.download import no_space
from freehold.models.oci.access import is_loopback
from freehold.models.oci.choose import CARDS, SIGNATURES, only_model
from freehold.models.oci.manifest import check_file_name
from freehold.models.partial import Partial
from freehold.models.ranges import Span, is_worth
from freehold.models.source import BESIDE_BYTES, Fetched, Origin, Progress
from freehold.secret import resolve_secret
from freehold.settings import IN_FORCE, Bucket, Sources, environment

SCHEMES = ("s3", "gs", "az")
_FORM = re.compile(
    r"(?P<bucket>(?:s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]{1,221})(?:/(?P<path>[^#]*))?"
    r"(?:#(?P<file>.+))?"
)
MOST_LISTED = 10_000
RETRIES = 4
PIECE = 8 * 1024 * 1024
SMALL_PIECE = 1024 * 1024
"""Of several connections, each of which holds one."""
LONGEST = timedelta(days=1)
"""A range may take long on a slow line; one that brings nothing ends by ``sources.timeout``."""
ENDPOINTS = ("endpoint", "endpoint_url", "aws_endpoint", "aws_endpoint_url", "azure_endpoint",
             "base_url", "google_base_url")  # fmt: skip
SIGNATURE_OFF = {"s3": "skip_signature", "gs": "skip_signature", "az": "skip_signature"}


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """An object of a bucket. ``state`` changes whenever its bytes do."""

    path: str
    size: int
    state: str | None


class Store:
    """Reads ``s3://BUCKET/PATH``, ``gs://...`` and ``az://...``; downloads go on by ranges."""

    def __init__(self, settings: Sources) -> None:
        self._settings = settings

    def claims(self, text: str) -> Origin | None:
        """Claim the URLs of the three."""
        if text.partition("://")[0] not in SCHEMES or "://" not in text:
            return None
        return Origin(source="store", location=text)

    def fetch(self, origin: Origin, scratch: Path, progress: Progress) -> Fetched:
        """Download the model, and the card and the signature that lie beside it."""
        form = _FORM.fullmatch(origin.location)
        if form is None:
            raise Invalid(
                "invalid.source",
                f"{origin.location!r:.160} is not s3://, gs:// or az://BUCKET/PATH, with a bucket "
                "of at least two letters, digits, '.', '_' and '-'",
            )
        path = (form["path"] or "").strip("/")
        store, hidden = self._open(form["bucket"])
        with _explained(form["bucket"], hidden):
            whole = [] if form["file"] else _head(store, path)
            folder = path.rpartition("/")[0] if whole else path
            found = whole or _list(store, path)
            names = {_below(each.path, folder): each for each in found}
            models = only_model(list(names), form["file"])
            if whole:
                names |= {_below(e.path, folder): e for e in _beside(store, folder)}
            total = sum(names[name].size for name in models)
            files, before = {}, 0
            for name in models:
                files[name] = _download(store, names[name], scratch, progress, before, total)
                before += names[name].size
            card = _small(store, names, CARDS)
            signature = _small(store, names, SIGNATURES)
        single = len(models) == 1 and models[0].endswith(".gguf")
        stem = Path(models[0]).stem if whole or not folder else folder.rpartition("/")[2]
        return Fetched(
            name=stem,
            files={"model.gguf": files[models[0]]} if single else files,
            resolved=f"{form['bucket']}/{names[models[0]].path if single else folder}",
            moved=True,
            card=card.decode("utf-8", "replace") if card else None,
            signature=signature,
        )

    def _open(self, bucket: str) -> tuple[Any, list[str]]:
        """Return the store, and what of its configuration must never be shown."""
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise Missing(
                "missing.extra", f"{bucket} needs: pip install 'freehold[stores]'"
            ) from error
        settings = self._settings.buckets.get(bucket, Bucket())
        secrets = {name: resolve_secret(each) for name, each in settings.secrets.items()}
        config: Any = {**settings.options, **secrets}
        if not secrets:
            config.setdefault(SIGNATURE_OFF[bucket.partition("://")[0]], True)
        pace = timedelta(seconds=self._settings.timeout)
        options: Any = {
            "allow_http": settings.plain_http or _is_here(settings.options),
            "connect_timeout": pace,
            "read_timeout": pace,
            "timeout": LONGEST,
            "user_agent": "freehold",
        }
        pem = _authorities(self._settings)
        if pem:
            options["root_certificate"] = pem
        retry: Any = {"max_retries": RETRIES, "retry_timeout": pace * RETRIES}
        with _explained(bucket, list(secrets.values())):
            store = from_url(bucket, config=config, client_options=options, retry_config=retry)
        return store, list(secrets.values())


def _authorities(settings: Sources) -> bytes:
    found = b""
    for bundle in (settings.ca_bundle, environment().get("SSL_CERT_FILE", "")):
        if bundle:
            try:
                found += Path(bundle).expanduser().read_bytes() + b"\n"
            except OSError as error:
                raise Invalid(
                    "invalid.ca_bundle", f"cannot use the certificates in {bundle}: {error}"
                ) from error
    return found


def _is_here(options: dict[str, str]) -> bool:
    """Say whether the bucket is on this machine: only there is TLS needless."""
    named = [options[name] for name in ENDPOINTS if name in options]
    return bool(named) and all(is_loopback(urlsplit(each).netloc) for each in named)


def _head(store: Any, path: str) -> list[Object]:
    import obstore
    from obstore.exceptions import NotFoundError

    if not path:
        return []
    try:
        return [_object(obstore.head(store, path))]
    except (NotFoundError, FileNotFoundError):
        return []


def _list(store: Any, folder: str) -> list[Object]:
    import obstore

    found: list[Object] = []
    for some in obstore.list(store, prefix=folder or None):
        found += map(_object, some)
        if len(found) > MOST_LISTED:
            raise Invalid("invalid.source", f"there are over {MOST_LISTED} objects: name one")
    if not found:
        raise Missing("missing.source", f"there is no {folder or 'object'!r:.120}", param="source")
    return found


def _beside(store: Any, folder: str) -> list[Object]:
    paths = [f"{folder}/{name}" if folder else name for name in (*CARDS[:1], *SIGNATURES)]
    return [each for path in paths for each in _head(store, path)]


def _object(found: Any) -> Object:
    state = found.get("e_tag") or found.get("version")
    return Object(path=found["path"], size=found["size"], state=state)


def _below(path: str, folder: str) -> str:
    return check_file_name(path.removeprefix(folder).strip("/"))


def _small(store: Any, names: dict[str, Object], wanted: tuple[str, ...]) -> bytes | None:
    import obstore

    for name in wanted:
        if name in names and names[name].size <= BESIDE_BYTES:
            return bytes(obstore.get_range(store, names[name].path, start=0, end=names[name].size))
    return None


def _download(
    store: Any, wanted: Object, scratch: Path, progress: Progress, before: int, total: int
) -> Path:
    """Bring an object here; a part that an earlier try left, of the same bytes, is gone on with."""
    mark = hashlib.sha256(f"{wanted.path}\0{wanted.state}\0{wanted.size}".encode()).hexdigest()[:24]
    target, part = scratch / f"object-{mark}", scratch / f"object-{mark}.part"
    if target.exists():
        return target
    partial = Partial(part, wanted.size)

    def told(done: int) -> None:
        progress("fetch", before + done, total)

    try:
        if is_worth(wanted.size) and wanted.state:
            fetch_ranges(partial, lambda span: _range(store, wanted, span), told)
        else:
            _by_one(store, wanted, part, told)
    except CutOff as error:
        raise error.__cause__ or ValueError(f"{wanted.path}: {error}") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        partial.forget()
        raise no_space(part) from error
    if part.stat().st_size != wanted.size:
        partial.forget()
        raise Invalid("invalid.size", f"{wanted.path} is not the {wanted.size} bytes it should be")
    partial.settle()
    part.replace(target)
    return target


def _by_one(store: Any, wanted: Object, part: Path, progress: Callable[[int], None]) -> None:
    have = part.stat().st_size if part.exists() and wanted.state else 0
    with part.open("r+b" if have else "wb") as file:
        file.seek(have)
        while have < wanted.size:
            for piece in _pieces(store, wanted, (have, min(wanted.size, have + PIECE * 8)), PIECE):
                have += file.write(piece)
                progress(have)


def _range(store: Any, wanted: Object, span: Span) -> Generator[memoryview, None, None]:
    from obstore.exceptions import GenericError

    try:
        for piece in _pieces(store, wanted, span, SMALL_PIECE):
            yield memoryview(piece)
    except GenericError as error:  # whatever the network does, after the library's own tries
        raise CutOff("it breaks off") from error


def _pieces(store: Any, wanted: Object, span: Span, least: int) -> Iterator[Any]:
    """Yield a range of that state of an object which was found; another one's is refused."""
    import obstore

    options: dict[str, Any] = {"range": span}
    if wanted.state:
        options["if_match"] = wanted.state
    answer = obstore.get(store, wanted.path, options=options)  # type: ignore[arg-type]
    # Lists and answers of one store quote it differently; some look at no condition.
    state = _object(answer.meta).state
    if wanted.state and state and state.strip('W/"') != wanted.state.strip('W/"'):
        raise Unavailable(
            "unavailable.source", f"{wanted.path} has changed meanwhile: run it again"
        )
    yield from answer.stream(least)


@contextmanager
def _explained(bucket: str, hidden: list[str]) -> Iterator[None]:
    from obstore import exceptions

    try:
        yield
    except (exceptions.NotFoundError, FileNotFoundError) as error:
        raise Missing("missing.source", f"{bucket} has no such object", param="source") from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise Forbidden(
            "forbidden.bucket",
            f'{bucket} refuses us: give it secrets, [sources.buckets."{bucket}"] in {IN_FORCE}',
        ) from error
    except exceptions.PreconditionError as error:
        raise Unavailable(
            "unavailable.source", f"the object in {bucket} has changed meanwhile: run it again"
        ) from error
    except exceptions.UnknownConfigurationKeyError as error:
        raise Invalid("invalid.settings", f"{bucket}: {_plain(error, hidden)}") from error
    except (exceptions.BaseError, ValueError) as error:
        raise Unavailable(
            "unavailable.source",
            f"cannot read from {bucket}: {_plain(error, hidden)}; what has come is kept: run the "
            "same command again to go on",
        ) from error


def _plain(error: Exception, hidden: list[str]) -> str:
    """Return the first line of an error, without secrets."""
    text = str(error).strip().partition("\n")[0]
    for secret in hidden:
        text = text.replace(secret, "...")
    return "".join(letter for letter in text if letter.isprintable())[:300]
