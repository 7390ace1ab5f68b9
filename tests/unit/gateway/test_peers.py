"""Who the client is, when proxies say so."""

import pytest

from freehold.errors import Forbidden, Invalid
from freehold.gateway import cors
from freehold.gateway.peers import HOPS, address_of, client_of, networks

TRUSTED = networks(["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"])
FOR = "x-forwarded-for"


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("8.8.8.8:1", ["1.1.1.1"], "8.8.8.8:1"),
        ("127.0.0.1:1", [], "127.0.0.1"),
        ("127.0.0.1:1", ["1.1.1.1"], "1.1.1.1"),
        ("127.0.0.1:1", ["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        ("127.0.0.1:1", ["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
        ("127.0.0.1:1", ["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
        ("127.0.0.1:1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("127.0.0.1:1", ["1.1.1.1, nonsense"], "127.0.0.1"),
        ("127.0.0.1:1", ["6.6.6.6, nonsense, 10.0.0.2"], "10.0.0.2"),
        ("127.0.0.1:1", [""], "127.0.0.1"),
        ("127.0.0.1:1", ["1.1.1.1:4711"], "1.1.1.1"),
        ("127.0.0.1:1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("127.0.0.1:1", ["2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1:1", ["::ffff:10.0.0.9"], "10.0.0.9"),
        ("[fd00::1]:1", ["1.1.1.1"], "1.1.1.1"),
        ("127.0.0.1:1", ["1.1.1.1\r\nx: y"], "127.0.0.1"),
        ("127.0.0.1:1", [", ".join(["6.6.6.6"] + ["10.0.0.2"] * HOPS)], "10.0.0.2"),
    ],
)
def test_the_last_address_that_is_not_trusted_counts(
    peer: str, values: list[str], client: str
) -> None:
    assert client_of(peer, FOR, values, TRUSTED) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=1.1.1.1;proto=https;by=10.0.0.1", "1.1.1.1"),
        ('For="[2001:db8::1]:80"', "2001:db8::1"),
        ("for=6.6.6.6, for=1.1.1.1", "1.1.1.1"),
        ("for=_hidden", "127.0.0.1"),
        ("for=unknown", "127.0.0.1"),
        ("for=1.1.1.1;for=2.2.2.2", "127.0.0.1"),
        ("1.1.1.1", "127.0.0.1"),
    ],
)
def test_forwarded(value: str, client: str) -> None:
    assert client_of("127.0.0.1:1", "forwarded", [value], TRUSTED) == client


@pytest.mark.parametrize(
    "text", ["", "a", "1.2.3", "1.2.3.4:x", "[::1", "[::1]x", "1.2.3.4:", "::g"]
)
def test_what_is_no_address(text: str) -> None:
    assert address_of(text) is None


def test_networks_are_written_exactly() -> None:
    with pytest.raises(Invalid, match="trusted_proxies"):
        networks(["10.0.0.1/8"])


@pytest.mark.parametrize("origin", ["app", "https://a/", "https://A", "https://a/b", "null", "a b"])
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(Invalid, match="cors_origins"):
        cors.check_origins([origin])


def test_any_origin_never_comes_with_credentials() -> None:
    cors.check_origins(["*", "https://a.example:8443", "http://[::1]:80"])
    found = dict(cors.answer_headers("https://a", ["*"]))
    assert found["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in found
    assert cors.answer_headers("https://a", []) == []
    with pytest.raises(Forbidden):
        cors.preflight(None, ["*"])
    with pytest.raises(Forbidden):
        cors.preflight("https://b", ["https://a"])
