"""What a gateway process works with; put together in ``app/gateway.py``."""

import msgspec
from pyreqwest.client import Client

from freehold.gateway.follow import Follower
from freehold.gateway.recorded import Books
from freehold.gateway.upstream import Upstream
from freehold.runtime.leases import Leases
from freehold.settings import Settings


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a gateway."""

    settings: Settings
    pepper: bytes
    follower: Follower
    leases: Leases
    client: Client
    upstream: Upstream
    books: Books
