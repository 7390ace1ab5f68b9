"""What a gateway process works with; put together in ``app/gateway.py``."""

from pathlib import Path

import msgspec
from pyreqwest.client import Client

from freehold.gateway.alarm import Alarms
from freehold.gateway.allowance import Allowances
from freehold.gateway.cache import Cache
from freehold.gateway.dispatch import Dispatch
from freehold.gateway.door import Door
from freehold.gateway.follow import Follower
from freehold.gateway.recorded import Books
from freehold.gateway.spool import Digests
from freehold.gateway.upstream import Upstream
from freehold.identity.keys import Callers
from freehold.runtime.circuits import Circuits
from freehold.settings import Settings
from freehold.store.responses import Shelf


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a gateway."""

    home: Path
    settings: Settings
    callers: Callers
    follower: Follower
    dispatch: Dispatch
    cache: Cache
    circuits: Circuits
    client: Client
    upstream: Upstream
    alarms: Alarms
    books: Books
    allowances: Allowances
    door: Door
    shelf: Shelf
    digests: Digests = msgspec.field(default_factory=Digests)
