"""Connections by the address they come from: who has too many, and which of them may end. Pure.

Counting is exact where it matters: arrivals are added up as they come, and before anybody is turned
away on their sum, all are counted anew (``census``).
"""

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from freehold.errors import FreeholdError, OverQuota, Unavailable
from freehold.gateway.peers import Network, address_of

ROOM = 16
"""That part of a bound is made free at once."""
SITE = 64
"""Bits of an address of IPv6 that stand for one place: who has it has the rest too."""


class Crowd:
    """``most`` connections in all, ``most_each`` from one address; 0 is no bound.

    The latter does not hold for ``spared`` networks: there are proxies, with everybody's clients.
    """

    def __init__(self, most: int, most_each: int, spared: Sequence[Network] = ()) -> None:
        self._most = most
        self._most_each = most_each
        self._spared = spared
        self._total = 0
        self._of: Counter[str] = Counter()

    def arrive(self, peer: str) -> None:
        """Count a connection in."""
        self._total += 1
        self._of[place_of(peer)] += 1

    def census(self, peers: Iterable[str]) -> None:
        """Count anew: these are connected, and nobody else."""
        self._of = Counter(map(place_of, peers))
        self._total = self._of.total()

    def refusal(self, peer: str) -> FreeholdError | None:
        """Return why a connection is one too many, None when it is not."""
        place = place_of(peer)
        if self._beyond(place) > 0:
            return OverQuota(
                "quota.connections",
                f"over {self._most_each} connections from {place}, all that one address may have "
                "(server.connections_per_peer): use those that are open, or close some",
                retry_after=1,
            )
        if self._total > self._most:
            return Unavailable(
                "unavailable.connections",
                f"over {self._most} connections are open here (server.connections): try again",
                retry_after=1,
            )
        return None

    def surplus(self, since: Mapping[str, float], busy: Collection[str]) -> list[str]:
        """Return the connections to end, of those that do nothing; those longest idle first.

        ``since`` says of every connection when it did something. Once each address is within its
        bound, those with most connections give until all are. Where any end, a few more do, so
        that not every newcomer has all counted.
        """
        idle: dict[str, list[str]] = {}
        for peer in sorted(since, key=since.__getitem__, reverse=True):
            if peer not in busy:
                idle.setdefault(place_of(peer), []).append(peer)
        left, found = Counter(self._of), []
        for place, peers in idle.items():
            for _ in range(min(len(peers), _with_room(self._beyond(place), self._most_each))):
                found.append(peers.pop())
                left[place] -= 1
        for _ in range(_with_room(left.total() - self._most, self._most)):
            able = [place for place, peers in idle.items() if peers]
            if not able:
                break
            place = max(able, key=left.__getitem__)
            found.append(idle[place].pop())
            left[place] -= 1
        return found

    def _beyond(self, place: str) -> int:
        """Return by how many connections a place is over its bound."""
        beyond = self._of[place] - self._most_each
        if not self._most_each or beyond <= 0 or self._is_spared(place):
            return 0
        return beyond

    def _is_spared(self, place: str) -> bool:
        if not self._spared:
            return False
        site = ipaddress.ip_network((place, SITE) if ":" in place else place)
        return any(site.version == one.version and site.overlaps(one) for one in self._spared)


def _with_room(beyond: int, most: int) -> int:
    return beyond + most // ROOM if beyond > 0 else 0


def place_of(peer: str) -> str:
    """Return where ``1.2.3.4:80`` or ``[::1]:80`` comes from: its address, or its site's first."""
    address = address_of(peer)
    if address is None or ":" not in address:
        return address or peer
    site = ipaddress.ip_network((address.partition("%")[0], SITE), strict=False)
    return str(site.network_address)
