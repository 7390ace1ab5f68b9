"""Every URL of the registry: what a path below ``/v2/`` means, and what an error is there. Pure.

``/v2/health`` and ``/v2/models`` belong to the Open Inference Protocol: no repository may be called
so, and nothing below them is ever taken for the registry's.
"""

import re
from typing import Literal

import msgspec

from freehold.gateway.faults import Fault, Form

Kind = Literal["base", "catalog", "tags", "manifest", "blob", "uploads", "upload", "referrers"]
_NAME = r"/v2/(?P<repository>(?!(?:models|health)/).+?)"
_SHAPES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("base", re.compile(r"/v2/")),
    ("catalog", re.compile(r"/v2/_catalog")),
    ("tags", re.compile(rf"{_NAME}/tags/list")),
    ("uploads", re.compile(rf"{_NAME}/blobs/uploads/?")),
    ("upload", re.compile(rf"{_NAME}/blobs/uploads/(?P<label>[^/]+)")),
    ("manifest", re.compile(rf"{_NAME}/manifests/(?P<label>[^/]+)")),
    ("blob", re.compile(rf"{_NAME}/blobs/(?P<label>[^/]+)")),
    ("referrers", re.compile(rf"{_NAME}/referrers/(?P<label>[^/]+)")),
)
URLS: dict[Kind, str] = {
    "base": "/v2/",
    "catalog": "/v2/_catalog",
    "tags": "/v2/{name}/tags/list",
    "manifest": "/v2/{name}/manifests/{reference}",
    "blob": "/v2/{name}/blobs/{digest}",
    "uploads": "/v2/{name}/blobs/uploads/",
    "upload": "/v2/{name}/blobs/uploads/{id}",
    "referrers": "/v2/{name}/referrers/{digest}",
}
"""How people write them."""
METHODS: dict[Kind, tuple[str, ...]] = {
    "base": ("GET", "HEAD"),
    "catalog": ("GET",),
    "tags": ("GET",),
    "manifest": ("GET", "HEAD", "PUT", "DELETE"),
    "blob": ("GET", "HEAD"),
    "uploads": ("POST",),
    "upload": ("GET", "PATCH", "PUT", "DELETE"),
    "referrers": ("GET",),
}
"""What may be done with each; deleting a blob may not: it goes when nothing names it."""

_CODES = (
    ("unauthenticated.", "UNAUTHORIZED"),
    ("forbidden.", "DENIED"),
    ("refused.", "DENIED"),
    ("conflict.", "DENIED"),
    ("over", "TOOMANYREQUESTS"),
    ("missing.manifest", "MANIFEST_UNKNOWN"),
    ("missing.blob", "BLOB_UNKNOWN"),
    ("missing.upload", "BLOB_UPLOAD_UNKNOWN"),
    ("missing.", "NAME_UNKNOWN"),
    ("invalid.manifest_blob", "MANIFEST_BLOB_UNKNOWN"),
    ("invalid.repository", "NAME_INVALID"),
    ("invalid.digest", "DIGEST_INVALID"),
    ("broken.digest", "DIGEST_INVALID"),
    ("invalid.size", "SIZE_INVALID"),
    ("invalid.range", "BLOB_UPLOAD_INVALID"),
    ("invalid.body", "BLOB_UPLOAD_INVALID"),
    ("invalid.method", "UNSUPPORTED"),
    ("invalid.", "MANIFEST_INVALID"),
)
"""Beginnings of our codes, and what the specification calls that; the first match counts."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What a path means. ``label`` is a tag, a digest or an upload's id."""

    kind: Kind
    repository: str = ""
    label: str = ""


def read_path(path: str) -> Operation | None:
    """Return what a path means, None where it is not the registry's."""
    for kind, shape in _SHAPES:
        found = shape.fullmatch(path)
        if found is not None:
            return Operation(kind=kind, **found.groupdict())
    return None


def code_of(code: str) -> str:
    """Return the specification's name for one of our codes."""
    return next((name for head, name in _CODES if code.startswith(head)), "UNKNOWN")


def _body(found: Fault) -> bytes:
    problem = {"code": code_of(found.code), "message": found.problem.message,
               "detail": {"code": found.code, "id": found.problem.id}}  # fmt: skip
    return msgspec.json.encode({"errors": [problem]})


FORM = Form(body=_body, id_header="x-request-id")
