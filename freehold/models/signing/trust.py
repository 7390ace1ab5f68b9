"""Whose signatures count: keys and authorities that an administrator names. Fails closed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from freehold.errors import Forbidden, FreeholdError, Invalid
from freehold.models.signing.bundle import Bundle, decode, signed_bytes
from freehold.models.signing.signer import check_extra, check_key, hash_of, hint_of, read_pem
from freehold.models.signing.statement import Signed, read_statement
from freehold.settings import FILE, Signing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.x509 import Certificate

DEPTH = 8
ADVICE = f"sign it with freehold model sign, or see [signing] in {FILE}"


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """A signature that holds: who made it, as people read it, and what it promises."""

    signer: str
    signed: Signed


class Trust:
    """The keys and authorities of ``[signing]``; their files are read anew at every question."""

    def __init__(self, settings: Signing) -> None:
        self.required = settings.required
        self._keys = tuple(map(Path, settings.keys))
        self._certificates = tuple(map(Path, settings.certificates))

    def verify(self, data: bytes) -> Verified:
        """Return who signed and what; ``Forbidden`` where nobody that is trusted did."""
        check_extra()
        bundle = decode(data)
        if bundle.certificates:
            key, signer = self._certified(bundle)
        else:
            key, signer = self._known(bundle)
        _check_signature(bundle, key)
        return Verified(signer=signer, signed=read_statement(bundle.payload))

    def find(
        self, bundles: Sequence[bytes], digests: Sequence[str], advice: str = ADVICE
    ) -> Verified:
        """Return the first signature that holds over all of these digests (SHA-256 in hex).

        ``Forbidden`` says of each why it does not count, of none that there is none, and the
        ``advice``.
        """
        check_extra()
        reasons = []
        for data in bundles:
            try:
                found = self.verify(data)
            except FreeholdError as error:
                reasons.append(error.message)
                continue
            if found.signed.covers(digests):
                return found
            reasons.append(f"the signature by {found.signer} is over other files")
        why = "; ".join(reasons) or "it has no signature"
        raise Forbidden(
            "forbidden.unsigned",
            f"not signed by anybody trusted here: {why}: {advice}",
        )

    def _known(self, bundle: Bundle) -> tuple["EllipticCurvePublicKey", str]:
        for path in self._keys:
            key = read_public_key(path)
            if bundle.hint in (None, "", hint_of(key)) and _holds(bundle, key):
                return key, f"key {hint_of(key)[:16]} ({path.name})"
        named = f"key {bundle.hint[:16]}" if bundle.hint else "a key without a name"
        raise Forbidden("forbidden.signer", f"it says {named} signed it, which is not trusted here")

    def _certified(self, bundle: Bundle) -> tuple["EllipticCurvePublicKey", str]:
        from cryptography import x509

        try:
            chain = [x509.load_der_x509_certificate(each) for each in bundle.certificates]
            subject = chain[0].subject.rfc4514_string()
        except ValueError as error:
            raise Invalid("invalid.signature", "a certificate in it cannot be read") from error
        roots = [each for path in self._certificates for each in read_certificates(path)]
        if not roots:
            raise Forbidden(
                "forbidden.signer", "it is by a certificate, and no authority is trusted"
            )
        _check_chain(chain, roots)
        _check_use(chain[0])
        return check_key(
            chain[0].public_key(), "the signer's certificate"
        ), f"certificate {subject}"


def read_public_key(path: Path) -> "EllipticCurvePublicKey":
    """Return the public key in a PEM file."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = read_pem(path)
    if b"PRIVATE KEY-----" in data:
        raise Invalid(
            "invalid.key",
            f"{path} is a private key: keep it to yourself, and give its public half "
            f"(openssl ec -in {path.name} -pubout)",
        )
    try:
        return check_key(load_pem_public_key(data), str(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("invalid.key", f"{path} holds no PEM public key") from error


def read_certificates(path: Path) -> "list[Certificate]":
    """Return the certificates in a PEM file."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(read_pem(path))
    except ValueError as error:
        raise Invalid("invalid.certificate", f"{path} holds no PEM certificate") from error


def _holds(bundle: Bundle, key: "EllipticCurvePublicKey") -> bool:
    try:
        _check_signature(bundle, key)
    except Forbidden:
        return False
    return True


def _check_signature(bundle: Bundle, key: "EllipticCurvePublicKey") -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key.verify(bundle.signature, signed_bytes(bundle.payload), ec.ECDSA(hash_of(key)))
    except InvalidSignature as error:
        raise Forbidden(
            "forbidden.signature",
            "the signature does not hold: it, or what it is over, was changed",
        ) from error


def _check_chain(chain: "Sequence[Certificate]", roots: "Sequence[Certificate]") -> None:
    """Build a path from the signer to an authority, at the time the certificate began to hold.

    Signatures say no time of their own, and are to hold for longer than certificates do.
    """
    if chain[0] in roots:
        return
    from cryptography.x509 import verification

    authority = verification.ExtensionPolicy.permit_all().require_present(
        _basic(), verification.Criticality.AGNOSTIC, _is_authority
    )
    builder = (
        verification.PolicyBuilder()
        .store(verification.Store(list(roots)))
        .time(chain[0].not_valid_before_utc)
        .max_chain_depth(DEPTH)
        .extension_policies(
            ca_policy=authority, ee_policy=verification.ExtensionPolicy.permit_all()
        )
    )
    try:
        builder.build_client_verifier().verify(chain[0], list(chain[1:]))
    except (verification.VerificationError, ValueError) as error:
        raise Forbidden(
            "forbidden.signer",
            f"its certificate ({chain[0].subject.rfc4514_string():.100}) does not come from an "
            f"authority that is trusted here: {error}",
        ) from error


def _basic() -> "type":
    from cryptography.x509 import BasicConstraints

    return BasicConstraints


def _is_authority(_policy: object, _certificate: object, extension: object) -> None:
    if not getattr(extension, "ca", False):
        raise ValueError("a certificate in between is no authority")


def _check_use(certificate: "Certificate") -> None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        if certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return
    except x509.ExtensionNotFound:
        pass
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CODE_SIGNING in usage:
            return
    except x509.ExtensionNotFound:
        pass
    raise Forbidden("forbidden.signer", "the signer's certificate is not made for signatures")
