"""Compression with proof: through the command line, over a kill, and what is refused."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.house import House, eventually
from tests.make_checkpoint import encoder
from tests.make_model import model
from tests.make_ranker import ranker

Make = Callable[..., House]
LINE = "Number {n}: the ferry left the quay at dawn with {n} crates of apples and one passenger."
TEXT = "\n\n".join(" ".join(LINE.format(n=n * 7 + k) for k in range(6)) for n in range(9))
STORY = (
    "The harbour is quiet in the morning. Boats come back with the tide, and the crews carry boxes "
    "of herring and cod to the market, where the cook of the inn buys what she needs for the day. "
    "Later the children walk along the wall to school; one of them counts the gulls, another reads "
    "the names of the ships aloud. At noon a bell rings, and the clerk writes down what was sold. "
) * 6
TESTS = "".join(
    json.dumps({"prompt": f"What is {n} + {n}?", "answer": str(2 * n), "tokens": 4}) + "\n"
    for n in range(3)
)


@pytest.fixture(scope="module")
def tiny(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    return model(weights, folder / "tiny.gguf", tied=False, context=16_384)


@pytest.fixture(scope="module")
def larger(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many tokens as keep a compression busy for some seconds."""
    return model(weights, tmp_path_factory.mktemp("larger") / "larger.gguf", tokens=24_000)


@pytest.fixture
def busy_house(tmp_path: Path, larger: Path) -> Iterator[House]:
    made = House(tmp_path / "home")
    made.cli("model", "import", str(larger), "--name", "tiny")
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture
def house(tmp_path: Path, tiny: Path) -> Iterator[House]:
    made = House(tmp_path / "home")
    made.cli("model", "import", str(tiny), "--name", "tiny")
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "tests.jsonl").write_text(TESTS)
    try:
        yield made.start()
    finally:
        made.close()


def short(house: House, **more: Any) -> dict[str, Any]:
    """The body of a short compression."""
    return {"max_loss": 0.5, "calibration": TEXT, "tasks": TESTS, **more}


def start(house: House, **more: Any) -> dict[str, Any]:
    path = "/api/models/tiny/versions/1/compress"
    answer = house.call("POST", path, short(house, **more))
    assert answer.status == 202, answer.body
    found: dict[str, Any] = answer.json
    return found


def over(house: House, job: str, patience: float = 280) -> dict[str, Any]:
    found: dict[str, Any] = eventually(
        lambda: (
            (j := house.call("GET", f"/api/jobs/{job}?wait=5").json)["state"] != "running" and j
        ),
        "the compression is over",
        patience=patience,
    )
    return found


def scratch(house: House) -> list[Path]:
    return list((house.home / "scratch").glob("compress-*"))


def test_a_model_becomes_smaller_and_says_what_that_costs(house: House, tmp_path: Path) -> None:
    text, tests = str(tmp_path / "text.txt"), str(tmp_path / "tests.jsonl")
    done = house.json("model", "compress", "tiny", "--max-loss", "50%", "--calibration", text,
                      "--tasks", tests)  # fmt: skip
    assert done["promoted"], done["reasons"]
    assert done["version"] == 2
    # 32-bit floats, and one matrix of two that are the same: less than a third is left.
    assert done["bytes_after"] < 0.33 * done["bytes_before"]
    assert 0 < done["kl"] <= 0.5
    assert set(done["tasks"]) == {"tests"}
    shown = house.json("model", "show", "tiny")
    assert shown["aliases"]["production"] == 2
    parent, child = shown["versions"]
    assert child["lineage"] == ["tiny:1"]
    assert child["dependencies"][0]["digest"] == parent["digest"]
    assert child["quality"]["loss"] == pytest.approx(done["loss"])
    report = house.call("GET", done["report"]).json
    assert report["measured"]["tied"]
    assert report["measured"]["bytes_after"] == done["bytes_after"] == child["bytes"]
    tensors = {row["name"]: row for row in report["measured"]["tensors"]}
    assert "output.weight" not in tensors
    assert tensors["blk.0.attn_norm.weight"]["after"] == "F32"
    page = tmp_path / "report.html"
    house.cli("model", "report", "tiny:2", "--page", str(page))
    html = page.read_text()
    assert "<svg" in html
    assert "blk.1.ffn_down.weight" in html
    assert "http" not in html.replace("http-equiv", "")
    assert scratch(house) == []
    # It is whole, and engines run it.
    house.cli("model", "verify", "tiny:2")
    house.cli("deploy", "tiny")
    body = {"model": "tiny", "prompt": "The ferry", "max_tokens": 3}
    eventually(lambda: house.call("POST", "/v1/completions", body).status == 200, "it answers")
    # It runs as it was found to run best: the longest context that fits, the cache that was kept.
    found = report["launch"]
    assert found["context"] == "16384"
    assert {key: str(value) for key, value in child["settings"].items() if value} == found
    assert done["launch"] == found
    running = house.deployment("tiny")
    assert (running["context"], running["cache_type"]) == (16_384, found.get("cache_type"))
    assert any("key-value cache q" in line for line in report["tried"]), report["measured"][
        "caches"
    ]
    assert report["speed_launched"]["write"] > 0
    assert "context 16384" in house.cli("model", "report", "tiny:2")
    # Unless somebody says otherwise.
    house.cli("deploy", "tiny", "--context", "256", "--cache-type", "f16", "--draft", "none")
    running = house.deployment("tiny")
    assert (running["context"], running["cache_type"]) == (256, "f16")
    # Back at once.
    assert house.json("model", "rollback", "tiny")["version"] == 1


