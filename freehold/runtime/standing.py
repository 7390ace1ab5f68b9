"""What goes on in a gateway process, as it tells control."""

import msgspec


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Open connections, requests under way, tasks of the event loop; whether it takes no more.

    ``reservations`` are what requests hold of limits and of places at engines, or wait for;
    ``links`` the connections to engines that are in use.
    """

    connections: int = 0
    requests: int = 0
    tasks: int = 0
    reservations: int = 0
    links: int = 0
    draining: bool = False
