"""Sign with a private key of one's own. The key is read here, and leaves nothing behind."""

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from freehold.errors import Invalid, Missing
from freehold.models.signing.bundle import Bundle, encode, signed_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

FILE_BYTES = 1024 * 1024


def sign(
    statement: bytes,
    key: Path,
    password: str | None = None,
    certificate: Path | None = None,
    chain: Sequence[Path] = (),
) -> bytes:
    """Return the signature bundle over a statement, by a key or by a certificate's key.

    ``key`` is a PEM file of an ECDSA key on P-256, P-384 or P-521; ``certificate`` and ``chain``
    are PEM files, the signer's own and those between it and the authority.
    """
    check_extra()
    # Imported here, as below: an idle server must not pay for it.
    from cryptography.hazmat.primitives.asymmetric import ec

    private = _private(key, password)
    public = private.public_key()
    signature = private.sign(signed_bytes(statement), ec.ECDSA(hash_of(public)))
    if certificate is None:
        if chain:
            raise Invalid("invalid.usage", "a chain goes with the certificate of the signer")
        return encode(Bundle(payload=statement, signature=signature, hint=hint_of(public)))
    return encode(
        Bundle(
            payload=statement,
            signature=signature,
            certificates=_certificates(certificate, chain, public),
        )
    )


def check_extra() -> None:
    """Raise ``Missing`` where what signatures are made of is not installed."""
    if find_spec("cryptography") is None:
        raise Missing("missing.extra", "signatures need: pip install 'freehold[sign]'")


def hash_of(public: "EllipticCurvePublicKey") -> "HashAlgorithm":
    """Return the hash that goes with the size of a key."""
    from cryptography.hazmat.primitives import hashes

    sizes: dict[int, HashAlgorithm] = {
        256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512(),
    }  # fmt: skip
    return sizes[public.curve.key_size]


def hint_of(public: "EllipticCurvePublicKey") -> str:
    """Return what names a key in a bundle: SHA-256 over its PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def check_key(key: object, where: str) -> "EllipticCurvePublicKey":
    """Return the key when it is of a kind that signatures are made with."""
    from cryptography.hazmat.primitives.asymmetric import ec

    curves = ("secp256r1", "secp384r1", "secp521r1")
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in curves:
        raise Invalid("invalid.key", f"{where} is no ECDSA key on P-256, P-384 or P-521")
    return key


def read_pem(path: Path) -> bytes:
    """Return a small file."""
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except (OSError, RuntimeError) as error:
        raise Invalid("invalid.key", f"cannot read {path}: {error}") from error
    if len(data) > FILE_BYTES:
        raise Invalid("invalid.key", f"{path} is over {FILE_BYTES} bytes: no key is")
    return data


def _private(path: Path, password: str | None) -> "EllipticCurvePrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    secret = password.encode() if password is not None else None
    try:
        key = load_pem_private_key(read_pem(path), secret)
    except TypeError as error:  # a password too many, or none where one is wanted
        hint = "has no password" if secret else "wants a password: --key-password file:PATH"
        raise Invalid("invalid.key", f"{path} {hint}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(
            "invalid.key", f"{path} holds no private key, or the password is wrong"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Invalid("invalid.key", f"{path} is no ECDSA key on P-256, P-384 or P-521")
    check_key(key.public_key(), str(path))
    return key


def _certificates(
    certificate: Path, chain: Sequence[Path], public: "EllipticCurvePublicKey"
) -> tuple[bytes, ...]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    found = []
    for path in (certificate, *chain):
        try:
            found += x509.load_pem_x509_certificates(read_pem(path))
        except ValueError as error:
            raise Invalid("invalid.certificate", f"{path} holds no PEM certificate") from error
    if found[0].public_key() != public:
        raise Invalid("invalid.certificate", f"{certificate} is not the certificate of this key")
    return tuple(each.public_bytes(Encoding.DER) for each in found)
