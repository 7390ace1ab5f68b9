"""Every dialect over an engine that speaks only chat: what it is asked, what the client gets.

A case is a file: the request, the events of the engine, and what came of them, to the byte but for
ids and times. ``pytest tests/golden/test_dialects.py --update`` writes down what comes now.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.house import House
from tests.scripted import Script, scripted

FOLDER = Path(__file__).parent
CASES = sorted(FOLDER.glob("*/*.json"))


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    with scripted() as made:
        yield made


@pytest.fixture(scope="module")
def wired(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house in front of an engine that speaks only chat."""
    house = House(tmp_path_factory.mktemp("wired") / "home")
    house.cli("deploy", "--url", script.url, "--as", "m", "--upstream-model", "engine-m")
    house.cli("deploy", "--url", script.url, "--as", "ranker", "--task", "rerank")
    try:
        yield house.start()
    finally:
        house.close()


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(wired: House, script: Script, path: Path, request: pytest.FixtureRequest) -> None:
    case = json.loads(path.read_text())
    found = play(wired, script, case)
    if request.config.getoption("--update"):
        path.write_text(json.dumps({**case, **found}, indent=1, ensure_ascii=False) + "\n")
        return
    for name, value in found.items():
        assert _compact(value) == _compact(case[name]), name


def play(house: House, script: Script, case: dict[str, Any]) -> dict[str, Any]:
    """Return what the engine was asked and what the client got."""
    script.events, script.asked = case.get("engine", []), None
    script.status, script.body = case.get("engine_status", 200), case.get("engine_body")
    method, key = case.get("method", "POST"), case.get("key", "admin")
    answer = house.call(method, case["path"], case["request"], key=key, headers=case.get("headers"))
    text = _plain(answer.body.decode())
    streamed = answer.headers["content-type"] == "text/event-stream"
    shown = text.removesuffix("\n\n").split("\n\n") if streamed else json.loads(text)
    return {"asked": script.asked, "status": answer.status, "answer": shown}


def _plain(text: str) -> str:
    """Leave out what differs from one run to the next."""
    text = re.sub(r"(?<![0-9a-f])[0-9a-f]{27}(?![0-9a-f])", "ID", text)
    return re.sub(r'"(created_at|completed_at)":\d+', r'"\1":0', text)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
