"""Replicas in simulated time, each with hardware of its own: ``python -m bench.simulate``.

What real engines on one small machine cannot show, because they share its processors. The decision
is the one that runs (``routing/balance``); beside it the rule that vllm-router's help states for
``cache_aware``, and taking turns. A replica reads 300 tokens a second, writes one in the time of
four, shares its speed among its slots, and can reuse a sequence once it is finished, as llama.cpp
does. Seconds in all and to the first token, and the share of tokens read, over ours.
"""

import heapq
import random
import statistics
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from freehold.routing.balance import WRITTEN, Standing, rank, work
from freehold.store.snapshot import Target

RATE, REPLICAS, SLOTS = 300.0, 4, 2
Prompt = tuple[tuple[str, int], ...]
"""Pieces, each with a name and its tokens."""

SCENES: dict[str, dict[str, Any]] = {
    "as bench.balance": {"talks": 20, "clients": 10, "turns": 3, "systems": 4, "system": 260,
                         "user": 30, "answer": 12},
    "longer conversations": {"talks": 60, "clients": 16, "turns": 5, "systems": 4, "system": 260,
                             "user": 60, "answer": 40},
    "long system prompts": {"talks": 60, "clients": 12, "turns": 3, "systems": 4, "system": 1500,
                            "user": 40, "answer": 40},
    "many system prompts": {"talks": 60, "clients": 12, "turns": 3, "systems": 20, "system": 600,
                            "user": 30, "answer": 12},
    "light load": {"talks": 40, "clients": 4, "turns": 3, "systems": 4, "system": 260, "user": 30,
                   "answer": 12, "pause": 4.0},
}  # fmt: skip


class Ask:
    """One request on its way."""

    def __init__(self, talk: Prompt, turn: int, before: Prompt, at: float) -> None:
        self.talk, self.turn, self.at = talk, turn, at
        self.prompt: Prompt = (*before, talk[turn])
        self.replica = self.unread = self.work = 0
        self.left, self.first = 0.0, 0.0


class Policy(Protocol):
    """Chooses a replica, and is told when it has answered."""

    def pick(self, ask: Ask, answer: int, /) -> int:
        """Return the replica's number."""
        ...

    def done(self, ask: Ask, /) -> None:
        """The answer is whole."""


class Ours:
    """The decision of ``routing/balance``, with what a gateway would tell it."""

    def __init__(self) -> None:
        self._targets = [
            Target(replica=str(n), url="", key=None, model="m", streams_only=True)
            for n in range(REPLICAS)
        ]
        self._work, self._used, self._turn = [0] * REPLICAS, [0] * REPLICAS, count(1)
        self._read: list[list[Prompt]] = [[] for _ in range(REPLICAS)]
        self._reading: list[list[Prompt]] = [[] for _ in range(REPLICAS)]

    def pick(self, ask: Ask, answer: int) -> int:
        standings = []
        for number, target in enumerate(self._targets):
            known = longest(ask.prompt, self._read[number])
            reading = max(0, longest(ask.prompt, self._reading[number]) - known)
            standings.append(
                Standing(target, self._work[number], known, reading, self._used[number])
            )
        chosen = int(rank(tokens(ask.prompt), standings, lambda _: False)[0].replica)
        had = standings[chosen]
        ask.work = work(tokens(ask.prompt), had.known + had.reading, answer)
        self._work[chosen] += ask.work
        self._used[chosen] = next(self._turn)
        self._reading[chosen].append(ask.prompt)
        return chosen

    def done(self, ask: Ask) -> None:
        self._work[ask.replica] -= ask.work
        self._reading[ask.replica].remove(ask.prompt)
        self._read[ask.replica].append(ask.prompt)


class CacheAware:
    """The longest match over a share of the prompt, else the smallest tree; the least loaded once
    loads differ by more than a threshold."""

    def __init__(self, threshold: int = 64) -> None:
        self._threshold = threshold
        self._load, self._size = [0] * REPLICAS, [0] * REPLICAS
        self._trees: list[list[Prompt]] = [[] for _ in range(REPLICAS)]

    def pick(self, ask: Ask, _answer: int) -> int:
        most, least = max(self._load), min(self._load)
        numbers, whole = range(REPLICAS), tokens(ask.prompt)
        matched = [longest(ask.prompt, tree) for tree in self._trees]
        if most - least > self._threshold and most > least * 1.5:
            chosen = self._load.index(least)
        elif max(matched) > 0.3 * whole:
            chosen = max(numbers, key=matched.__getitem__)
        else:
            chosen = min(numbers, key=self._size.__getitem__)
        self._load[chosen] += 1
        self._size[chosen] += whole - matched[chosen]
        self._trees[chosen].append(ask.prompt)
        return chosen

    def done(self, ask: Ask) -> None:
        self._load[ask.replica] -= 1


