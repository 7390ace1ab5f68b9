"""How large a call can get, and what clients are told of their limits."""

import msgspec

from freehold.gateway.allowance import rate_headers, size
from freehold.gateway.wire.call import Call
from freehold.identity.keys import Principal
from freehold.policy.budgets import Reservation
from freehold.policy.quotas import Size, Standing
from freehold.record.entry import Entry
from freehold.store.snapshot import Limit, Route

NOON = 1_769_860_800.0


def call(task: str = "chat", **fields: object) -> Call:
    base: dict[str, object] = {
        "task": task, "path": "/", "model": "m", "stream": False, "wants_usage": False,
        "prompt": 10, "tokens": 15, "fields": {},
    }  # fmt: skip
    return Call(**{**base, **fields})  # type: ignore[arg-type]


def test_a_prompt_has_no_more_tokens_than_bytes_and_what_its_template_adds() -> None:
    assert size(call("completion")).prompt == 43
    assert size(call("chat")).prompt == 43 + 64
    assert size(call("chat", fields={"tools": msgspec.Raw(b"[]")})).prompt == 43 + 64 + 512
    assert (size(call()).answer, size(call(tokens=10)).answer) == (5, 0)
    assert size(call("embedding", tokens=0, prompts=3, choices=2, streams=False)) == Size(
        prompt=43, answer=0, prompts=3, choices=2, writes=False
    )


def test_of_each_measure_the_limit_that_leaves_least_is_told() -> None:
    def limit(measure: str, window: str, amount: int) -> Limit:
        return Limit(scope="team", name="t", measure=measure, window=window, amount=amount)

    route = Route(deployment="d", engine="e", place="local", task="chat", state="ready")
    made = Reservation(
        entry=Entry(id="r", at=NOON, action="completion:run", admitted=NOON + 0.5),
        principal=Principal(name="a", role="developer", key="k"),
        size=size(call()),
        route=route,
        standings=[
            Standing(limit("tokens", "minute", 1000), 100, 50, 20),
            Standing(limit("tokens", "day", 500), 100, 50, 20),
            Standing(limit("tokens_in", "total", 30), 0, 0, 20),
        ],
    )
    assert dict(rate_headers(made)) == {
        "x-ratelimit-limit-tokens": "500",
        "x-ratelimit-remaining-tokens": "330",
        "x-ratelimit-reset-tokens": "43200s",
        "x-ratelimit-limit-tokens-in": "30",
        "x-ratelimit-remaining-tokens-in": "10",
    }
