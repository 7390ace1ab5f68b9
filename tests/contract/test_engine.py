"""What every engine promises; llama.cpp for real, as the wheel and as a build for this machine.

A build takes a quarter of an hour, so none is made here: ``freehold engine build``, then copy its
folder ``HOME/engines/ID`` to ``.cache/native-build``.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from freehold.builtin.engine_llamacpp import LlamaCpp
from freehold.builtin.engine_openai import OpenAI
from freehold.models.conversion import convert
from freehold.models.engines.bench import running as started
from freehold.models.engines.match import same_tokens
from freehold.runtime import process
from freehold.runtime.builds import Build
from freehold.runtime.engine import Launch, Native
from freehold.store.blobs import measure
from tests.conftest import ROOT
from tests.house import QUESTION, House, eventually
from tests.make_checkpoint import Lora, decoder
from tests.make_engine import program
from tests.unit.models.test_quarantine import Shop

SECRET = "a-secret-for-one-launch"
LAUNCH = Launch(
    deployment="d", engine="llamacpp", model="m", weights="x", context=1024, slots=1, threads=1
)


BUILD = ROOT / ".cache" / "native-build"


@pytest.fixture(scope="module")
def native() -> Launch:
    """How a build is launched."""
    if not (BUILD / "build.json").is_file():
        pytest.skip(
            "NOT TESTED HERE: no engine was built. Run freehold engine build, and copy its folder "
            "HOME/engines/ID to .cache/native-build"
        )
    build = msgspec.json.decode((BUILD / "build.json").read_bytes(), type=Build)
    files = tuple(sorted(build.files.items()))
    found = Native(build=build.id, directory=str(BUILD), files=files)
    return msgspec.structs.replace(LAUNCH, native=found)


@pytest.fixture(scope="module", params=["wheel", "native"])
def launch(request: pytest.FixtureRequest) -> Launch:
    """How each llama.cpp that is here is launched."""
    if request.param == "wheel":
        return LAUNCH
    found: Launch = request.getfixturevalue("native")
    return found


@pytest.fixture(scope="module")
def running(
    launch: Launch, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    folder = tmp_path_factory.mktemp("engine")
    ready = folder / "ready"
    command = LlamaCpp().command(launch, weights, SECRET, ready)
    assert SECRET not in " ".join(command.argv)
    identity = process.spawn(
        command.argv, folder / "log", payload=command.payload, environment=dict(os.environ)
    )
    try:
        yield eventually(lambda: ready.exists() and ready.read_text(), "it serves"), identity.pid
    finally:
        process.send(identity, signal.SIGKILL)


def test_it_serves_on_loopback_under_its_secret(running: tuple[str, int], house: House) -> None:
    url, _ = running
    assert url.startswith("http://127.0.0.1:")
    base = LlamaCpp().endpoint(url)
    body = {"model": "m", "messages": QUESTION, "max_tokens": 2}
    assert house.call("POST", "/chat/completions", body, key=SECRET, url=base).status == 200
    assert house.call("POST", "/chat/completions", body, key="wrong", url=base).status == 401
    assert house.call("POST", "/chat/completions", body, key=None, url=base).status == 401


def test_its_secret_is_in_no_command_line(running: tuple[str, int]) -> None:
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert SECRET not in shown.stdout
    assert SECRET.encode() not in Path(f"/proc/{running[1]}/environ").read_bytes()


def test_it_is_the_process_that_was_started(
    running: tuple[str, int], launch: Launch, house: House
) -> None:
    """So that ending, watching and measuring it mean it."""
    url, pid = running
    owners = {
        each.pid
        for each in psutil.net_connections("tcp4")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == int(url.rpartition(":")[2])
    }
    assert owners == {pid}
    if launch.native is not None:
        assert psutil.Process(pid).exe().endswith("/llama-server")


def test_a_broken_file_ends_the_child_with_words(tmp_path: Path, launch: Launch) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    ready = tmp_path / "ready"
    command = LlamaCpp().command(launch, broken, SECRET, ready)
    identity = process.spawn(
        command.argv, tmp_path / "log", payload=command.payload, environment=dict(os.environ)
    )
    eventually(lambda: not process.is_alive(identity), "it ended", 30)
    assert not ready.exists()
    assert (tmp_path / "log").read_text().strip()


def test_an_endpoint_has_nothing_to_start(tmp_path: Path) -> None:
    engine = OpenAI()
    assert engine.command(LAUNCH, tmp_path, SECRET, tmp_path) is None
    assert engine.endpoint("http://host/v1/") == "http://host/v1"
    assert (engine.streams_only, LlamaCpp.streams_only) == (False, True)


def test_any_number_of_slots_serves(
    weights: Path, tmp_path: Path, house: House, launch: Launch
) -> None:
    """Also those that divide no usual batch; 512 rows for 3 slots ended it at its start."""
    ready = tmp_path / "ready"
    three = msgspec.structs.replace(launch, slots=3)
    command = LlamaCpp().command(three, weights, SECRET, ready)
    identity = process.spawn(
        command.argv, tmp_path / "log", payload=command.payload, environment=dict(os.environ)
    )
    try:
        url = eventually(lambda: ready.exists() and ready.read_text(), "it serves")
        base = LlamaCpp().endpoint(url)
        body = {"model": "m", "messages": QUESTION, "max_tokens": 2}
        assert house.call("POST", "/chat/completions", body, key=SECRET, url=base).status == 200
        body = {"model": "m", "input": "one text"}
        assert house.call("POST", "/embeddings", body, key=SECRET, url=base).status == 200
    finally:
        process.send(identity, signal.SIGKILL)


def test_a_build_answers_as_the_wheel_does(native: Launch, weights: Path, tmp_path: Path) -> None:
    quiet = lambda: None  # noqa: E731
    engine = LlamaCpp()
    with (
        started(engine, native, weights, tmp_path / "build", quiet) as build,
        started(engine, LAUNCH, weights, tmp_path / "wheel", quiet) as wheel,
    ):
        found = same_tokens(build, wheel)
    assert (found.why, found.places) == (None, 96)
    assert found.agreed >= 95


def test_what_was_tuned_is_how_it_runs(
    weights: Path, tmp_path: Path, house: House, launch: Launch
) -> None:
    ready = tmp_path / "ready"
    tuned = msgspec.structs.replace(
        launch, batch=128, cache_type="q8_0", flash=True, draft="y", drafted=4
    )
    command = LlamaCpp().command(tuned, weights, SECRET, ready, draft=weights)
    assert command is not None
    identity = process.spawn(
        command.argv, tmp_path / "log", payload=command.payload, environment=dict(os.environ)
    )
    try:
        url = eventually(lambda: ready.exists() and ready.read_text(), "it serves")
        body = {"prompt": "The capital of France is", "n_predict": 12, "temperature": 0}
        answer = house.call("POST", "/completion", body, key=SECRET, url=url)
        assert "Paris" in answer.json["content"]
        assert answer.json["timings"]["draft_n_accepted"] > 0  # its own sibling guesses well
    finally:
        process.send(identity, signal.SIGKILL)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and an adapter of it, as files that llama.cpp loads."""
    folder = tmp_path_factory.mktemp("adapted")
    shop = Shop(folder)
    made = decoder("qwen2", seed=7)
    base = shop.bring(made.save(folder / "base"), "some-base")
    base = convert(base, "f32", shop.workshop, lambda *_: None, 1.0, "me")[0]
    adapter = shop.bring(Lora(made, 1).save(folder / "lora"), "lora")
    adapter = convert(adapter, "f32", shop.workshop, lambda *_: None, 1.0, "me")[0]
    blobs = shop.workshop.blobs
    shop.database.close()
    return blobs.path(base.row.digest), blobs.path(adapter.row.digest)


