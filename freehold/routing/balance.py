"""Choose the replica that will have answered soonest. Pure: no I/O, no clock.

All is counted in tokens that an engine reads; one that it writes counts as ``WRITTEN`` read ones.
What a call costs at a replica is the work it must wait for, and what it must read itself: the part
of the prompt that the replica's KV cache likely lacks. That part counts ``SAVED`` times, because it
keeps all that come after waiting too. So a conversation returns to where it was read before, until
it would wait there much longer than reading it again elsewhere takes.
"""

from collections.abc import Callable, Iterable

import msgspec

from freehold.store.snapshot import Target

WRITTEN = 4
"""Tokens read in the time of one written (3.5 to 5.2 measured on processors)."""

SAVED = 3
"""How many tokens of waiting one is worth that need not be read again."""

BYTES_A_TOKEN = 4

EXPECTED = 128.0
"""Tokens an answer is taken to have before any was seen."""


class Standing(msgspec.Struct, frozen=True):
    """A replica as it stands when a call comes in.

    ``work`` is what all gateways wait for there, ``known`` the part of the call's prompt that its
    cache likely has, ``reading`` the part after that which it is reading for somebody, all in
    tokens; ``used`` is when it was last asked, on any clock.
    """

    target: Target
    work: float = 0.0
    known: float = 0.0
    reading: float = 0.0
    used: float = 0.0


def rank(
    prompt: float, standings: Iterable[Standing], is_open: Callable[[Target], bool]
) -> list[Target]:
    """Return the targets, best first; those with an open circuit not at all.

    ``prompt`` is in tokens. Equal replicas take turns: the one not asked for longest comes first.
    """
    able = [standing for standing in standings if not is_open(standing.target)]
    able.sort(key=lambda standing: (cost(prompt, standing), standing.used, standing.target.replica))
    return [standing.target for standing in able]


def cost(prompt: float, standing: Standing) -> float:
    """Return what a call costs at a replica, in tokens at the speed of a weight of 1.

    What is being read is not to be had yet, and no reason to wait for more than it is worth: it
    counts once less, where what was read counts not at all.
    """
    unread = max(0.0, prompt - standing.known)
    return (standing.work + SAVED * unread - min(unread, standing.reading)) / standing.target.weight


def work(prompt: float, known: float, answer: float) -> int:
    """Return what a call adds to a replica's work, at least 1."""
    return max(1, round(prompt - known + WRITTEN * answer))


def expected_answer(mean: float | None, limit: int, choices: int) -> float:
    """Return the tokens an answer will likely have; ``limit`` is the client's, 0 for none."""
    usual = EXPECTED if mean is None else mean
    return (min(usual, limit) if limit > 0 else usual) * choices
