"""OpenSSF Model Signing v1.0: what holds, what does not, and both ways with the real package."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from freehold.errors import DigestMismatch, Forbidden, FreeholdError, Invalid
from freehold.models.signing import bundle, statement
from freehold.models.signing.signer import sign
from freehold.models.signing.trust import Trust
from freehold.settings import Signing
from freehold.store.blobs import measure
from tests.registries import clean_environment

FILES = {"model.gguf": "ab" * 32, "README.md": "cd" * 32}
CURVES = [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1]


def private_pem(key: ec.EllipticCurvePrivateKey, password: str | None = None) -> bytes:
    kept = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kept)


def make_key(folder: Path, curve: type[ec.EllipticCurve] = ec.SECP256R1, name: str = "k") -> Path:
    """Write NAME.pem and NAME.pub; return the former."""
    key = ec.generate_private_key(curve())
    (folder / f"{name}.pem").write_bytes(private_pem(key))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return folder / f"{name}.pem"


def trust(*keys: Path, certificates: tuple[Path, ...] = ()) -> Trust:
    return Trust(Signing(keys=tuple(map(str, keys)), certificates=tuple(map(str, certificates))))


class Authority:
    """A root, one between, and signers under it, as PEM files in a folder."""

    def __init__(self, folder: Path, name: str = "root") -> None:
        self.folder = folder
        self.root_key = ec.generate_private_key(ec.SECP384R1())
        self.root = self._certificate(name, self.root_key, None, self.root_key, ca=True)
        self.middle_key = ec.generate_private_key(ec.SECP256R1())
        self.middle = self._certificate(
            "middle", self.middle_key, self.root, self.root_key, ca=True
        )
        self.pem = self._write(name, self.root)
        self.chain = self._write(f"{name}-middle", self.middle)

    def signer(self, name: str, *, signs: bool = True, ca: bool = False, **more: bool) -> Path:
        """Write NAME.pem, the key, and NAME.crt; return the former."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._certificate(
            name, key, self.middle, self.middle_key, ca=ca, signs=signs, **more
        )
        (self.folder / f"{name}.pem").write_bytes(private_pem(key))
        (self.folder / f"{name}.crt").write_bytes(made.public_bytes(Encoding.PEM))
        return self.folder / f"{name}.pem"

    def _write(self, name: str, made: x509.Certificate) -> Path:
        path = self.folder / f"{name}.crt"
        path.write_bytes(made.public_bytes(Encoding.PEM))
        return path

    def _certificate(
        self, name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None,
        by: ec.EllipticCurvePrivateKey, *, ca: bool, signs: bool = True, code: bool = False,
        expired: bool = False,
    ) -> x509.Certificate:  # fmt: skip
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        ends = now + timedelta(days=-1 if expired else 30)
        begins = now - timedelta(days=3 if expired or ca else 0, minutes=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if signs or ca:
            usage = x509.KeyUsage(
                digital_signature=signs, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=ca, crl_sign=ca,
                encipher_only=False, decipher_only=False,
            )  # fmt: skip
            builder = builder.add_extension(usage, critical=True)
        if code:
            use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
            builder = builder.add_extension(use, critical=False)
        return builder.sign(by, hashes.SHA256())


@pytest.mark.parametrize("curve", CURVES)
def test_a_key_signs_and_its_public_half_verifies(
    tmp_path: Path, curve: type[ec.EllipticCurve]
) -> None:
    key = make_key(tmp_path, curve)
    made = sign(statement.make_statement("m", FILES), key)
    found = trust(tmp_path / "k.pub").verify(made)
    assert found.signed == statement.Signed(name="m", files=FILES)
    assert found.signer.endswith("(k.pub)")
    assert found.signed.covers(["ab" * 32])
    assert not found.signed.covers(["ab" * 32, "ee" * 32])
    assert not found.signed.covers([])


def test_the_key_of_somebody_else_does_not_count(tmp_path: Path) -> None:
    made = sign(statement.make_statement("m", FILES), make_key(tmp_path))
    make_key(tmp_path, name="other")
    with pytest.raises(Forbidden, match="is not trusted here"):
        trust(tmp_path / "other.pub").verify(made)
    with pytest.raises(Forbidden, match="not trusted here"):
        trust().verify(made)
    # A bundle that claims the other key's name is held against that key.
    other = sign(statement.make_statement("m", FILES), tmp_path / "other.pem")
    document = json.loads(made)
    document["verificationMaterial"] = json.loads(other)["verificationMaterial"]
    with pytest.raises(Forbidden):
        trust(tmp_path / "other.pub").verify(json.dumps(document).encode())


@pytest.mark.parametrize("part", ["payload", "sig"])
def test_any_change_is_found(tmp_path: Path, part: str) -> None:
    made = sign(statement.make_statement("m", FILES), make_key(tmp_path))
    found = bundle.decode(made)
    data = found.payload if part == "payload" else found.signature
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1
        given = {"payload" if part == "payload" else "signature": bytes(changed)}
        other = bundle.Bundle(
            **{"payload": found.payload, "signature": found.signature, "hint": found.hint} | given
        )  # type: ignore[arg-type]
        with pytest.raises(Forbidden):
            trust(tmp_path / "k.pub").verify(bundle.encode(other))


def test_a_key_with_a_password(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "k.pem").write_bytes(private_pem(key, "open sesame"))
    said = statement.make_statement("m", FILES)
    assert sign(said, tmp_path / "k.pem", "open sesame")
    for password, says in ((None, "wants a password"), ("no", "password is wrong")):
        with pytest.raises(Invalid, match=says):
            sign(said, tmp_path / "k.pem", password)
    make_key(tmp_path, name="bare")
    with pytest.raises(Invalid, match="has no password"):
        sign(said, tmp_path / "bare.pem", "open sesame")


def test_keys_of_other_kinds_and_files_that_are_none(tmp_path: Path) -> None:
    said = statement.make_statement("m", FILES)
    odd = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "ed.pem").write_bytes(
        odd.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    small = make_key(tmp_path, ec.SECP224R1, "small")
    (tmp_path / "text").write_text("hello")
    for path in (tmp_path / "ed.pem", small, tmp_path / "text", tmp_path / "none", tmp_path):
        with pytest.raises(Invalid):
            sign(said, path)
    made = sign(said, make_key(tmp_path))
    for path in (tmp_path / "small.pub", tmp_path / "text", tmp_path / "none"):
        with pytest.raises(Invalid):
            trust(path).verify(made)


def test_a_certificate_under_an_authority(tmp_path: Path) -> None:
    own = Authority(tmp_path)
    said = statement.make_statement("m", FILES)
    key = own.signer("alice")
    made = sign(said, key, certificate=tmp_path / "alice.crt", chain=[own.chain])
    found = trust(certificates=(own.pem,)).verify(made)
    assert (found.signer, found.signed.files) == ("certificate CN=alice", FILES)
    # Pinned itself, or by the one between.
    assert trust(certificates=(tmp_path / "alice.crt",)).verify(made)
    assert trust(certificates=(own.chain,)).verify(made)
    with pytest.raises(Invalid, match="is not the certificate of this key"):
        sign(said, own.signer("bob"), certificate=tmp_path / "alice.crt")


def test_certificates_that_do_not_count(tmp_path: Path) -> None:
    own = Authority(tmp_path)
    (tmp_path / "x").mkdir()
    other = Authority(tmp_path / "x", "other")
    said = statement.make_statement("m", FILES)

    def made(name: str, chain: list[Path], **more: bool) -> bytes:
        key = own.signer(name, **more)
        return sign(said, key, certificate=tmp_path / f"{name}.crt", chain=chain)

    good = made("alice", [own.chain])
    with pytest.raises(Forbidden, match="does not come from an authority"):
        trust(certificates=(other.pem,)).verify(good)
    with pytest.raises(Forbidden, match="no authority is trusted"):
        trust().verify(good)
    with pytest.raises(Forbidden, match="does not come from an authority"):
        trust(certificates=(own.pem,)).verify(made("alone", []))
    with pytest.raises(Forbidden, match="not made for signatures"):
        trust(certificates=(own.pem,)).verify(made("web", [own.chain], signs=False))
    assert trust(certificates=(own.pem,)).verify(made("code", [own.chain], signs=False, code=True))
    # It held when it signed; signatures say no time of their own.
    assert trust(certificates=(own.pem,)).verify(made("late", [own.chain], expired=True))


def test_a_signer_cannot_make_signers(tmp_path: Path) -> None:
    """A certificate for signatures, used as if it were an authority's."""
    own = Authority(tmp_path)
    own.signer("alice")
    fake = Authority(tmp_path, "fake")
    key = ec.generate_private_key(ec.SECP256R1())
    alice = x509.load_pem_x509_certificate((tmp_path / "alice.crt").read_bytes())
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    alice_key = load_pem_private_key((tmp_path / "alice.pem").read_bytes(), None)
    assert isinstance(alice_key, ec.EllipticCurvePrivateKey)
    forged = fake._certificate("mallory", key, alice, alice_key, ca=False)
    (tmp_path / "mallory.crt").write_bytes(forged.public_bytes(Encoding.PEM))
    (tmp_path / "mallory.pem").write_bytes(private_pem(key))
    made = sign(
        statement.make_statement("m", FILES), tmp_path / "mallory.pem",
        certificate=tmp_path / "mallory.crt", chain=[tmp_path / "alice.crt", own.chain],
    )  # fmt: skip
    with pytest.raises(Forbidden, match="does not come from an authority"):
        trust(certificates=(own.pem,)).verify(made)


def test_the_first_that_holds_over_all_files_is_found(tmp_path: Path) -> None:
    make_key(tmp_path)
    good = sign(statement.make_statement("m", FILES), tmp_path / "k.pem")
    less = sign(statement.make_statement("m", {"a": "ee" * 32}), tmp_path / "k.pem")
    own = trust(tmp_path / "k.pub")
    assert own.find([b"{}", less, good], ["ab" * 32]).signed.files == FILES
    with pytest.raises(Forbidden, match="is over other files"):
        own.find([less], ["ab" * 32])
    with pytest.raises(Forbidden, match="it has no signature"):
        own.find([], ["ab" * 32])


def changed(**fields: object) -> bytes:
    document = json.loads(statement.make_statement("m", FILES))
    return json.dumps({**document, **fields}).encode()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"{", Invalid), (b"[]", Invalid), (b"\xff", Invalid), (b"[" * 100_000, Invalid),
        (changed(predicateType="https://slsa.dev/provenance/v1"), Invalid),
        (changed(_type="https://in-toto.io/Statement/v0.1"), Invalid),
        (changed(subject=[]), Invalid),
        (changed(subject=[{"name": "m", "digest": {"sha256": "00" * 32}}]), DigestMismatch),
        (changed(predicate={"serialization": {"method": "files", "hash_type": "blake2"},
                            "resources": []}), Invalid),
        (changed(predicate={"serialization": {"method": "files", "hash_type": "sha256"},
                            "resources": [{"name": "a", "algorithm": "sha256", "digest": "zz"}]}),
         Invalid),
        (b'{"predicateType": "x", "predicateType": "y"}', Invalid),
    ],
)  # fmt: skip
def test_statements_that_are_wrong(data: bytes, error: type[FreeholdError]) -> None:
    with pytest.raises(error):
        statement.read_statement(data)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(mediaType="application/json"), "another kind"),
        (lambda d: d["dsseEnvelope"].update(payloadType="text/plain"), "it signs"),
        (lambda d: d["dsseEnvelope"].update(payload="?"), "not valid base64"),
        (lambda d: d["dsseEnvelope"].update(signatures=[]), "no signature bundle"),
        (lambda d: d["dsseEnvelope"]["signatures"].append(d["dsseEnvelope"]["signatures"][0]),
         "no signature bundle"),
        (lambda d: d["verificationMaterial"].update(certificate={"rawBytes": "AA=="}), "Sigstore"),
    ],
)  # fmt: skip
def test_bundles_that_are_wrong(
    tmp_path: Path, change: Callable[[dict[str, object]], object], says: str
) -> None:
    document = json.loads(sign(statement.make_statement("m", FILES), make_key(tmp_path)))
    change(document)
    with pytest.raises(Invalid, match=says):
        bundle.decode(json.dumps(document).encode())


