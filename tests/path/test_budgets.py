"""Budgets through real processes: exact while gateways are killed, after restarts, and refused."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from freehold.cli.limits import entry
from tests.house import Answer, House, eventually
from tests.pressure import Pressure, Shot, false_denials, kill_some, upstream, want

Make = Callable[..., House]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with upstream() as url:
        yield url


def deploy(house: House, url: str, name: str = "cheap", **fields: Any) -> None:
    body = {"name": name, "urls": [url], **fields}
    assert house.call("PUT", f"/api/deployments/{name}", body).status == 200
    # Until gateways send requests to it.
    assert house.call("GET", f"/api/deployments/{name}?wait=30").json["state"] == "ready"


def standing(house: House, of: str, measure: str = "tokens", per: str = "total") -> Any:
    found = house.call("GET", f"/api/limits?of={of}").json
    return next(each for each in found if (each["measure"], each["per"]) == (measure, per))


def charged(house: House, team: str) -> int:
    return sum(
        record.get("tokens_in", 0) + record.get("tokens_out", 0)
        for record in all_records(house)
        if record.get("admitted") is not None and record.get("team") == team
    )


def all_records(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in (house.home / "audit").glob("gateway-*.jsonl"):
        lines = path.read_bytes()
        found += [json.loads(line) for line in lines[: lines.rfind(b"\n") + 1].splitlines()]
    return found


def body_of(tokens: int, **fields: Any) -> dict[str, Any]:
    return {
        "model": "cheap", "messages": [{"role": "user", "content": "x"}], "max_tokens": tokens,
        "stream": False, **fields,
    }  # fmt: skip


def ask(house: House, key: str, tokens: int, **fields: Any) -> Answer:
    return house.call("POST", "/v1/chat/completions", body_of(tokens, **fields), key=key)


def test_no_token_too_many_and_none_refused_wrongly_while_gateways_die(
    new_house: Make, endpoint: str
) -> None:
    house = new_house("--workers", "4", empty=True).start()
    deploy(house, endpoint)
    amount = 60_000
    key = house.make_key("developer", team="crowd")
    limits(house, "team:crowd", f"tokens={amount}", "tokens=50000000/day")
    with Pressure(house, key, "cheap", 64) as pressure:
        killed = kill_some(house, 12, (0.2, 0.6), seed=1)
    eventually(lambda: standing(house, "team:crowd")["reserved"] == 0, "given back", 10)
    shots, spent = pressure.shots, charged(house, "crowd")
    assert killed > 5
    assert spent <= amount
    assert standing(house, "team:crowd")["spent"] == spent
    assert sum(shot.status == 200 for shot in shots) > 100
    assert any(shot.status == 429 for shot in shots)
    assert {shot.status for shot in shots} <= {0, 200, 429}, strange(shots)
    assert false_denials(shots, amount, spent) == []
    to_the_last_token(house, key, spent)
    assert house.stop() == 0
    house.start()
    assert standing(house, "team:crowd")["spent"] == charged(house, "crowd")


def to_the_last_token(house: House, key: str, spent: int) -> None:
    limits(house, "team:crowd", f"tokens={spent + 500}")
    fits = 500 - want(body_of(100)) + 100
    assert ask(house, key, fits + 1).error["code"] == "quota.exceeded"
    assert ask(house, key, fits).status == 200


def limits(house: House, of: str, *texts: str) -> None:
    body = {"limits": [entry(of, text) for text in texts]}
    answer = house.call("PUT", "/api/limits", body)
    assert answer.status == 200, answer.body


def strange(shots: list[Shot]) -> list[Shot]:
    return [shot for shot in shots if shot.status not in (0, 200, 429)][:5]


@pytest.fixture(scope="module")
def shop(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with a cheap endpoint and two gateways, for tests with keys of their own."""
    house = House(tmp_path_factory.mktemp("shop") / "home", ("--workers", "2"))
    try:
        house.start()
        deploy(house, endpoint)
        deploy(house, endpoint, "priced", price_in=1.5, price_out=20, context=100)
        yield house
    finally:
        house.close()


