"""Who has too many connections, and which of them end."""

import ipaddress

import pytest

from freehold.errors import OverQuota, Unavailable
from freehold.gateway.crowd import Crowd, place_of

A, B, C = "10.0.0.1", "10.0.0.2", "2001:db8::1"


def peers(address: str, count: int) -> list[str]:
    host = f"[{address}]" if ":" in address else address
    return [f"{host}:{1000 + number}" for number in range(count)]


@pytest.mark.parametrize(
    ("peer", "place"),
    [
        ("1.2.3.4:80", "1.2.3.4"),
        ("[::1]:80", "::"),
        ("[2001:db8:0:1:aaaa::1]:80", "2001:db8:0:1::"),
        ("[2001:db8:0:1:bbbb::2]:9", "2001:db8:0:1::"),
        ("[2001:db8:0:2::1]:80", "2001:db8:0:2::"),
        ("[::ffff:1.2.3.4]:80", "1.2.3.4"),
        ("[fe80::1%eth0]:80", "fe80::"),
        ("somewhere", "somewhere"),
    ],
)
def test_where_a_connection_comes_from(peer: str, place: str) -> None:
    assert place_of(peer) == place


def test_one_too_many_of_an_address_is_refused_and_nobody_else() -> None:
    crowd = Crowd(100, 3)
    crowd.census([*peers(A, 3), *peers(B, 1)])
    assert crowd.refusal(peers(A, 1)[0]) is None
    crowd.arrive(f"{A}:1")
    refusal = crowd.refusal(f"{A}:1")
    assert isinstance(refusal, OverQuota)
    assert (refusal.code, refusal.retry_after) == ("quota.connections", 1)
    assert crowd.refusal(f"{B}:1") is None
    crowd.census(peers(A, 3))
    assert crowd.refusal(f"{A}:1") is None


def test_one_too_many_of_all_is_refused() -> None:
    crowd = Crowd(5, 0)
    crowd.census([*peers(A, 4), *peers(B, 1)])
    assert crowd.refusal(f"{C}:1") is None
    crowd.arrive(f"{B}:7")
    assert isinstance(crowd.refusal(f"{B}:7"), Unavailable)


def test_proxies_stand_for_many() -> None:
    crowd = Crowd(100, 3, [ipaddress.ip_network("10.0.0.0/31")])
    crowd.census([*peers(A, 50), *peers(B, 4)])
    assert crowd.refusal(f"{A}:1") is None
    assert crowd.refusal(f"{B}:1") is not None
    since = dict.fromkeys([*peers(A, 50), *peers(B, 4)], 0.0)
    assert {place_of(peer) for peer in crowd.surplus(since, ())} == {B}
    crowd = Crowd(100, 3, [ipaddress.ip_network(f"{C}/128")])
    crowd.census([*peers(C, 9), *peers("2001:db9::1", 9)])
    assert crowd.refusal(f"[{C}]:1") is None
    assert crowd.refusal("[2001:db9::1]:1") is not None


def test_of_those_that_do_nothing_the_longest_idle_end() -> None:
    crowd = Crowd(100, 3)
    all_of_them = peers(A, 6)
    crowd.census([*all_of_them, *peers(B, 3)])
    since = {peer: float(at) for at, peer in enumerate(all_of_them)} | dict.fromkeys(peers(B, 3), 0)
    assert crowd.surplus(since, ()) == all_of_them[:3]
    assert crowd.surplus(since, set(all_of_them[:2])) == all_of_them[2:5]
    assert crowd.surplus(since, set(all_of_them)) == []
    assert crowd.surplus(since, set(all_of_them[1:])) == all_of_them[:1]


def test_where_all_are_too_many_those_with_most_give() -> None:
    crowd = Crowd(6, 0)
    crowd.census([*peers(A, 6), *peers(B, 3), *peers(C, 1)])
    since = {peer: float(at) for at, peer in enumerate([*peers(A, 6), *peers(B, 3), *peers(C, 1)])}
    gone = crowd.surplus(since, ())
    assert [place_of(peer) for peer in gone] == [A, A, A, B]
    crowd.census(set(since) - set(gone))
    assert crowd.surplus({peer: since[peer] for peer in set(since) - set(gone)}, ()) == []
    assert crowd.refusal(peers(C, 1)[0]) is None
