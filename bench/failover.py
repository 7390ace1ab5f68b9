"""Sixteen faults, three gateways: who gives a whole answer while another replica could?

    python -m bench.failover [GATEWAY ...]

Two replicas each: the first has the fault, the second is well (``tests/faulty.py``). Everybody gets
10 s timeouts and three retries; a case is passed when the client has one whole and correct answer
within 45 s, streamed and not. LiteLLM and Portkey are installed into ``bench/.work`` by themselves.
"""

import argparse
import http.client
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import report
from bench.peers import LITELLM, PORTKEY, _running, _venv
from bench.peers import portkey as plain_portkey
from bench.stage import WORK, free_port
from tests.faulty import FAULTS, Faulty, verdict
from tests.house import House

DEADLINE = 45.0
CASES = [(fault, stream) for fault in FAULTS for stream in (False, True)]
SETTINGS = """
[runtime]
headers_timeout = 10.0
first_token_timeout = 10.0
token_timeout = 10.0
total_timeout = 45.0
retries = 3
"""
Headers = dict[str, str]
Gateway = tuple[str, Callable[[str], Headers], bool]
"""Where it is, what headers a case takes, and whether it picks replicas as it likes."""


def main() -> None:
    """Run the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gateways", nargs="*", choices=[[], *GATEWAYS], default=[])
    given = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    columns = {name: _column(name) for name in given.gateways or GATEWAYS}
    found: dict[str, Any] = {
        name: {text: _cell(column, fault) for fault, text in FAULTS.items()}
        for name, column in columns.items()
    }
    for name, column in columns.items():
        found[name]["passes"] = f"{sum(_passes(column, fault) for fault in FAULTS)} of 16"
        found[name]["lies"] = sum(outcome in ("lie", "cut") for outcome, _ in column.values())
    report.keep("failover", {**found, "versions": [LITELLM, PORTKEY]})
    report.write()
    _show(columns)


def _column(name: str) -> dict[tuple[str, bool], tuple[str, float]]:
    print(f"failover: {name}", file=sys.stderr)
    with Faulty() as faulty, GATEWAYS[name](faulty) as gateway, ThreadPoolExecutor(4) as pool:
        outcomes = pool.map(lambda case: _case(gateway, faulty, *case), CASES)
        return dict(zip(CASES, outcomes, strict=True))


def _case(gateway: Gateway, faulty: Faulty, fault: str, stream: bool) -> tuple[str, float]:
    """Ask until the faulty replica was asked; return the outcome and its seconds."""
    url, headers, picks = gateway
    name, worst = _name(fault, stream), ("answer", 0.0)
    for _ in range(8 if picks else 1):
        before = faulty.seen[name]
        begun = time.perf_counter()
        outcome = _ask(url, headers(name), name, stream)
        if outcome != "answer" or worst[0] == "answer":
            worst = (outcome, round(time.perf_counter() - begun, 1))
        if outcome != "answer" or faulty.seen[name] > before:
            break
    return worst


def _ask(url: str, headers: Headers, model: str, stream: bool) -> str:
    where = urlsplit(url)
    deadline = time.monotonic() + DEADLINE
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=DEADLINE)
    body = {"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}],
            "temperature": 0, "stream": stream}  # fmt: skip
    data = b""
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        while piece := response.read1(65536):
            data += piece
            if time.monotonic() > deadline:
                return "hang"
    except TimeoutError:
        return "hang"
    except (OSError, http.client.HTTPException):
        return "cut"
    finally:
        connection.close()
    return verdict(response.status, data, stream=stream)


@contextmanager
def _freehold(faulty: Faulty) -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "freehold.toml").write_text(SETTINGS)
        house = House(home)
        tables = [
            f"[[deployments]]\nname = {_name(*case)!r}\nreplicas = 2\nurls = {_urls(faulty, *case)}"
            for case in CASES
        ]
        try:
            house.start().cli("apply", "-", text="\n".join(tables))
            headers = {"authorization": f"Bearer {house.key}", "content-type": "application/json"}
            yield house.url, lambda _: headers, True
        finally:
            house.close()


@contextmanager
def _litellm(faulty: Faulty) -> Iterator[Gateway]:
    binary = _venv("litellm", LITELLM) / "litellm"
    port, config, key = free_port(), WORK / "failover.yaml", f"sk-{'0123456789abcdef' * 2}"
    models = [
        {"model_name": _name(*case),
         "litellm_params": {"model": "openai/m", "api_base": url, "api_key": "x"}}
        for case in CASES
        for url in _urls(faulty, *case)
    ]  # fmt: skip
    limits = {"num_retries": 3, "timeout": 10, "stream_timeout": 10}
    config.write_text(json.dumps({"model_list": models, "router_settings": limits}))
    environment = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [binary, "--config", config, "--port", str(port), "--num_workers", "1"]
    url = f"http://127.0.0.1:{port}"
    with _running("failover-litellm", command, f"{url}/health/liveliness", environment):
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        yield url, lambda _: headers, True


@contextmanager
def _portkey(faulty: Faulty) -> Iterator[Gateway]:
    urls = {_name(*case): _urls(faulty, *case) for case in CASES}

    def headers(name: str) -> Headers:
        targets = [
            {"provider": "openai", "api_key": "x", "custom_host": url, "request_timeout": 10_000,
             "retry": {"attempts": 3}}
            for url in urls[name]
        ]  # fmt: skip
        config = {"strategy": {"mode": "fallback"}, "targets": targets}
        return {"x-portkey-config": json.dumps(config), "content-type": "application/json"}

    with plain_portkey("", prefix=()) as peer:
        yield peer.url, headers, False


GATEWAYS: dict[str, Callable[[Faulty], Any]] = {
    "freehold": _freehold,
    "litellm": _litellm,
    "portkey": _portkey,
}


def _name(fault: str, stream: bool) -> str:
    return f"{fault}.{'stream' if stream else 'whole'}"


def _urls(faulty: Faulty, fault: str, stream: bool) -> list[str]:
    tag = "stream" if stream else "whole"
    return [faulty.base(fault, tag), faulty.base("well", f"{fault}-{tag}")]


def _passes(column: dict[tuple[str, bool], tuple[str, float]], fault: str) -> bool:
    return all(column[fault, stream][0] == "answer" for stream in (False, True))


def _cell(column: dict[tuple[str, bool], tuple[str, float]], fault: str) -> str:
    whole, streamed = (column[fault, stream] for stream in (False, True))
    return f"{whole[0]} {whole[1]} s, streamed {streamed[0]} {streamed[1]} s"


def _show(columns: dict[str, dict[tuple[str, bool], tuple[str, float]]]) -> None:
    print(f"{'':32}" + "".join(f"{name:>44}" for name in columns))
    for fault, text in FAULTS.items():
        print(f"{text:32}" + "".join(f"{_cell(column, fault):>44}" for column in columns.values()))
    for name, column in columns.items():
        outcomes = Counter(outcome for outcome, _ in column.values())
        print(name, sum(_passes(column, fault) for fault in FAULTS), "of 16", dict(outcomes))


if __name__ == "__main__":
    main()