def test_a_budget_of_a_key_is_told_kept_and_refused(shop: House) -> None:
    made = shop.json(
        "key", "create", "--principal", "ann", "--team", "rd",
        "--budget", "requests=2/day", "--budget", "money=100/month",
    )  # fmt: skip
    assert made["team"] == "rd"
    first = ask(shop, made["key"], 5)
    assert first.status == 200
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"].endswith("s")
    assert ask(shop, made["key"], 5, stream=True).status == 200
    refused = ask(shop, made["key"], 5)
    assert (refused.status, refused.error["type"]) == (429, "rate_limit_error")
    assert refused.error["code"] == "quota.exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 86400
    assert f"key:{made['id']} requests=2/day" in refused.error["message"]
    assert "0 requests left, up to 1 requests needed: retry " in refused.error["message"]
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    found = shop.json("limit", "list", f"key:{made['id']}")
    assert [(each["measure"], each["spent"]) for each in found] == [("money", 0), ("requests", 2)]
    record = shop.audit(id=refused.headers["x-freehold-request"])[0]
    assert (record["outcome"], record["team"]) == ("refused", "rd")
    assert "admitted" not in record
    shop.cli("limit", "remove", f"key:{made['id']}", "requests/day")
    assert ask(shop, made["key"], 5).status == 200


def test_money_is_counted_from_real_tokens_and_spent_money_is_gone(shop: House) -> None:
    key = shop.make_key("developer", team="payers")
    limits(shop, "team:payers", "money=0.005")
    answer = ask(shop, key, 50, model="priced")
    usage = answer.json["usage"]
    record = shop.audit(id=answer.headers["x-freehold-request"])[0]
    exact = usage["prompt_tokens"] * 1.5 + usage["completion_tokens"] * 20
    assert exact <= record["cost"] < exact + 1
    assert standing(shop, "team:payers", "money")["spent"] == record["cost"] / 1e6
    limits(shop, "team:payers", f"money={record['cost'] / 1e6 + 0.0001:.6f}")
    refused = ask(shop, key, 50, model="priced")
    assert (refused.status, refused.error["type"]) == (429, "insufficient_quota")
    assert refused.error["code"] == "quota.exhausted"
    assert "retry-after" not in refused.headers


def test_without_max_tokens_the_context_is_reserved(shop: House) -> None:
    key = shop.make_key("developer", team="brief")
    limits(shop, "team:brief", "tokens_out=99/day")
    body = body_of(1, model="priced")
    del body["max_tokens"]
    refused = shop.call("POST", "/v1/chat/completions", body, key=key)
    assert (refused.status, refused.error["code"]) == (429, "quota.too_large")
    assert refused.error["details"]["wanted"] == 100
    limits(shop, "team:brief", "tokens_out=100/day")
    assert shop.call("POST", "/v1/chat/completions", body, key=key).status == 200


def test_a_deployment_over_its_own_limit_lets_its_fallbacks_answer(
    shop: House, endpoint: str
) -> None:
    """As one that fails does: only when no fallback may answer either is the client refused."""
    gone = "http://127.0.0.1:9/v1"
    for name, url, fallbacks in (
        ("thin-3", endpoint, []),
        ("thin-2", endpoint, []),
        ("nobody", gone, []),
        ("thin", endpoint, ["thin-2", "thin-3"]),
        ("thin-lost", endpoint, ["nobody"]),
        ("fails", gone, ["thin", "thin-2", "thin-3"]),
    ):
        deploy(shop, url, name, fallbacks=fallbacks)
    key = shop.make_key("developer", team="thrifty")
    used: list[str] = []

    def answers(model: str = "thin", **fields: Any) -> str:
        answer = ask(shop, key, 5, model=model, **fields)
        assert answer.status == 200, answer.body
        used.append(answer.headers["x-freehold-deployment"])
        return used[-1]

    windows = {"thin": ("total", 1), "thin-2": ("month", 2), "thin-3": ("day", 2)}
    for name, (window, amount) in windows.items():
        limits(shop, f"deployment:{name}", f"requests={amount}/{window}".removesuffix("/total"))
    assert [answers(), answers(), answers(stream=True)] == ["thin", "thin-2", "thin-2"]
    assert answers() == "thin-3"
    assert answers("fails") == "thin-3"  # lost, over its limit, over its limit, answers
    refused = ask(shop, key, 5, model="thin")
    assert (refused.status, refused.error["code"]) == (429, "quota.exceeded")
    assert "deployment:thin-3" in refused.error["message"]  # that one is free again first
    assert 1 <= int(refused.headers["retry-after"]) <= 86400
    lost = ask(shop, key, 5, model="fails")
    assert lost.status == 503  # what was asked for has no limit: it is lost
    for name, (window, _) in windows.items():
        found = standing(shop, f"deployment:{name}", "requests", window)
        assert (found["spent"], found["reserved"]) == (used.count(name), 0)
    limits(shop, "deployment:thin-lost", "requests=1/day")
    assert answers("thin-lost") == "thin-lost"
    refused = ask(shop, key, 5, model="thin-lost")  # its fallback is there, and does not answer
    assert (refused.status, refused.error["code"]) == (429, "quota.exceeded")
    assert int(refused.headers["retry-after"]) >= 1


