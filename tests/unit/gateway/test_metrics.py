"""Who counts as a scraper of this machine."""

import pytest

from freehold.gateway.metrics import comes_from_here


class _Exchange:
    def __init__(self, client: str, headers: dict[str, str]) -> None:
        self.client = client
        self._headers = headers

    def header(self, name: str) -> str | None:
        return self._headers.get(name)


@pytest.mark.parametrize(
    ("client", "headers", "here"),
    [
        ("127.0.0.1:40000", {}, True),
        ("127.8.9.10:40000", {}, True),
        ("[::1]:40000", {}, True),
        ("[::ffff:127.0.0.1]:40000", {}, True),
        ("127.0.0.1", {}, True),
        ("10.0.0.1:40000", {}, False),
        ("0.0.0.0:40000", {}, False),
        ("[::ffff:10.0.0.1]:40000", {}, False),
        ("[fe80::1]:40000", {}, False),
        ("", {}, False),
        ("localhost:80", {}, False),
        ("127.0.0.1:40000", {"x-forwarded-for": "127.0.0.1"}, False),
        ("127.0.0.1:40000", {"forwarded": ""}, False),
        ("127.0.0.1:40000", {"origin": "https://example.com"}, False),
        ("127.0.0.1:40000", {"sec-fetch-site": "cross-site"}, False),
    ],
)
def test_only_a_program_of_this_machine_needs_no_key(
    client: str, headers: dict[str, str], here: bool
) -> None:
    exchange = _Exchange(client, headers)
    assert comes_from_here(exchange) is here  # type: ignore[arg-type]