def test_a_sibling_is_tried_as_a_draft_and_launched_where_settings_say_so(
    new_house: Callable[..., House], weights: Path, tmp_path: Path
) -> None:
    house = new_house(empty=True).start()
    for name, idle in (("quick", 0), ("slow", 4)):
        made = model(weights, tmp_path / f"{name}.gguf", context=2048, idle=idle)
        house.cli("model", "import", str(made), "--name", name)
    job = house.call("POST", "/api/models/slow/versions/1/compress", short(house)).json
    done = over(house, job["id"])["result"]
    tried = house.call("GET", done["report"]).json["tried"]
    told = next(line for line in tried if line.startswith("draft quick:1: writes "))
    # Whether it is faster is for this machine, at this moment, to say: it is held to what it said.
    faster = float(told.partition("writes ")[2].partition(" times")[0])
    assert (done["launch"].get("draft") == "quick:1") == (faster >= 1.1), tried
    house.cli("model", "settings", "slow:2", "--draft", "quick:1", "--drafted", "4")
    assert "draft quick:1" in house.cli("model", "show", "slow:2")
    house.cli("deploy", "slow:2", "--as", "slow", "--wait")
    digest = house.json("model", "show", "quick")["versions"][0]["digest"]
    assert house.deployment("slow")["draft"] == digest
    kept = house.call("DELETE", "/api/models/quick/versions/1")
    assert (kept.status, kept.error["code"]) == (409, "conflict.in_use"), kept.body
    body = {"model": "slow", "prompt": "The ferry left", "max_tokens": 8, "temperature": 0}
    guessed = house.call("POST", "/v1/completions", body).json["choices"][0]["text"]
    house.cli("deploy", "slow:2", "--as", "slow", "--draft", "none", "--wait")
    eventually(lambda: house.deployment("slow")["draft"] is None, "without")
    assert house.call("POST", "/v1/completions", body).json["choices"][0]["text"] == guessed


def test_what_loses_more_than_was_agreed_is_not_promoted(house: House) -> None:
    job = over(house, start(house, max_loss=0.001, target_size=0.24)["id"])
    result = job["result"]
    assert result["promoted"] is False
    assert any("over 0.0010" in reason for reason in result["reasons"]), result
    assert result["bytes_after"] <= 0.24 * result["bytes_before"]
    shown = house.json("model", "show", "tiny")
    assert shown["aliases"]["production"] == 1
    assert [version["number"] for version in shown["versions"]] == [1, 2]