def test_the_callers_own_limit_is_no_reason_to_ask_elsewhere(shop: House, endpoint: str) -> None:
    deploy(shop, endpoint, "plain", fallbacks=["cheap"])
    key = shop.make_key("developer", team="strict")
    limits(shop, "team:strict", "requests=1/day")
    limits(shop, "deployment:plain", "requests=1/day")
    assert ask(shop, key, 5, model="plain").headers["x-freehold-deployment"] == "plain"
    refused = ask(shop, key, 5, model="plain")
    assert (refused.status, "team:strict" in refused.error["message"]) == (429, True)
    assert standing(shop, "team:strict", "requests", "day")["spent"] == 1


def test_a_new_limit_counts_what_was_used_before_it(shop: House) -> None:
    key = shop.make_key("developer", principal="early")
    used = sum(ask(shop, key, 30).json["usage"]["total_tokens"] for _ in range(3))
    limits(shop, "principal:early", "tokens=100000/month", "tokens=100000/minute")
    assert standing(shop, "principal:early", per="month")["spent"] == used
    minute = standing(shop, "principal:early", per="minute")["spent"]
    assert minute in (used, *range(used))  # a minute may have ended in between
    used += ask(shop, key, 30).json["usage"]["total_tokens"]
    assert standing(shop, "principal:early", per="month")["spent"] == used
    assert shop.call("DELETE", "/api/limits?of=principal:early").status == 200
    used += ask(shop, key, 30).json["usage"]["total_tokens"]
    limits(shop, "principal:early", "tokens=100000/month")
    assert standing(shop, "principal:early", per="month")["spent"] == used


def test_a_key_that_may_not_is_not_charged(shop: House) -> None:
    limits(shop, "principal:gone", "requests=5")
    revoked = shop.call("POST", "/api/keys", {"principal": "gone"}).json
    shop.call("DELETE", f"/api/keys/{revoked['id']}")
    assert ask(shop, revoked["key"], 1).status == 401
    assert ask(shop, shop.make_key("auditor", principal="gone"), 1).status == 403
    key = shop.make_key("developer", principal="gone", expires_in=0.3)
    eventually(lambda: ask(shop, key, 1).status == 401, "expired", 20)
    admitted = [r for r in all_records(shop) if r.get("principal") == "gone" and "admitted" in r]
    assert standing(shop, "principal:gone", "requests")["spent"] == len(admitted)
    assert ask(shop, shop.make_key("developer", principal="gone"), 1, model="none").status == 404
    assert standing(shop, "principal:gone", "requests")["spent"] == len(admitted)


@pytest.mark.parametrize(
    ("entry", "status", "says"),
    [
        ({"of": "team:x", "measure": "tokens", "amount": -1}, 400, "amount"),
        ({"of": "team:x", "measure": "tokens", "amount": 1.5}, 400, "whole number"),
        ({"of": "team:x", "measure": "money", "amount": 0.0000001}, 400, "six decimals"),
        ({"of": "team:x", "measure": "tokens", "amount": 1e300}, 400, "amount"),
        ({"of": "team:x", "measure": "tokens", "amount": 1, "per": "hour"}, 400, "hour"),
        ({"of": "team:x", "measure": "watts", "amount": 1}, 400, "watts"),
        ({"of": "team:x", "measure": "concurrency", "amount": 1, "per": "day"}, 400, "no window"),
        ({"of": "planet:x", "measure": "tokens", "amount": 1}, 400, "nobody to limit"),
        ({"of": "team:", "measure": "tokens", "amount": 1}, 400, "nobody to limit"),
        ({"of": "who", "measure": "tokens", "amount": 1}, 400, "team:NAME or deployment:NAME"),
        (
            {"of": "priced", "measure": "tokens", "amount": 1},
            400,
            "did you mean deployment:priced?",
        ),
        ({"of": "team:A b", "measure": "tokens", "amount": 1}, 400, "cannot be a name"),
        ({"of": "key:0123456789ab", "measure": "tokens", "amount": 1}, 404, "no live key"),
        ({"of": "deployment:none", "measure": "tokens", "amount": 1}, 404, "no deployment"),
        ({"of": "team:x", "measure": "tokens", "amount": 1, "what": 1}, 400, "what"),
    ],
)
def test_limits_that_make_no_sense_are_refused(
    shop: House, entry: dict[str, Any], status: int, says: str
) -> None:
    before = shop.call("GET", "/api/limits").json
    fine = {"of": "team:x", "measure": "requests", "amount": 1}
    answer = shop.call("PUT", "/api/limits", {"limits": [fine, entry]})
    assert answer.status == status, answer.body
    assert says in answer.error["message"]
    after = shop.call("GET", "/api/limits").json
    assert [each["of"] for each in after] == [each["of"] for each in before]


