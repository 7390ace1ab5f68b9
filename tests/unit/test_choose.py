"""The stated rule of ``auto``, and names."""

import pytest

from freehold.errors import Invalid, Missing, NoCapacity
from freehold.routing.choose import choose
from freehold.store.snapshot import Route


def route(name: str, **fields: object) -> Route:
    base = {"engine": "e", "place": "local", "task": "chat", "state": "ready", "context": 4096}
    return Route(deployment=name, **{**base, **fields})  # type: ignore[arg-type]


def picked(routes: list[Route], task: str = "chat", tokens: int = 100) -> list[str]:
    table = {each.deployment: each for each in routes}
    return [choice.route.deployment for choice in choose("auto", task, tokens, table)]


def test_auto_prefers_near_then_ready_then_small_then_name() -> None:
    routes = [
        route("cloud", place="cloud", parameters=1),
        route("site", place="site", parameters=1),
        route("big", parameters=10),
        route("small", parameters=1),
        route("a-loading", parameters=1, state="loading"),
        route("a-idle", parameters=1, state="idle"),
        route("unknown"),
    ]
    expected = ["small", "big", "unknown", "a-loading", "a-idle", "site", "cloud"]
    assert picked(routes) == expected
    assert picked(routes[::-1]) == expected


def test_auto_leaves_out_what_cannot_do_it() -> None:
    routes = [
        route("failed", state="failed"),
        route("missing", state="missing"),
        route("short", context=50),
        route("embedder", task="embedding"),
        route("base", task="completion"),
        route("ranker", task="rerank"),
    ]
    with pytest.raises(Invalid) as told:
        picked([route for route in routes if route.deployment == "short"])
    assert told.value.code == "context_length_exceeded"
    assert "than 50:" in told.value.message
    with pytest.raises(NoCapacity):
        picked(routes)
    assert picked(routes, "completion") == ["base"]
    assert picked(routes, "embedding") == ["embedder"]
    assert picked(routes, "rerank") == ["ranker"]
    assert picked(routes, "completion", 50) == ["base", "short"]


def test_auto_says_when_no_deployment_ever_could() -> None:
    with pytest.raises(Missing, match="nothing is deployed"):
        picked([])
    for task in ("embedding", "rerank"):
        with pytest.raises(Missing, match=f"nothing that is deployed takes {task} calls"):
            picked([route("chat"), route("tone", task=task, adapts=True)], task)
    with pytest.raises(NoCapacity):
        picked([route("embedder", task="embedding", state="failed")], "embedding")
    with pytest.raises(Invalid, match="no deployment has more than 4096"):
        picked([route("a", context=512), route("b", state="failed")], tokens=5000)


def test_a_name_comes_first_and_its_fallbacks_after() -> None:
    table = {
        "a": route("a", fallbacks=("gone", "c", "b"), state="failed"),
        "b": route("b"),
        "c": route("c"),
    }
    assert [c.route.deployment for c in choose("a", "chat", 1, table)] == ["a", "c", "b"]
    with pytest.raises(Missing, match="did you mean"):
        choose("aa", "chat", 1, table | {"aaa": route("aaa")})


def test_adapters_are_asked_by_name_only_and_for_words_only() -> None:
    table = {
        "tone": route("tone", adapts=True, parameters=1),
        "base": route("base", parameters=9, fallbacks=("tone",)),
    }
    assert picked(list(table.values())) == ["base"]
    assert [c.route.deployment for c in choose("tone", "completion", 1, table)] == ["tone"]
    for task in ("embedding", "rerank"):
        with pytest.raises(Invalid, match="ask its base"):
            choose("tone", task, 1, table)
        assert [c.route.deployment for c in choose("base", task, 1, table)] == ["base"]
    assert [c.route.deployment for c in choose("base", "chat", 1, table)] == ["base", "tone"]