def test_a_killed_compression_goes_on_where_it_was(busy_house: House) -> None:
    job = start(busy_house)
    folder = eventually(lambda: scratch(busy_house), "scratch")[0]
    eventually(lambda: (folder / "importance.json").exists(), "a stage is kept")
    kept = (folder / "importance.json").stat().st_mtime_ns
    busy_house.kill_control()
    assert json.loads((folder / "job.json").read_bytes())["id"] == job["id"]
    busy_house.start()
    done = over(busy_house, job["id"])
    assert done["state"] == "done", done
    report = busy_house.call("GET", done["result"]["report"]).json
    assert "importance" in report["measured"]["seconds"]
    # The stage that was kept was not done again: its file is as it was until all is over.
    assert kept < time.time_ns()
    assert scratch(busy_house) == []
    shown = busy_house.json("model", "show", "tiny")
    assert [version["number"] for version in shown["versions"]] == [1, 2]
    assert not _workers(busy_house)


def test_killed_while_its_launch_is_searched_it_goes_on_with_the_file_that_is_there(
    house: House,
) -> None:
    job = start(house)
    folder = eventually(lambda: scratch(house), "scratch")[0]
    eventually(lambda: (folder / "measured.json").exists(), "the file is made")
    told = house.call("GET", f"/api/jobs/{job['id']}").json
    assert told["stage"] != "queued"
    assert 0 <= told["done"] <= told["total"] > 0
    made = (folder / "compressed.gguf").stat().st_mtime_ns
    house.kill_control()
    assert (folder / "job.json").exists()  # made and measured, and no version yet
    assert (folder / "compressed.gguf").stat().st_mtime_ns == made
    house.start()
    done = over(house, job["id"])
    assert done["state"] == "done", done
    child = house.json("model", "show", "tiny")["versions"][1]
    assert child["settings"]["context"] == 16_384
    assert child["quality"]["loss"] == pytest.approx(done["result"]["loss"])
    house.cli("model", "verify", "tiny:2")
    assert scratch(house) == []


def test_a_second_compression_joins_or_is_refused(busy_house: House) -> None:
    first = start(busy_house)
    assert start(busy_house)["id"] == first["id"]
    path = "/api/models/tiny/versions/1/compress"
    other = busy_house.call("POST", path, short(busy_house, max_loss=0.4))
    assert other.status == 409, other.body
    assert other.error["code"] == "conflict.compressing"
    assert over(busy_house, first["id"])["state"] == "done"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"calibration": ""}, "invalid.calibration"),
        ({"calibration": "short"}, "invalid.calibration"),
        ({"calibration": TEXT + "\0"}, "invalid.calibration"),
        ({"calibration": "x" * (5 << 20)}, "invalid.calibration"),
        ({"tasks": '{"prompt": "x"}'}, "invalid.tests"),
        ({"max_loss": 0}, "invalid.request"),
        ({"max_loss": 1.5}, "invalid.request"),
        ({"target_size": 1.0}, "invalid.request"),
        ({"target": 0.5}, "invalid.request"),
    ],
)
def test_a_wrong_order_is_refused_before_any_work(
    house_of_module: House, body: dict[str, Any], code: str
) -> None:
    answer = house_of_module.call("POST", "/api/models/tiny/versions/1/compress", body)
    assert answer.status in (400, 422), answer.body
    assert answer.error["code"] == code
    assert scratch(house_of_module) == []


@pytest.fixture(scope="module")
def house_of_module(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("refusing") / "home")
    made.cli("model", "import", str(tiny), "--name", "tiny")
    try:
        yield made.start()
    finally:
        made.close()