@pytest.mark.parametrize("build", ["wheel", "compiled", "native"])
def test_an_adapter_counts_where_a_request_says_so_and_nowhere_else(
    build: str,
    adapted: tuple[Path, Path],
    tmp_path: Path,
    house: House,
    request: pytest.FixtureRequest,
) -> None:
    base, adapter = adapted
    launch = LAUNCH
    if build == "compiled" and not shutil.which("cc"):
        pytest.skip("NO COMPILER: cc is not on this machine")
    if build == "compiled":
        launch = msgspec.structs.replace(LAUNCH, native=_native(program(tmp_path)))
    elif build == "native":
        launch = request.getfixturevalue("native")
    plain = _logits(launch, base, (), tmp_path / "plain", house, [[]])[0]
    chosen = [[{"id": 0, "scale": scale}] for scale in (0.0, 1.0, 0.0, 0.5)]
    told = _logits(launch, base, (adapter,), tmp_path / "adapted", house, chosen)
    assert len(plain) > 400  # the whole vocabulary
    assert told[0] == pytest.approx(plain, abs=1e-3)
    assert told[2] == pytest.approx(plain, abs=1e-3)  # nothing is left of the request before
    assert max(abs(told[1][token] - plain[token]) for token in plain) > 0.05
    assert max(abs(told[3][token] - told[1][token]) for token in plain) > 0.01


def _native(folder: Path) -> Native:
    files = tuple((path.name, measure(path)[0]) for path in sorted(folder.iterdir())
                  if path.is_file() and not path.is_symlink())  # fmt: skip
    return Native(build="test", directory=str(folder), files=files)


def _logits(
    launch: Launch,
    base: Path,
    adapters: tuple[Path, ...],
    folder: Path,
    house: House,
    chosen: list[list[dict[str, float]]],
) -> list[dict[int, float]]:
    """Return the log-probabilities of all tokens after a prompt, for each choice of adapters."""
    folder.mkdir()
    ready = folder / "ready"
    command = LlamaCpp().command(launch, base, SECRET, ready, adapters)
    identity = process.spawn(
        command.argv, folder / "log", payload=command.payload, environment=dict(os.environ)
    )
    try:
        url = eventually(lambda: ready.exists() and ready.read_text(), "it serves", 60)
        letter = house.call("POST", "/tokenize", {"content": "a"}, key=SECRET, url=url).json
        found = []
        for lora in chosen:
            # A letter, whatever is likely: half a character would be held back, and its odds too.
            body = {"prompt": "The quick brown fox", "n_predict": 1, "n_probs": 1000, "lora": lora,
                    "temperature": 0, "cache_prompt": False,
                    "logit_bias": [[letter["tokens"][-1], 100.0]]}  # fmt: skip
            answer = house.call("POST", "/completion", body, key=SECRET, url=url)
            assert answer.status == 200, answer.body
            tokens = answer.json["completion_probabilities"][0]["top_logprobs"]
            found.append({each["id"]: each["logprob"] for each in tokens})
        return found
    finally:
        process.send(identity, signal.SIGKILL)