def test_limits_that_are_not_there_cannot_be_removed(shop: House) -> None:
    assert shop.call("DELETE", "/api/limits?of=team:nobody").status == 404
    assert shop.call("DELETE", "/api/limits").status == 400
    ran = shop.run_cli("limit", "remove", "admin")
    assert (ran.returncode, "did you mean principal:admin" in ran.stderr) == (1, True), ran.stderr
    ran = shop.run_cli("limit", "set", "team:x", "tokens")
    assert ran.returncode == 2
    assert shop.call("POST", "/api/keys", {"principal": "x", "budget": ["tokens=-1"]}).status == 400


def test_export_then_apply_gives_the_same_limits(shop: House, tmp_path: Path) -> None:
    limits(shop, "deployment:priced", "money=12.345678/month", "concurrency=3")
    limits(shop, "principal:Ann@x.org", "tokens_in=5/minute")
    document = shop.call("GET", "/api/desired").json["document"]
    other = House(tmp_path / "home")
    (tmp_path / "d.toml").write_text(document)
    planned = other.json("apply", str(tmp_path / "d.toml"))
    assert any(change["kind"] == "limit" for change in planned["changes"])
    assert other.cli("export") == document


def test_a_document_without_limits_leaves_them(shop: House) -> None:
    limits(shop, "team:kept", "tokens=5")
    document = shop.call("GET", "/api/desired").json["document"]
    silent = document[: document.index("[[limits]]")]
    plan = shop.call("POST", "/api/desired/plan", {"document": silent}).json
    assert plan["changes"] == []
    none = shop.call("POST", "/api/desired/plan", {"document": "limits = []\n" + silent}).json
    gone = [change["name"] for change in none["changes"] if change["act"] == "remove"]
    assert "team:kept tokens=5" in gone
    double = document + document[document.index("[[limits]]") :]
    assert shop.call("POST", "/api/desired/plan", {"document": double}).status == 400


def test_damaged_boards_are_made_again_from_the_record(shop: House) -> None:
    key = shop.make_key("developer", team="lasting")
    limits(shop, "team:lasting", "tokens=5000")
    ask(shop, key, 50)
    spent = charged(shop, "lasting")
    old = set(shop.gateways())
    board = shop.home / "run" / "quotas" / "spent.board"
    board.rename(board.with_suffix(".away"))  # the same to its users as a file system repaired
    eventually(lambda: not old & set(shop.gateways()), "gateways on a new board", 20)
    shop.wait_ready()
    assert eventually(lambda: ask(shop, key, 50).status == 200, "answers", 20)
    assert standing(shop, "team:lasting")["spent"] == charged(shop, "lasting") > spent
    assert shop.stop() == 0
    board.write_bytes(b"garbage" * 1000)
    shop.start()
    assert standing(shop, "team:lasting")["spent"] == charged(shop, "lasting")


def test_requests_stand_in_a_fair_line_before_full_engines(shop: House, endpoint: str) -> None:
    deploy(shop, endpoint, "narrow", slots=2)
    crowd, one = shop.make_key("developer", team="crowd"), shop.make_key("developer", team="one")
    slow = {"model": "narrow", "seed": 60}
    with ThreadPoolExecutor(50) as pool:
        many = [pool.submit(ask, shop, crowd, 5, **slow) for _ in range(40)]
        time.sleep(0.4)
        begun = time.monotonic()
        assert ask(shop, one, 5, **slow).status == 200
        waited = time.monotonic() - begun
        left = sum(not each.done() for each in many)
        assert {each.result().status for each in many} == {200}
    assert left > 5, f"waited {waited:.2f} s behind everybody"
