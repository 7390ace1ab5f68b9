"""Are budgets exact? ``python -m bench.exact [--minutes N] [--clients 64] [--gateways 4]``.

Rounds of 15 seconds: a team with a budget, clients that ask as fast as they can, gateways killed at
random; after some rounds everything is killed and started again. Prints what was spent beyond
limits (from the record) and how many refusals nothing can justify (from what clients saw), which
shall both be 0.
"""

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.house import House, eventually
from tests.pressure import Pressure, false_denials, kill_some, upstream

SECONDS = 15.0
TOKENS = 60_000
REQUESTS = 4_000


def main() -> None:
    """Run rounds for a while and print what they add up to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--gateways", type=int, default=4)
    given = parser.parse_args()
    sums: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, upstream() as url:
        house = House(Path(folder) / "home", ("--workers", str(given.gateways))).start()
        try:
            body = {"name": "cheap", "urls": [url], "price_in": 1, "price_out": 2}
            house.call("PUT", "/api/deployments/cheap", body)
            house.call("PUT", "/api/limits", {"limits": [
                {"of": "principal:a-developer", "measure": "requests", "amount": REQUESTS,
                 "per": "minute"}]})  # fmt: skip
            deadline = time.monotonic() + given.minutes * 60
            while time.monotonic() < deadline:
                sums["rounds"] += 1
                sums.update(play(house, f"team-{sums['rounds']}", given.clients))
                if sums["rounds"] % 4 == 0:
                    sums.update(restart(house, sums["rounds"]))
                print(json.dumps(sums), flush=True)
            sums["spent beyond requests/minute"] = beyond_minutes(house)
        finally:
            house.close()
    print(json.dumps(sums, indent=1))


def play(house: House, team: str, clients: int) -> dict[str, int]:
    """Run one round with a budget of its own."""
    wanted = (("tokens", TOKENS, "total"), ("money", 5, "day"), ("requests", 10**6, "month"))
    limits = [
        {"of": f"team:{team}", "measure": measure, "amount": amount, "per": per}
        for measure, amount, per in wanted
    ]
    assert house.call("PUT", "/api/limits", {"limits": limits}).status == 200
    key = house.make_key("developer", team=team)
    with Pressure(house, key, "cheap", clients) as pressure:
        killed = kill_some(house, SECONDS, (0.1, 1.0), seed=random.randrange(10**6))
    # A client may have given up on a request: it is over, and recorded, when nothing is held.
    counted = settled(house, team)
    shots, spent = pressure.shots, sum(map(tokens, records(house, team)))
    others = [shot for shot in shots if shot.code not in ("", "quota.exceeded")]
    wrong = [] if others else false_denials(shots, TOKENS, spent)
    return {
        "killed": killed,
        "answers": sum(shot.status == 200 for shot in shots),
        "refusals": sum(shot.status == 429 for shot in shots),
        "lines that went dead": sum(shot.status == 0 for shot in shots),
        "other errors": len(others),
        "tokens overspent": max(0, spent - TOKENS),
        "false denials": len(wrong),
        "counted otherwise than recorded": int(counted != spent),
    }


def restart(house: House, number: int) -> dict[str, int]:
    """Kill everything, start again, and compare each team's number with the record."""
    house.kill_control()
    house.close()
    house.start()
    wrong = 0
    for team in (f"team-{each}" for each in range(1, number + 1)):
        wrong += settled(house, team) != sum(map(tokens, records(house, team)))
    return {"restarts": 1, "counted otherwise than recorded": wrong}


def settled(house: House, team: str) -> int:
    """Return what the limit of a team counts, once nothing is reserved any more."""

    def quiet() -> Any:
        found = house.call("GET", f"/api/limits?of=team:{team}").json
        limit = next(each for each in found if each["measure"] == "tokens")
        return None if limit["reserved"] else limit

    return int(eventually(quiet, "nothing reserved", 30)["spent"])


def beyond_minutes(house: House) -> int:
    """Return how many requests were let in beyond the limit of a minute."""
    minutes: Counter[int] = Counter()
    for record in records(house, None):
        if record.get("principal") == "a-developer":
            minutes[int(record["admitted"] // 60)] += 1
    return sum(max(0, count - REQUESTS) for count in minutes.values())


def records(house: House, team: str | None) -> list[dict[str, Any]]:
    """Return what gateways have recorded as charged, of one team or all."""
    found = []
    for path in (house.home / "audit").glob("gateway-*.jsonl"):
        data = path.read_bytes()
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            record = json.loads(line)
            if "admitted" in record and team in (None, record.get("team")):
                found.append(record)
    return found


def tokens(record: dict[str, Any]) -> int:
    """Return the tokens that a record charges."""
    return int(record.get("tokens_in", 0)) + int(record.get("tokens_out", 0))


if __name__ == "__main__":
    main()
