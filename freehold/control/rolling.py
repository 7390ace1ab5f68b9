"""Which gateway is started or led away next, so that all come to be of the build in force. Pure."""

from collections.abc import Sequence
from typing import Literal

import msgspec


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway process: is it of the build in force, does it serve, is it told to drain?"""

    name: str
    current: bool
    serving: bool
    draining: bool = False


Step = Literal["start", "rest"] | str
"""``start`` one more, ``rest``, or the name of the one to drain."""


def step(gateways: Sequence[Gateway], wanted: int) -> Step:
    """Return the next step.

    At most one drains at a time, and only once enough others serve; so there is never more than
    one gateway over the wanted number.
    """
    staying = [each for each in gateways if not each.draining]
    current = [each for each in staying if each.current]
    old = [each for each in staying if not each.current]
    serving = [each for each in current if each.serving]
    rolling = len(staying) < len(gateways)
    if not rolling and len(serving) + len(old) > wanted:
        return (old or serving)[0].name
    if len(staying) < wanted:
        return "start"
    if len(current) < wanted and not rolling and len(serving) == len(current):
        return "start"
    return "rest"
