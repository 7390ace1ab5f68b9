"""The file a signature comes in: a Sigstore bundle (v0.3) around a DSSE envelope. Pure."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from freehold.errors import Invalid

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
LARGEST = 16 * 1024 * 1024


class _PublicKey(msgspec.Struct, frozen=True, omit_defaults=True):
    hint: str | None = None


class _Certificate(msgspec.Struct, frozen=True, rename="camel"):
    raw_bytes: str


class _Chain(msgspec.Struct, frozen=True):
    certificates: Annotated[tuple[_Certificate, ...], msgspec.Meta(min_length=1, max_length=16)]


class _Material(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _Chain | None = None
    certificate: _Certificate | None = None
    tlog_entries: list[Any] | None = None


class _Signature(msgspec.Struct, frozen=True, kw_only=True):
    sig: str
    keyid: str = ""


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    payload: str
    payload_type: str
    signatures: Annotated[tuple[_Signature, ...], msgspec.Meta(min_length=1, max_length=1)]


class _Bundle(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A signature: the signed bytes, and by whom it says it is: a key's hint, or certificates.

    ``certificates`` are DER, the signer's first. Nothing of it is verified yet.
    """

    payload: bytes
    signature: bytes
    hint: str | None = None
    certificates: tuple[bytes, ...] = ()


def encode(bundle: Bundle) -> bytes:
    """Return the JSON of a signature."""
    chain = tuple(_Certificate(_text(each)) for each in bundle.certificates)
    material: dict[str, Any] = (
        {"x509CertificateChain": {"certificates": [{"rawBytes": each.raw_bytes} for each in chain]}}
        if chain
        else {"publicKey": {"hint": bundle.hint}}
    )
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {**material, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": _text(bundle.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _text(bundle.signature), "keyid": ""}],
        },
    }
    return msgspec.json.encode(document)


def decode(data: bytes) -> Bundle:
    """Return the signature that a file holds; ``Invalid`` where it is none of ours."""
    if len(data) > LARGEST:
        raise Invalid("invalid.signature", f"a signature is at most {LARGEST} bytes")
    try:
        found = msgspec.json.decode(data, type=_Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("invalid.signature", f"this is no signature bundle: {error}") from error
    if found.media_type != MEDIA_TYPE:
        raise Invalid("invalid.signature", f"a bundle of another kind: {found.media_type!r:.100}")
    envelope, material = found.dsse_envelope, found.verification_material
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Invalid("invalid.signature", f"it signs {envelope.payload_type!r:.100}")
    if material.certificate is not None:
        raise Invalid(
            "invalid.signature",
            "it was signed with an identity of Sigstore, which a machine without the internet "
            "cannot verify: sign with a key or a certificate",
        )
    chain = material.x509_certificate_chain
    return Bundle(
        payload=_bytes(envelope.payload),
        signature=_bytes(envelope.signatures[0].sig),
        hint=material.public_key.hint if material.public_key else None,
        certificates=tuple(_bytes(each.raw_bytes) for each in chain.certificates) if chain else (),
    )


def signed_bytes(payload: bytes) -> bytes:
    """Return the bytes that the signature is over: DSSE's encoding of kind and payload."""
    parts: Sequence[bytes] = (
        b"DSSEv1",
        str(len(PAYLOAD_TYPE)).encode(),
        PAYLOAD_TYPE.encode(),
        str(len(payload)).encode(),
        payload,
    )
    return b" ".join(parts)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("invalid.signature", "the signature is not valid base64") from error