class Turns:
    """One after the other."""

    def __init__(self) -> None:
        self._next = count()

    def pick(self, _ask: Ask, _answer: int) -> int:
        return next(self._next) % REPLICAS

    def done(self, _ask: Ask) -> None:
        return


POLICIES: dict[str, Callable[[], Policy]] = {
    "freehold": Ours,
    "cache_aware": CacheAware,
    "cache_aware, threshold 2": lambda: CacheAware(2),
    "round_robin": Turns,
}


def tokens(prompt: Prompt) -> int:
    """Return how long a prompt is."""
    return sum(length for _, length in prompt)


def longest(prompt: Prompt, others: list[Prompt]) -> int:
    """Return the tokens of the longest beginning in common with any other."""
    best = 0
    for other in others:
        same = 0
        for one, two in zip(prompt, other, strict=False):
            if one != two:
                break
            same += one[1]
        best = max(best, same)
    return best


def simulate(policy: Policy, seed: int, scene: dict[str, Any]) -> dict[str, float]:
    """Hold all conversations in simulated time; return seconds and shares."""
    chance, answer = random.Random(seed), scene["answer"]
    waiting = [_talk(chance, number, scene) for number in range(scene["talks"])]
    coming: list[tuple[float, int, Ask]] = []
    active: list[list[Ask]] = [[] for _ in range(REPLICAS)]
    queues: list[list[Ask]] = [[] for _ in range(REPLICAS)]
    done: list[list[Prompt]] = [[] for _ in range(REPLICAS)]
    order, now, found = count(), 0.0, []

    def come(talk: Prompt, turn: int = 1, before: Prompt = ()) -> None:
        at = now + chance.uniform(0, scene.get("pause", 0.5))
        heapq.heappush(coming, (at, next(order), Ask(talk, turn, before or talk[:1], at)))

    def start(ask: Ask) -> None:
        ask.unread = tokens(ask.prompt) - longest(ask.prompt, done[ask.replica])
        ask.left = ask.unread + WRITTEN * answer
        active[ask.replica].append(ask)

    def milestone(ask: Ask) -> float:
        until = WRITTEN * (answer - 1) if not ask.first else 0
        return now + max(0.0, ask.left - until) * len(active[ask.replica]) / RATE

    for _ in range(scene["clients"]):
        come(waiting.pop(0))
    while coming or any(active):
        running = [ask for each in active for ask in each]
        ask = min(running, key=milestone) if running else coming[0][2]
        arrives = bool(coming) and (not running or coming[0][0] <= milestone(ask))
        then = coming[0][0] if arrives else milestone(ask)
        for each in active:
            for other in each:
                other.left -= (then - now) * RATE / len(each)
        now = then
        if arrives:
            ask = heapq.heappop(coming)[2]
            ask.replica = policy.pick(ask, answer)
            if len(active[ask.replica]) < SLOTS:
                start(ask)
            else:
                queues[ask.replica].append(ask)
        elif not ask.first:
            ask.first = now
        else:
            active[ask.replica].remove(ask)
            policy.done(ask)
            said: Prompt = (*ask.prompt, (f"answer to {ask.prompt[-1][0]}", answer))
            done[ask.replica].append(said)
            found.append((ask.first - ask.at, now - ask.at, ask.unread, tokens(ask.prompt)))
            if queues[ask.replica]:
                start(queues[ask.replica].pop(0))
            if ask.turn < scene["turns"]:
                come(ask.talk, ask.turn + 1, said)
            elif waiting:
                come(waiting.pop(0))
    return {
        "seconds": now,
        "latency": statistics.mean(each[1] for each in found),
        "first_token": statistics.mean(each[0] for each in found),
        "uncached_share": sum(each[2] for each in found) / sum(each[3] for each in found),
    }


def _talk(chance: random.Random, number: int, scene: dict[str, Any]) -> Prompt:
    systems = range(scene["systems"])
    system = chance.choices(systems, [1 / (rank + 1) for rank in systems])[0]
    user = scene["user"]
    return (
        (f"system {system}", scene["system"]),
        *(
            (f"user {number} {turn}", max(4, round(chance.gauss(user, user / 3))))
            for turn in range(scene["turns"])
        ),
    )


def measure(seeds: int = 8) -> dict[str, Any]:
    """Return means of every scene and policy: ours as they are, the others' over ours."""
    found: dict[str, Any] = {}
    for name, scene in SCENES.items():
        means = {}
        for policy, make in POLICIES.items():
            runs = [simulate(make(), seed, scene) for seed in range(seeds)]
            means[policy] = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
        ours = means.pop("freehold")
        found[name] = {
            "freehold": {key: round(value, 3) for key, value in ours.items()},
            **{
                f"{policy} over freehold": {k: round(v / ours[k], 2) for k, v in theirs.items()}
                for policy, theirs in means.items()
            },
        }
    return found


if __name__ == "__main__":
    import json

    print(json.dumps(measure(), indent=1))