def theirs(*arguments: object, code: int = 0) -> str:
    """Run the command line of the real ``model-signing``."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "model_signing", *map(str, arguments)],
        capture_output=True, text=True, check=False, env=clean_environment(),
    )  # fmt: skip
    assert ran.returncode == code, (ran.stdout, ran.stderr)
    return ran.stdout + ran.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"weights")
    (folder / "README.md").write_bytes(b"# card")
    return folder


def signed_here(folder: Path, *arguments: object, **more: object) -> Path:
    files = {path.name: measure(path)[0] for path in folder.iterdir()}
    made = sign(statement.make_statement(folder.name, files), *arguments, **more)  # type: ignore[arg-type]
    out = folder.parent / "ours.sig"
    out.write_bytes(made)
    return out


def test_the_real_package_verifies_ours_by_key(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("model_signing")
    key = make_key(tmp_path, ec.SECP384R1)
    ours = signed_here(model, key)
    verify = ("verify", "key", "--signature", ours, "--public_key", tmp_path / "k.pub", model)
    assert "succeeded" in theirs(*verify)
    (model / "model.gguf").write_bytes(b"weightz")
    assert "mismatch" in theirs(*verify, code=1)


def test_the_real_package_verifies_ours_by_certificate(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("model_signing")
    own = Authority(tmp_path)
    ours = signed_here(
        model, own.signer("alice"), certificate=tmp_path / "alice.crt", chain=[own.chain]
    )
    assert "succeeded" in theirs(
        "verify", "certificate", "--signature", ours, "--certificate_chain", own.pem, model
    )


@pytest.mark.parametrize("by", ["key", "certificate"])
def test_we_verify_what_the_real_package_signed(tmp_path: Path, model: Path, by: str) -> None:
    pytest.importorskip("model_signing")
    own = Authority(tmp_path)
    key = own.signer("alice") if by == "certificate" else make_key(tmp_path)
    certificate = (
        "--signing_certificate",
        tmp_path / "alice.crt",
        "--certificate_chain",
        own.chain,
    )
    sig = tmp_path / "theirs.sig"
    theirs("sign", by, "--signature", sig, "--private_key", key,
           *(certificate if by == "certificate" else ()), model)  # fmt: skip
    trusted = trust(tmp_path / "k.pub") if by == "key" else trust(certificates=(own.pem,))
    found = trusted.verify(sig.read_bytes())
    digests = [measure(path)[0] for path in model.iterdir()]
    assert found.signed.covers(digests)
    assert found.signed.name == "tiny"
    (model / "model.gguf").write_bytes(b"weightz")
    assert not found.signed.covers([measure(model / "model.gguf")[0]])


def test_without_the_extra_nothing_counts_as_signed(tmp_path: Path) -> None:
    made = sign(statement.make_statement("m", FILES), make_key(tmp_path))
    (tmp_path / "m.sig").write_bytes(made)
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path\n"
        "from freehold.errors import Missing\n"
        "from freehold.models.signing.trust import Trust\n"
        "from freehold.settings import Signing\n"
        "trust = Trust(Signing(required=True, keys=(sys.argv[2],)))\n"
        "for bundles in ([Path(sys.argv[1]).read_bytes()], []):\n"
        "    try:\n"
        "        trust.find(bundles, ['ab' * 32])\n"
        "    except Missing as error:\n"
        "        print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.sig"), str(tmp_path / "k.pub")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.count("pip install 'freehold[sign]'") == 2
