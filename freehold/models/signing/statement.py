"""What a signature says: a model's name, and the digest of each of its files. Pure.

An in-toto statement (v1) with the predicate of OpenSSF Model Signing v1.0. The digest of its
subject is SHA-256 over the files' digests, in the order of their names.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from freehold.errors import DigestMismatch, Invalid

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
MOST_FILES = 100_000
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]


class _Resource(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    algorithm: str
    digest: str


class _Serialization(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    hash_type: str


class _Predicate(msgspec.Struct, frozen=True, kw_only=True):
    serialization: _Serialization
    resources: Annotated[tuple[_Resource, ...], msgspec.Meta(max_length=MOST_FILES)]


class _Subject(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    predicate_type: str = msgspec.field(name="predicateType")
    subject: Annotated[tuple[_Subject, ...], msgspec.Meta(min_length=1, max_length=1)]
    predicate: _Predicate


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement promises: the model's name, and SHA-256 (hex) by file name."""

    name: str
    files: Mapping[str, str]

    def covers(self, digests: Sequence[str]) -> bool:
        """Say whether every one of these digests is promised; names may differ from ours."""
        return bool(digests) and set(digests) <= set(self.files.values())


def make_statement(name: str, files: Mapping[str, str]) -> bytes:
    """Return the statement over files (SHA-256 in hex by name), as the bytes that are signed."""
    resources = [
        {"name": each, "algorithm": "sha256", "digest": files[each]} for each in sorted(files)
    ]
    root = _root([resource["digest"] for resource in resources])
    document = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": resources,
        },
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def read_statement(data: bytes) -> Signed:
    """Return what a statement promises; ``Invalid`` for one of another kind or at odds with itself.

    The signature over ``data`` must have been verified before: nothing in here is believed for
    its own sake.
    """
    try:
        document = json.loads(data, object_pairs_hook=_once)
        kind = document.get("predicateType") if isinstance(document, dict) else None
        if kind != PREDICATE:
            raise Invalid(
                "invalid.signature", f"it states {kind!r:.80}: OpenSSF Model Signing v1.0 is known"
            )
        found = msgspec.convert(document, _Statement)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise Invalid("invalid.signature", f"the signed statement is wrong: {error}") from error
    predicate = found.predicate
    if (predicate.serialization.method, predicate.serialization.hash_type) != ("files", "sha256"):
        raise Invalid(
            "invalid.signature",
            f"files are signed as {predicate.serialization.method} of "
            f"{predicate.serialization.hash_type}: sign them whole, with SHA-256",
        )
    files = _files(predicate.resources)
    if found.subject[0].digest.get("sha256") != _root(
        [each.digest for each in predicate.resources]
    ):
        raise DigestMismatch("broken.signature", "the signed files are not those of its subject")
    return Signed(name=found.subject[0].name, files=files)


def _files(resources: Sequence[_Resource]) -> dict[str, str]:
    files: dict[str, str] = {}
    for each in resources:
        if each.algorithm != "sha256" or len(each.digest) != 64 or each.name in files:
            raise Invalid("invalid.signature", f"it says of {each.name!r:.80} what cannot be")
        files[each.name] = each.digest
    return files


def _root(digests: Sequence[str]) -> str:
    try:
        return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
    except ValueError as error:
        raise Invalid("invalid.signature", "a digest in it is not hexadecimal") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found