def test_files_that_are_no_text_are_refused_at_the_terminal(
    house_of_module: House, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.txt"
    for data, why in ((b"\xff" * 4000, "not UTF-8"), (b"\0" * 4000, "zero bytes"), (b"", "empty")):
        bad.write_bytes(data)
        ran = house_of_module.run_cli("model", "compress", "tiny", "--calibration", str(bad))
        assert ran.returncode == 1
        assert why in ran.stderr
    ran = house_of_module.run_cli("model", "compress", "tiny", "--max-loss", "lots")
    assert ran.returncode == 1
    assert "1% or 0.01" in ran.stderr


def test_only_who_may_import_compresses_and_everybody_reads(house_of_module: House) -> None:
    key = house_of_module.make_key("developer")
    path = "/api/models/tiny/versions/1/compress"
    assert house_of_module.call("POST", path, {}, key=key).status == 403
    assert (
        house_of_module.call("POST", "/api/trials", {"a": "tiny", "b": "tiny"}, key=key).status
        == 403
    )
    missing = house_of_module.call("GET", "/api/models/tiny/versions/1/report", key=key)
    assert (missing.status, missing.error["code"]) == (404, "missing.report")


def test_a_child_that_is_killed_is_replaced_and_goes_on(busy_house: House) -> None:
    job = start(busy_house)
    folder = eventually(lambda: scratch(busy_house), "scratch")[0]
    eventually(lambda: (folder / "importance.json").exists(), "a stage is kept")
    for worker in _workers(busy_house):
        worker.kill()
    assert over(busy_house, job["id"])["state"] == "done"


def test_a_full_disk_ends_in_one_clear_error(busy_house: House) -> None:
    assert busy_house.control is not None
    # No file may grow beyond this: what control starts afterwards has the same limit.
    control = psutil.Process(busy_house.control.pid)
    control.rlimit(psutil.RLIMIT_FSIZE, (1_500_000, 1_500_000))
    done = over(busy_house, start(busy_house)["id"])
    assert done["state"] == "failed", done
    assert done["error"]["code"] == "unavailable.disk", done
    assert "nothing was kept" in done["error"]["message"]
    assert scratch(busy_house) == []
    shown = busy_house.json("model", "show", "tiny")
    assert [version["number"] for version in shown["versions"]] == [1]


def test_a_trial_of_two_versions(house: House, weights: Path, tmp_path: Path) -> None:
    house.cli("model", "import", str(weights), "--name", "smol")
    tests = tmp_path / "facts.jsonl"
    cases = [("What is the capital of France?", "Paris"), ("What is the capital of Italy?", "Rome")]
    tests.write_text("".join(
        json.dumps({"prompt": f"{q} ({n})", "answer": a, "tokens": 12}) + "\n"
        for q, a in cases for n in range(4)
    ))  # fmt: skip
    found = house.json("model", "trial", "smol", "tiny", "--tests", str(tests))
    assert found["overall"]["verdict"] == "worse"
    assert found["overall"]["after"]["mean"] == 0
    assert found["overall"]["before"]["mean"] > 0.7
    assert found["differing"] == len(found["differences"]) >= 6
    assert {each["better"] for each in found["differences"]} == {"a"}
    first = found["differences"][0]
    assert first["check"] in ('contains "Paris"', 'contains "Rome"')
    assert first["check"].split('"')[1] in first["a"]
    shown = house.cli("model", "trial", "smol", "tiny", "--tests", str(tests))
    assert shown.count("smol:1 passed  ") == shown.count("tiny:1 failed  ") == 3
    assert f"{found['differing'] - 3} more differ: --answers shows them" in shown
    same = house.json("model", "trial", "tiny", "tiny", "--tests", str(tests))
    assert same["overall"]["change"]["mean"] == 0


def _workers(house: House) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "freehold.models.compress.worker" in line and _of(process, house):
            found.append(process)
    return found


def _of(process: psutil.Process, house: House) -> bool:
    try:
        parents = [parent.pid for parent in process.parents()]
    except psutil.Error:
        return False
    return (house.control is not None and house.control.pid in parents) or os.getpid() in parents


@pytest.mark.timeout(900)
def test_the_starter_becomes_smaller_and_answers_as_it_did(own_house: House) -> None:
    """The real thing, on little text: what it loses by is measured elsewhere (bench/compress)."""
    # So asked, the model is sure of the answer; asked without the second sentence it is not.
    text = "What is the capital of France? Answer with one word."
    question = [{"role": "user", "content": text}]
    case = {"prompt": text, "answer": "Paris", "tokens": 12}
    # Two short passages to learn from, a longer one to be judged by.
    text = "\n\n".join((STORY[:120], STORY[120:240], STORY[240:]))
    body = {"max_loss": 0.5, "target_size": 0.9, "calibration": text, "tasks": json.dumps(case)}
    job = own_house.call("POST", "/api/models/smol/versions/1/compress", body).json
    done = over(own_house, job["id"], 800)["result"]
    report = own_house.call("GET", done["report"]).json
    assert done["promoted"], done["reasons"]
    assert done["bytes_after"] <= 0.9 * done["bytes_before"]
    assert 0 < done["kl"] <= 0.5
    assert report["tasks"][0]["before"]["mean"] == report["tasks"][0]["after"]["mean"] == 1.0
    eventually(
        lambda: [r["version"] for r in own_house.replicas() if r["state"] == "ready"] == [2],
        "the new version took over",
    )
    answer = own_house.chat(messages=question, max_tokens=16)
    assert "Paris" in answer.json["choices"][0]["message"]["content"]
    assert own_house.deployment()["cache_type"] == report["launch"].get("cache_type")


def test_an_embedding_model_becomes_smaller_and_finds_the_same(
    new_house: Callable[..., House], tmp_path: Path
) -> None:
    house = new_house(empty=True).start()
    house.cli("model", "import", str(encoder(3).save(tmp_path / "bert")), "--name", "bert")
    house.cli("model", "convert", "bert", "--type", "f32")
    (tmp_path / "text.txt").write_text(TEXT)
    text = ("--calibration", str(tmp_path / "text.txt"))
    writes = house.run_cli("model", "compress", "bert:2", "--tasks", str(tmp_path / "text.txt"))
    assert writes.returncode == 1
    done = house.json("model", "compress", "bert:2", "--max-loss", "5%", *text)
    assert done["promoted"], done["reasons"]
    assert done["kl"] is None
    assert 0 < done["loss"] <= 0.05
    assert done["bytes_after"] < 0.6 * done["bytes_before"]
    report = house.call("GET", done["report"]).json
    assert report["measured"]["metric"] == "cosine"
    assert report["measured"]["retrieval"]["mean"] > 0.5
    assert report["tried"] == []  # no cache, no draft: nothing to search
    assert "1 - cosine" in _page(house, "bert:3", tmp_path)
    vectors = []
    for number in (2, 3):
        house.cli("deploy", f"bert:{number}", "--as", "bert", "--wait")
        eventually(lambda n=number: house.replicas("bert")[0]["version"] == n, "the version runs")
        body = {"model": "bert", "input": ["the lazy dog", "Straße"]}
        answer = house.call("POST", "/v1/embeddings", body)
        vectors.append([each["embedding"] for each in answer.json["data"]])
    for before, after in zip(*vectors, strict=True):
        assert 0.9 < sum(a * b for a, b in zip(before, after, strict=True)) < 0.999999


def test_a_model_that_ranks_becomes_smaller_and_keeps_its_order(
    new_house: Callable[..., House], tmp_path: Path
) -> None:
    house = new_house(empty=True).start()
    house.cli("model", "import", str(ranker(tmp_path)), "--name", "ranks")
    assert house.json("model", "show", "ranks")["versions"][0]["manifest"]["task"] == "rerank"
    (tmp_path / "text.txt").write_text(TEXT)
    text = ("--calibration", str(tmp_path / "text.txt"))
    done = house.json("model", "compress", "ranks", "--max-loss", "5%", *text)
    assert done["promoted"], done["reasons"]
    assert "difference of scores" in done["reasons"][0]
    assert done["kl"] is None
    assert 0 < done["loss"] <= 0.05
    assert done["bytes_after"] < 0.8 * done["bytes_before"]
    report = house.call("GET", done["report"]).json
    assert report["measured"]["metric"] == "score"
    assert 0.7 < report["measured"]["retrieval"]["mean"] <= 1
    assert "same order" in _page(house, "ranks:2", tmp_path)
    scores = []
    body = {"model": "ranks", "query": "the fox", "documents": ["a lazy dog", "Straße", "1234"]}
    for number in (1, 2):
        house.cli("deploy", f"ranks:{number}", "--as", "ranks", "--wait")
        eventually(lambda n=number: house.replicas("ranks")[0]["version"] == n, "it runs")
        found = house.call("POST", "/v1/rerank", body).json["results"]
        scores.append({each["index"]: each["relevance_score"] for each in found})
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=0.5)


def _page(house: House, name: str, folder: Path) -> str:
    target = folder / "page.html"
    house.cli("model", "report", name, "--page", str(target))
    return target.read_text()
