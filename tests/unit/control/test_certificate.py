"""A certificate and its key, held against each other."""

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from freehold.control.certificate import check_exposure, forget_others, stamp, take
from freehold.errors import FreeholdError, Invalid
from freehold.settings import Server


@pytest.fixture(scope="module")
def issued() -> tuple[bytes, bytes, bytes]:
    authority = trustme.CA()
    one = authority.issue_cert("localhost")
    return (
        one.cert_chain_pems[0].bytes(),
        one.private_key_pem.bytes(),
        authority.issue_cert("localhost").private_key_pem.bytes(),
    )


def _settings(folder: Path, certificate: bytes, key: bytes, **more: str) -> Server:
    (folder / "c").write_bytes(certificate)
    (folder / "k").write_bytes(key)
    return Server(tls_certificate=str(folder / "c"), tls_key=str(folder / "k"), **more)  # type: ignore[arg-type]


def test_a_pair_that_fits_is_kept(tmp_path: Path, issued: tuple[bytes, bytes, bytes]) -> None:
    settings, kept = _settings(tmp_path, *issued[:2]), tmp_path / "kept"
    before = stamp(settings)
    found = take(settings, kept)
    assert found is not None
    assert (found.folder / "key.pem").stat().st_mode & 0o777 == 0o600
    assert take(settings, kept) == found
    (tmp_path / "k").write_bytes(issued[2])
    assert stamp(settings) != before
    with pytest.raises(Invalid, match="does not fit"):
        take(settings, kept)
    assert (found.folder / "key.pem").read_bytes().strip() == issued[1].strip()
    forget_others(kept, {found.digest})
    assert list(kept.iterdir()) == [found.folder]


def test_without_tls_there_is_nothing_to_take(tmp_path: Path) -> None:
    assert take(Server(), tmp_path) is None


def test_a_key_with_a_password(tmp_path: Path, issued: tuple[bytes, bytes, bytes]) -> None:
    key = load_pem_private_key(issued[1], None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"shh"))
    (tmp_path / "right").write_text("shh")
    (tmp_path / "wrong").write_text("no")
    fits = _settings(tmp_path, issued[0], locked, tls_key_password=f"file:{tmp_path / 'right'}")
    assert take(fits, tmp_path / "kept") is not None
    for reference in (f"file:{tmp_path / 'wrong'}", "", "file:/not/there", "shh"):
        wrong = _settings(tmp_path, issued[0], locked, tls_key_password=reference)
        with pytest.raises(FreeholdError):
            take(wrong, tmp_path / "other")


@pytest.mark.parametrize(
    "more",
    [{"tls_key": ""}, {"tls_certificate": ""}, {"client_ca": "/not/there"}],
    ids=["no key", "no certificate", "no authority"],
)
def test_half_of_it_is_refused(
    tmp_path: Path, issued: tuple[bytes, bytes, bytes], more: dict[str, str]
) -> None:
    given = {"tls_certificate": str(tmp_path / "c"), "tls_key": str(tmp_path / "k"), **more}
    _settings(tmp_path, *issued[:2])
    with pytest.raises(Invalid):
        take(Server(**given), tmp_path / "kept")  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_needs_no_tls(host: str) -> None:
    check_exposure(Server(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_everything_else_does(host: str) -> None:
    with pytest.raises(Invalid, match="insecure"):
        check_exposure(Server(host=host))
    check_exposure(Server(host=host, insecure=True))
    check_exposure(Server(host=host, tls_certificate="c", tls_key="k"))
